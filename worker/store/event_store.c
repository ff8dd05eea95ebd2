/* Consumed events in PostgreSQL: effects, dead letters and position in one transaction. */
#include <stdlib.h>
#include <string.h>

#include "common/failpoint.h"
#include "common/log.h"
#include "worker/store/user_store_private.h"

#define CONFLICT_ATTEMPTS 3
#define CAREFUL_BATCHES   16 /* after a batch that was not all new: the next may be of its kind */

/* LOCK TABLE insists on a transaction block, and a pipeline's implicit one is none; inside DO it
 * does not. It must be a step of its own: the next one's snapshot has to be younger than the lock.
 */
static const struct db_statement close_gate = {
    .name = "close_gate",
    .sql = "DO 'BEGIN LOCK TABLE identity_gate IN SHARE MODE; END'",
    .is_plain = true,
};

/* Parameters: cluster, topic, partition, position, next position, is_first; ids, [names, canonical
 * forms] or [traceparents]; dead letters: keys, values, and their headers: number of the letter
 * (from 1), name, value; whether a registration revives a deleted id. All depends on `accepted`,
 * which is empty when the stored position is another one. Last of all `record`: offset, timestamp
 * and checksum of the record below the next position; empty: not known. */
#define RECORD_BELOW "record_offset, record_timestamp, record_checksum"
#define ACCEPT_POSITION(record)                                                                 \
    "WITH below AS (SELECT r[1] AS at, r[2] AS sent, r[3] AS sum FROM (SELECT " record          \
    "::int8[]) AS q (r)),"                                                                      \
    " moved AS ("                                                                               \
    "  UPDATE consumed_offset SET next_offset = $5::int8, updated_at = now(),"                  \
    "  (" RECORD_BELOW ") = (SELECT at, sent, sum FROM below)"                                  \
    "  WHERE cluster = $1::text AND topic = $2::text AND partition = $3::int4"                  \
    "  AND next_offset = $4::int8 AND NOT $6::bool RETURNING 1),"                               \
    " begun AS ("                                                                               \
    "  INSERT INTO consumed_offset AS o (cluster, topic, partition, next_offset, " RECORD_BELOW \
    ") SELECT $1::text, $2::text, $3::int4, $5::int8, at, sent, sum FROM below WHERE $6::bool"  \
    "  ON CONFLICT (cluster, topic, partition) DO UPDATE"                                       \
    "  SET next_offset = excluded.next_offset, updated_at = now(),"                             \
    "  (" RECORD_BELOW ") = (SELECT at, sent, sum FROM below) WHERE o.next_offset = $4::int8"   \
    "  RETURNING 1),"                                                                           \
    " accepted AS MATERIALIZED (SELECT FROM moved UNION ALL SELECT FROM begun),"
/* `before` is a sum of counts of the CTEs that write; see delete_users in user_write.c. */
#define WRITE_DEAD_LETTERS(keys, values, letters, names, contents, before)            \
    " dead AS ("                                                                      \
    "  INSERT INTO outbox (destination, key, value, header_names, header_values)"     \
    "  SELECT 2, l.key, l.value, coalesce(h.names, '{}'), coalesce(h.contents, '{}')" \
    "  FROM unnest(" keys "::bytea[], " values "::bytea[])"                           \
    "  WITH ORDINALITY AS l (key, value, number)"                                     \
    "  LEFT JOIN (SELECT letter, array_agg(name ORDER BY number) AS names,"           \
    "   array_agg(content ORDER BY number) AS contents"                               \
    "   FROM unnest(" letters "::int4[], " names "::text[], " contents "::bytea[])"   \
    "   WITH ORDINALITY AS e (letter, name, content, number) GROUP BY letter) h"      \
    "  ON h.letter = l.number"                                                        \
    "  WHERE EXISTS (SELECT FROM accepted) AND " before " >= 0 ORDER BY l.number)"
#define REGISTRATION_WRITES                                        \
    "(SELECT count(*) FROM revived) + (SELECT count(*) FROM made)" \
    " + (SELECT count(*) FROM claimed)"

