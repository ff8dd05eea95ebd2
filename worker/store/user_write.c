#include <string.h>

#include "worker/store/user_batch.h"
#include "worker/store/user_store_private.h"

#define WRITE_BATCH_QUESTIONS \
    256 /* each is compared with each: they must not meet in one statement */
#define WRITE_BATCH_LOOKAHEAD 512 /* how far to look for questions that may go together */
#define CANONICAL_KEY         "username_claim_canonical_key"
/* A name that breaks a rule and is longer is taken for nobody's own: 256 of them go together. */
#define OWN_NAME_MAX_BYTES ((size_t)8192)

/* What rename_users says of each. */
#define RENAME_DONE      0
#define RENAME_TAKEN     1
#define RENAME_UNCHANGED 2
#define RENAME_INVALID   3
#define TEXT_OF(number)  #number
#define VERDICT(number)  TEXT_OF(number)

/* The row locks come first, in the order of ids; what is read of the claims may be older than they
 * are, which the unique key makes good: the statement is refused then, and tried again one by one.
 * Claims are written in the order of names, so that two batches rarely deadlock. The verdict is
 * null for a user that is not there. Whoever sends the name that he has gets it, whatever it is,
 * and nothing changes; `sent` is there where it is not the form to be stored. Without a canonical
 * form a name breaks a rule. */
static const struct db_statement rename_users = {
    .name = "rename_users",
    .sql = "WITH asked AS MATERIALIZED ("
           "  SELECT * FROM unnest($1::int4[], $2::text[], $3::text[], $4::text[])"
           "  WITH ORDINALITY AS a (id_auth, username, canonical, sent, number)),"
           " locked AS MATERIALIZED ("
           "  SELECT u.id_auth, u.username FROM \"user\" u WHERE u.id_auth = ANY($1::int4[])"
           "  ORDER BY u.id_auth FOR UPDATE),"
           " verdict AS MATERIALIZED ("
           "  SELECT a.id_auth, a.username, a.canonical, a.number,"
           "  CASE WHEN l.username = coalesce(a.sent, a.username) THEN " VERDICT(RENAME_UNCHANGED) "  WHEN a.canonical IS NULL THEN " VERDICT(RENAME_INVALID) "  WHEN c.id_auth IS NOT NULL THEN " VERDICT(
               RENAME_TAKEN) "  ELSE " VERDICT(RENAME_DONE) " END AS verdict"
                                                            "  FROM asked a JOIN locked l USING "
                                                            "(id_auth)"
                                                            "  LEFT JOIN username_claim c ON "
                                                            "c.canonical = a.canonical AND "
                                                            "c.id_auth <> a.id_auth),"
                                                            " claimed AS ("
                                                            "  INSERT INTO username_claim "
                                                            "(id_auth, canonical, username)"
                                                            "  SELECT id_auth, canonical, username "
                                                            "FROM verdict WHERE verdict = " VERDICT(
                                                                RENAME_DONE) "  ORDER BY canonical "
                                                                             "COLLATE \"C\""
                                                                             "  ON CONFLICT "
                                                                             "(id_auth) DO UPDATE"
                                                                             "  SET canonical = "
                                                                             "excluded.canonical, "
                                                                             "username = "
                                                                             "excluded.username),"
                                                                             " renamed AS ("
                                                                             "  UPDATE \"user\" u "
                                                                             "SET username = "
                                                                             "v.username FROM "
                                                                             "verdict v"
                                                                             "  WHERE u.id_auth = "
                                                                             "v.id_auth AND "
                                                                             "v.verdict = " VERDICT(
                                                                                 RENAME_DONE) ")"
                                                                                              " SEL"
                                                                                              "ECT "
                                                                                              "a."
                                                                                              "numb"
                                                                                              "er::"
                                                                                              "int4"
                                                                                              ", "
                                                                                              "v."
                                                                                              "verd"
                                                                                              "ict "
                                                                                              "FROM"
                                                                                              " ask"
                                                                                              "ed "
                                                                                              "a "
                                                                                              "LEFT"
                                                                                              " JOI"
                                                                                              "N "
                                                                                              "verd"
                                                                                              "ict "
                                                                                              "v "
                                                                                              "ON "
                                                                                              "v."
                                                                                              "numb"
                                                                                              "er "
                                                                                              "= "
                                                                                              "a."
                                                                                              "numb"
                                                                                              "er",
};

/* The insert that inserts nothing takes the gate's lock before the statement's snapshot is taken
 * (see the migration that makes identity_gate). The outbox rows come last: their ids are drawn
 * under the row locks of all users of the statement. PostgreSQL promises no order among
 * data-modifying CTEs and in fact runs those that nobody reads last one first, so `published` reads
 * all others. */