/* The first registration of an id counts; rows are made in the order of ids, claims in the order of
 * names, so that two workers do not deadlock. Of equal names in a batch the one that was sent first
 * gets the claim. */
#define APPLY_REGISTRATIONS(on_known_id, on_known_name)                                    \
    ACCEPT_POSITION("$16")                                                                 \
    " arrived AS MATERIALIZED ("                                                           \
    "  SELECT e.*, t.id_auth IS NOT NULL AS is_tombstoned"                                 \
    "  FROM unnest($7::int4[], $8::text[], $9::text[])"                                    \
    "  WITH ORDINALITY AS e (id_auth, username, canonical, number)"                        \
    "  LEFT JOIN user_tombstone t USING (id_auth) WHERE EXISTS (SELECT FROM accepted)),"   \
    " revived AS ("                                                                        \
    "  DELETE FROM user_tombstone t USING arrived a"                                       \
    "  WHERE $15::bool AND a.is_tombstoned AND t.id_auth = a.id_auth"                      \
    "  RETURNING 1),"                                                                      \
    " living AS MATERIALIZED ("                                                            \
    "  SELECT DISTINCT ON (id_auth) * FROM arrived WHERE $15::bool OR NOT is_tombstoned"   \
    "  ORDER BY id_auth, number),"                                                         \
    " made AS ("                                                                           \
    "  INSERT INTO \"user\" (username, id_auth) SELECT username, id_auth FROM living"      \
    "  ORDER BY id_auth " on_known_id " RETURNING id_auth),"                               \
    " claimed AS ("                                                                        \
    "  INSERT INTO username_claim (id_auth, canonical, username)"                          \
    "  SELECT w.id_auth, w.canonical, w.username FROM ("                                   \
    "   SELECT DISTINCT ON (canonical COLLATE \"C\") id_auth, canonical, username"         \
    "   FROM living JOIN made USING (id_auth) WHERE canonical IS NOT NULL"                 \
    "   ORDER BY canonical COLLATE \"C\", number) w"                                       \
    "  ORDER BY w.canonical COLLATE \"C\" " on_known_name                                  \
    " RETURNING id_auth)," WRITE_DEAD_LETTERS("$10", "$11", "$12", "$13", "$14",           \
        REGISTRATION_WRITES) " SELECT EXISTS (SELECT FROM accepted),"                      \
                             " (SELECT count(*) FROM made),"                               \
                             " (SELECT count(*) FROM arrived WHERE is_tombstoned AND NOT " \
                             "$15::bool),"                                                 \
                             " (SELECT count(*) FROM made) - (SELECT count(*) FROM claimed)"

/* As if every id and every name were new, which they nearly always are; refused with a
 * unique_violation where one is not. Two thirds of what the next one costs PostgreSQL: a row that
 * may meet another is inserted on probation, and confirmed in the write-ahead log. */
const struct db_statement event_store_new_registrations = {
    .name = "apply_new_registrations",
    .sql = APPLY_REGISTRATIONS("", ""),
};

const struct db_statement event_store_registrations = {
    .name = "apply_registrations",
    .sql = APPLY_REGISTRATIONS("ON CONFLICT (id_auth) DO NOTHING", "ON CONFLICT DO NOTHING"),
};