static const struct db_statement delete_users = {
    .name = "delete_users",
    .sql =
        "WITH gate AS (INSERT INTO identity_gate SELECT false WHERE false),"
        " locked AS MATERIALIZED ("
        "  SELECT u.id_auth FROM \"user\" u WHERE u.id_auth = ANY($1::int4[])"
        "  ORDER BY u.id_auth FOR UPDATE),"
        " removed AS ("
        "  DELETE FROM \"user\" u USING locked l WHERE u.id_auth = l.id_auth RETURNING u.id_auth),"
        " tombstone AS ("
        "  INSERT INTO user_tombstone (id_auth) SELECT id_auth FROM removed ON CONFLICT DO NOTHING"
        "  RETURNING 1),"
        " published AS ("
        "  INSERT INTO outbox (destination, id_auth, key, value, traceparent)"
        "  SELECT 1, id_auth, convert_to(id_auth::text, 'UTF8'),"
        "  convert_to('{\"id\": ' || id_auth || '}', 'UTF8'), a.traceparent FROM removed"
        "  JOIN unnest($1::int4[], $2::text[]) AS a (id_auth, traceparent) USING (id_auth)"
        "  WHERE (SELECT count(*) FROM removed) + (SELECT count(*) FROM tombstone) > 0"
        "  RETURNING id_auth)"
        " SELECT id_auth FROM published",
};

static struct user_rename *as_rename(struct user_question *question)
{
    return (struct user_rename *)(void *)question;
}

static struct user_delete *as_delete(struct user_question *question)
{
    return (struct user_delete *)(void *)question;
}

static bool may_not_meet(
    enum user_question_kind kind, struct user_question *left, struct user_question *right)
{
    if (kind == USER_QUESTION_DELETE)
        return as_delete(left)->auth_id == as_delete(right)->auth_id;
    const struct user_rename *one = as_rename(left);
    const struct user_rename *other = as_rename(right);
    return one->auth_id == other->auth_id ||
           (one->canonical_length > 0 && one->canonical_length == other->canonical_length &&
               memcmp(one->canonical, other->canonical, one->canonical_length) == 0);
}

static bool has_rival(const struct user_batch *batch, struct user_question *question)
{
    for (size_t i = 0; i < batch->question_count; i++)
        if (may_not_meet(batch->kind, batch->questions[i], question))
            return true;
    return false;
}

/* A question that may not meet one of the batch waits for the next; among questions that wait at
 * the same time no order is promised. */
static void take_writes(struct user_batch *batch, struct question_queue *queue, int64_t now_us)
{
    struct user_question *first_held = NULL;
    struct user_question *last_held = NULL;
    for (size_t seen = 0;
         seen < WRITE_BATCH_LOOKAHEAD && batch->question_count < WRITE_BATCH_QUESTIONS; seen++) {
        struct user_question *question = question_queue_pop(queue, now_us);
        if (!question)
            break;
        if (!has_rival(batch, question)) {
            batch->questions[batch->question_count++] = question;
            continue;
        }
        if (last_held)
            last_held->next = question;
        else
            first_held = question;
        last_held = question;
    }
    question_queue_put_back(queue, first_held);
}

/* ---- rename ---- */

/* The name that is to be stored, or one that breaks a rule and may be the user's all the same. */
static void add_new_name(struct db_parameters *parameters, const struct user_rename *rename)
{
    bool is_own_at_most =
        rename->stored == NULL && rename->is_text && rename->username_length <= OWN_NAME_MAX_BYTES;
    if (is_own_at_most)
        db_parameters_array_bytes(parameters, rename->username, rename->username_length);
    else
        db_parameters_array_bytes(parameters, rename->stored, rename->stored_length);
}

/* The name as sent, where NFC has made another of it. */
static void add_sent_name(struct db_parameters *parameters, const struct user_rename *rename)
{
    bool is_stored_as_sent =
        rename->stored == NULL ||
        (rename->stored_length == rename->username_length &&
            memcmp(rename->stored, rename->username, rename->username_length) == 0);
    if (is_stored_as_sent)
        db_parameters_array_bytes(parameters, NULL, 0);
    else
        db_parameters_array_bytes(parameters, rename->username, rename->username_length);
}