/* Every id gets its tombstone, known or not: its registration may still be on the way. */
const struct db_statement event_store_deletions = {
    .name = "apply_deletions",
    .sql = ACCEPT_POSITION(
        "$14") " gate AS (INSERT INTO identity_gate SELECT false WHERE false),"
               " asked AS MATERIALIZED ("
               "  SELECT DISTINCT ON (id_auth) id_auth, traceparent FROM "
               "unnest($7::int4[], $8::text[])"
               "  WITH ORDINALITY AS e (id_auth, traceparent, number)"
               "  WHERE EXISTS (SELECT FROM accepted) ORDER BY id_auth, number),"
               " locked AS MATERIALIZED ("
               "  SELECT u.id_auth FROM \"user\" u WHERE u.id_auth = ANY($7::int4[])"
               "  AND EXISTS (SELECT FROM accepted) ORDER BY u.id_auth FOR UPDATE),"
               " removed AS ("
               "  DELETE FROM \"user\" u USING locked l WHERE u.id_auth = l.id_auth "
               "RETURNING u.id_auth),"
               " tombstone AS ("
               "  INSERT INTO user_tombstone (id_auth) SELECT id_auth FROM asked ORDER "
               "BY id_auth"
               "  ON CONFLICT DO NOTHING RETURNING 1),"
               " published AS ("
               "  INSERT INTO outbox (destination, id_auth, key, value, traceparent)"
               "  SELECT 1, id_auth, convert_to(id_auth::text, 'UTF8'),"
               "  convert_to('{\"id\": ' || id_auth || '}', 'UTF8'), a.traceparent "
               "FROM removed"
               "  JOIN asked a USING (id_auth)"
               "  WHERE (SELECT count(*) FROM removed) + (SELECT count(*) FROM "
               "tombstone) > 0"
               "  RETURNING 1)," WRITE_DEAD_LETTERS("$9", "$10", "$11", "$12", "$13",
                   "(SELECT count(*) FROM tombstone) + (SELECT count(*) FROM "
                   "published)") " SELECT EXISTS "
                                 "(SELECT FROM "
                                 "accepted), (SELECT "
                                 "count(*) "
                                 "FROM removed), "
                                 "0::int8, 0::int8",
};

struct event_request {
    struct store_request request;
    struct user_store *store;
    struct user_event_batch *batch; /* the caller's */
    unsigned int attempts;
    bool is_careful; /* registrations: some may be known */
};

static void finish(struct event_request *request, enum user_apply_outcome outcome)
{
    struct user_event_batch *batch = request->batch;
    request->store->others_in_flight--;
    free(request);
    batch->on_applied(batch, outcome);
}

static void add_position(const struct user_event_batch *batch, struct db_parameters *parameters)
{
    db_parameters_add_text(parameters, batch->cluster, strlen(batch->cluster));
    db_parameters_add_text(parameters, batch->topic, strlen(batch->topic));
    db_parameters_add_int4(parameters, batch->partition);
    db_parameters_add_int8(parameters, batch->position);
    db_parameters_add_int8(parameters, batch->next_position);
    db_parameters_add_bool(parameters, batch->is_first);
}

static void add_record_below(const struct user_event_batch *batch, struct db_parameters *parameters)
{
    const struct position_record *record = &batch->record_below;
    db_parameters_array_begin(parameters, DB_ELEMENT_INT8);
    if (record->is_known) {
        db_parameters_array_int8(parameters, record->offset);
        db_parameters_array_int8(parameters, record->timestamp_ms);
        db_parameters_array_int8(parameters, record->checksum);
    }
    db_parameters_array_end(parameters);
}

static void add_traceparents(const struct user_event_batch *batch, struct db_parameters *parameters)
{
    db_parameters_array_begin(parameters, DB_ELEMENT_TEXT);
    for (size_t i = 0; i < batch->event_count; i++) {
        const char *traceparent = batch->events[i].traceparent;
        db_parameters_array_bytes(
            parameters, traceparent, traceparent == NULL ? 0 : strlen(traceparent));
    }
    db_parameters_array_end(parameters);
}

static void add_events(const struct user_event_batch *batch, struct db_parameters *parameters)
{
    db_parameters_array_begin(parameters, DB_ELEMENT_INT4);
    for (size_t i = 0; i < batch->event_count; i++)
        db_parameters_array_int4(parameters, batch->events[i].auth_id);
    db_parameters_array_end(parameters);
    if (batch->kind == USER_EVENT_ADMIN_DELETE) {
        add_traceparents(batch, parameters);
        return;
    }
    db_parameters_array_begin(parameters, DB_ELEMENT_TEXT);
    for (size_t i = 0; i < batch->event_count; i++)
        db_parameters_array_bytes(
            parameters, batch->events[i].username, batch->events[i].username_length);
    db_parameters_array_end(parameters);
    db_parameters_array_begin(parameters, DB_ELEMENT_TEXT);
    for (size_t i = 0; i < batch->event_count; i++)
        db_parameters_array_bytes(
            parameters, batch->events[i].canonical, batch->events[i].canonical_length);
    db_parameters_array_end(parameters);
}

static void add_headers(const struct user_event_batch *batch, struct db_parameters *parameters)
{
    db_parameters_array_begin(parameters, DB_ELEMENT_INT4);
    for (size_t i = 0; i < batch->dead_letter_count; i++)
        for (size_t j = 0; j < batch->dead_letters[i].header_count; j++)
            db_parameters_array_int4(parameters, (int32_t)i + 1);
    db_parameters_array_end(parameters);
    db_parameters_array_begin(parameters, DB_ELEMENT_TEXT);
    for (size_t i = 0; i < batch->dead_letter_count; i++)
        for (size_t j = 0; j < batch->dead_letters[i].header_count; j++) {
            const char *name = batch->dead_letters[i].headers[j].name;
            db_parameters_array_bytes(parameters, name, strlen(name));
        }
    db_parameters_array_end(parameters);
    db_parameters_array_begin(parameters, DB_ELEMENT_BYTEA);
    for (size_t i = 0; i < batch->dead_letter_count; i++)
        for (size_t j = 0; j < batch->dead_letters[i].header_count; j++) {
            const struct event_header *header = &batch->dead_letters[i].headers[j];
            db_parameters_array_bytes(parameters, header->value, header->value_length);
        }
    db_parameters_array_end(parameters);
}

static void add_dead_letters(const struct user_event_batch *batch, struct db_parameters *parameters)
{
    db_parameters_array_begin(parameters, DB_ELEMENT_BYTEA);
    for (size_t i = 0; i < batch->dead_letter_count; i++)
        db_parameters_array_bytes(
            parameters, batch->dead_letters[i].key, batch->dead_letters[i].key_length);
    db_parameters_array_end(parameters);
    db_parameters_array_begin(parameters, DB_ELEMENT_BYTEA);
    for (size_t i = 0; i < batch->dead_letter_count; i++)
        db_parameters_array_bytes(
            parameters, batch->dead_letters[i].value, batch->dead_letters[i].value_length);
    db_parameters_array_end(parameters);
    add_headers(batch, parameters);
}

static int send_request(struct event_request *request)
{
    const struct user_event_batch *batch = request->batch;
    struct db_parameters *parameters = &request->store->parameters;
    db_parameters_reset(parameters);
    add_position(batch, parameters);
    add_events(batch, parameters);
    add_dead_letters(batch, parameters);
    bool is_deletion = batch->kind == USER_EVENT_ADMIN_DELETE;
    if (!is_deletion)
        db_parameters_add_bool(
            parameters, request->store->options.settings->events.allow_reregistration != 0);
    add_record_below(batch, parameters);
    const struct db_step deletions[] = {{&event_store_deletions, parameters}};
    const struct db_step registrations[] = {{&close_gate, NULL},
        {request->is_careful ? &event_store_registrations : &event_store_new_registrations,
            parameters}};
    int error = store_lanes_submit(request->store->lanes, &request->request,
        is_deletion ? deletions : registrations,
        is_deletion ? ARRAY_LENGTH(deletions) : ARRAY_LENGTH(registrations));
    FAILPOINT("intake.sent");
    return error;
}