static void add_rename_parameters(struct user_batch *batch, struct db_parameters *parameters)
{
    db_parameters_array_begin(parameters, DB_ELEMENT_INT4);
    for (size_t i = 0; i < batch->sent_count; i++)
        db_parameters_array_int4(parameters, as_rename(user_batch_question(batch, i))->auth_id);
    db_parameters_array_end(parameters);
    db_parameters_array_begin(parameters, DB_ELEMENT_TEXT);
    for (size_t i = 0; i < batch->sent_count; i++)
        add_new_name(parameters, as_rename(user_batch_question(batch, i)));
    db_parameters_array_end(parameters);
    db_parameters_array_begin(parameters, DB_ELEMENT_TEXT);
    for (size_t i = 0; i < batch->sent_count; i++) {
        const struct user_rename *rename = as_rename(user_batch_question(batch, i));
        db_parameters_array_bytes(parameters, rename->canonical, rename->canonical_length);
    }
    db_parameters_array_end(parameters);
    db_parameters_array_begin(parameters, DB_ELEMENT_TEXT);
    for (size_t i = 0; i < batch->sent_count; i++)
        add_sent_name(parameters, as_rename(user_batch_question(batch, i)));
    db_parameters_array_end(parameters);
}

static void answer_renames(struct user_batch *batch, const PGresult *result)
{
    static const enum user_outcome meanings[] = {
        [RENAME_DONE] = USER_DONE,
        [RENAME_TAKEN] = USER_NAME_TAKEN,
        [RENAME_UNCHANGED] = USER_DONE,
        [RENAME_INVALID] = USER_NAME_INVALID,
    };
    enum user_outcome outcomes[WRITE_BATCH_QUESTIONS];
    for (size_t i = 0; i < batch->sent_count; i++)
        outcomes[i] = USER_NOT_FOUND;
    for (int row = 0; row < PQntuples(result); row++) {
        int32_t number = db_result_int4(result, row, 0);
        if (number < 1 || (size_t)number > batch->sent_count || db_result_is_null(result, row, 1))
            continue;
        size_t verdict = (size_t)db_result_int4(result, row, 1);
        outcomes[number - 1] = verdict < ARRAY_LENGTH(meanings) ? meanings[verdict] : USER_FAILED;
        as_rename(user_batch_question(batch, (size_t)number - 1))->ret_is_unchanged =
            verdict == RENAME_UNCHANGED;
    }
    for (size_t i = 0; i < batch->sent_count; i++) {
        struct user_question *question = user_batch_question(batch, i);
        question->on_done(question, outcomes[i]);
    }
}

/* Someone else's claim was committed after the statement had looked. */
static bool explains_rename_error(const struct db_answer *answer, enum user_outcome *ret_outcome)
{
    if (strcmp(answer->sqlstate, USER_STORE_UNIQUE_VIOLATION) != 0 ||
        strcmp(answer->constraint, CANONICAL_KEY) != 0)
        return false;
    *ret_outcome = USER_NAME_TAKEN;
    return true;
}

const struct user_shape user_write_rename = {
    .statement = &rename_users,
    .is_write = true,
    .is_one_at_a_time = true,
    .take = take_writes,
    .add_parameters = add_rename_parameters,
    .answer = answer_renames,
    .explains_error = explains_rename_error,
};

/* ---- delete ---- */

static void add_delete_parameters(struct user_batch *batch, struct db_parameters *parameters)
{
    db_parameters_array_begin(parameters, DB_ELEMENT_INT4);
    for (size_t i = 0; i < batch->sent_count; i++)
        db_parameters_array_int4(parameters, as_delete(user_batch_question(batch, i))->auth_id);
    db_parameters_array_end(parameters);
    db_parameters_array_begin(parameters, DB_ELEMENT_TEXT);
    for (size_t i = 0; i < batch->sent_count; i++) {
        const char *traceparent = as_delete(user_batch_question(batch, i))->traceparent;
        db_parameters_array_bytes(
            parameters, traceparent, traceparent == NULL ? 0 : strlen(traceparent));
    }
    db_parameters_array_end(parameters);
}

static bool holds_id(const int32_t *ids, int count, int32_t auth_id)
{
    for (int i = 0; i < count; i++)
        if (ids[i] == auth_id)
            return true;
    return false;
}

static void answer_deletes(struct user_batch *batch, const PGresult *result)
{
    int32_t removed[WRITE_BATCH_QUESTIONS];
    int count = 0;
    for (; count < PQntuples(result) && count < WRITE_BATCH_QUESTIONS; count++)
        removed[count] = db_result_int4(result, count, 0);
    if (count > 0)
        user_store_wake_relay(batch->store);
    for (size_t i = 0; i < batch->sent_count; i++) {
        struct user_question *question = user_batch_question(batch, i);
        bool is_removed = holds_id(removed, count, as_delete(question)->auth_id);
        question->on_done(question, is_removed ? USER_DONE : USER_NOT_FOUND);
    }
}

const struct user_shape user_write_delete = {
    .statement = &delete_users,
    .is_write = true,
    .is_one_at_a_time = true,
    .take = take_writes,
    .add_parameters = add_delete_parameters,
    .answer = answer_deletes,
};