static void finish_done(struct event_request *request, const struct db_answer *answer)
{
    FAILPOINT("intake.committed");
    struct user_event_batch *batch = request->batch;
    const PGresult *result = answer->results[answer->result_count - 1];
    if (PQntuples(result) != 1 || !db_result_bool(result, 0, 0)) {
        finish(request, USER_APPLY_POSITION_MISMATCH);
        return;
    }
    batch->ret_effects = (size_t)db_result_int8(result, 0, 1);
    batch->ret_tombstoned = (size_t)db_result_int8(result, 0, 2);
    batch->ret_without_claim = (size_t)db_result_int8(result, 0, 3);
    bool has_removed = batch->kind == USER_EVENT_ADMIN_DELETE && batch->ret_effects > 0;
    if (has_removed || batch->dead_letter_count > 0)
        user_store_wake_relay(request->store);
    finish(request, USER_APPLY_DONE);
}

/* Data exceptions, integrity violations, and values past a limit: no retry helps against what is in
 * the events. */
static bool is_about_data(const char *sqlstate)
{
    return strncmp(sqlstate, "22", 2) == 0 || strncmp(sqlstate, "23", 2) == 0 ||
           strncmp(sqlstate, "54", 2) == 0;
}

/* Not what is in the events, and not what passes: the database is read-only, or a right or a table
 * is missing. */
static bool is_about_database(const char *sqlstate)
{
    return strncmp(sqlstate, "42", 2) == 0 || strcmp(sqlstate, "25006") == 0;
}

/* The batch was taken for all new, and is not. */
static bool must_be_careful(const struct event_request *request, const struct db_answer *answer)
{
    return request->batch->kind == USER_EVENT_REGISTRATION && !request->is_careful &&
           strcmp(answer->sqlstate, USER_STORE_UNIQUE_VIOLATION) == 0;
}

static void finish_refused(struct event_request *request, const struct db_answer *answer)
{
    struct user_event_batch *batch = request->batch;
    if (must_be_careful(request, answer)) {
        request->is_careful = true;
        request->store->careful_batches = CAREFUL_BATCHES;
        if (send_request(request) < 0)
            finish(request, USER_APPLY_UNAVAILABLE);
        return;
    }
    request->attempts++;
    bool is_conflict = user_store_is_conflict(answer->sqlstate);
    if (is_conflict && request->attempts < CONFLICT_ATTEMPTS && send_request(request) == 0)
        return;
    if (is_about_data(answer->sqlstate)) {
        batch->error = answer->message;
        finish(request, USER_APPLY_REFUSED);
        return;
    }
    bool is_passing = is_conflict || user_store_is_passing(answer->sqlstate);
    log_write(is_passing ? LOG_LEVEL_WARN : LOG_LEVEL_ERROR,
        "events not applied topic=%s partition=%d position=%lld sqlstate=%s message=\"%s\"",
        batch->topic, batch->partition, (long long)batch->position, answer->sqlstate,
        answer->message);
    finish(request,
        is_about_database(answer->sqlstate) ? USER_APPLY_UNUSABLE : USER_APPLY_UNAVAILABLE);
}

static void on_answer(struct store_request *store_request, const struct db_answer *answer)
{
    struct event_request *request = CONTAINER_OF(store_request, struct event_request, request);
    switch (answer->outcome) {
    case DB_DONE:
        finish_done(request, answer);
        return;
    case DB_ERROR:
        finish_refused(request, answer);
        return;
    case DB_LOST:
        finish(request, USER_APPLY_UNAVAILABLE);
        return;
    }
}

void user_store_apply_events(struct user_store *store, struct user_event_batch *batch)
{
    batch->ret_effects = 0;
    batch->ret_tombstoned = 0;
    batch->ret_without_claim = 0;
    batch->error = NULL;
    struct event_request *request = calloc(1, sizeof(*request));
    if (!request) {
        batch->on_applied(batch, USER_APPLY_UNAVAILABLE);
        return;
    }
    *request = (struct event_request){
        .request = {.on_answer = on_answer, .is_write = true, .is_ordered = true},
        .store = store,
        .batch = batch,
        .is_careful = store->careful_batches > 0,
    };
    if (batch->kind == USER_EVENT_REGISTRATION && store->careful_batches > 0)
        store->careful_batches--;
    store->others_in_flight++;
    if (send_request(request) < 0)
        finish(request, USER_APPLY_UNAVAILABLE);
}
