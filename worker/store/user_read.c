#include <stdlib.h>
#include <string.h>

#include "worker/store/user_batch.h"
#include "worker/store/user_store_private.h"

#define ID_BATCH_NAMES 256
#define ID_BATCH_BYTES ((size_t)256 * 1024)

static const struct db_statement names_by_id = {
    .name = "names_by_id",
    .sql = "SELECT id_auth, username FROM \"user\" WHERE id_auth = ANY($1::int4[])",
};

/* Exact match first: of several the one that holds the name's canonical form, else the oldest row.
 * Then the holder of the canonical form; a claim for a name that its holder no longer has (the
 * legacy service renamed it) does not count. Nearly every name has one exact match: what it takes
 * to choose among several, or to find the holder, is asked for where there is need of it only. A
 * row for each name, null for one that nobody has. */
static const struct db_statement id_by_name = {
    .name = "id_by_name",
    .sql = "SELECT q.number::int4, CASE exact.count"
           " WHEN 1 THEN exact.id_auth"
           " WHEN 0 THEN ("
           "  SELECT c.id_auth FROM username_claim c"
           "  JOIN \"user\" u ON u.id_auth = c.id_auth AND u.username = c.username"
           "  WHERE c.canonical = q.canonical)"
           " ELSE ("
           "  SELECT u.id_auth FROM \"user\" u"
           "  LEFT JOIN username_claim c ON c.id_auth = u.id_auth AND c.canonical = q.canonical"
           "  WHERE u.username = q.username"
           "  ORDER BY c.id_auth IS NULL, u.id LIMIT 1) END"
           " FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS q (username, canonical, number)"
           " CROSS JOIN LATERAL ("
           "  SELECT count(*) AS count, min(u.id_auth) AS id_auth FROM \"user\" u"
           "  WHERE u.username = q.username) exact",
};

/* ---- names by id ---- */

static const int32_t *asked_ids(const struct user_question *question, size_t *ret_count)
{
    if (question->is_single) {
        *ret_count = 1;
        return &((const struct user_name_question *)(const void *)question)->auth_id;
    }
    const struct user_names_question *names = (const void *)question;
    *ret_count = names->auth_id_count;
    return names->auth_ids;
}

static void take_names(struct user_batch *batch, struct question_queue *queue, int64_t now_us)
{
    size_t id_count = 0;
    while (batch->question_count < USER_BATCH_QUESTIONS && id_count < USER_BATCH_IDS) {
        const struct user_question *question = question_queue_next(queue, now_us);
        if (!question)
            return;
        size_t count = 0;
        (void)asked_ids(question, &count);
        if (batch->question_count > 0 && id_count + count > USER_BATCH_IDS)
            return;
        id_count += count;
        batch->questions[batch->question_count++] = question_queue_pop_next(queue);
    }
}

/* Empties the table and makes it at least twice as large as `id_count`. */
static bool reset_names(struct user_batch *batch, size_t id_count)
{
    size_t capacity = 16;
    while (capacity < id_count * 2)
        capacity *= 2;
    if (capacity > batch->names_allocated) {
        struct name_slot *names = realloc(batch->names, capacity * sizeof(*names));
        if (!names)
            return false;
        batch->names = names;
        batch->names_allocated = capacity;
    }
    batch->names_capacity = capacity;
    memset(batch->names, 0, capacity * sizeof(*batch->names));
    return true;
}

/* The slot of an id, or the free one where it belongs. */
static struct name_slot *find_name(const struct user_batch *batch, int32_t auth_id)
{
    /* Whoever asks chooses the ids. */
    uint64_t hash = keyed_hash_of(&batch->store->hash, (uint32_t)auth_id);
    size_t index = (size_t)hash & (batch->names_capacity - 1);
    while (batch->names[index].is_used && batch->names[index].auth_id != auth_id)
        index = (index + 1) & (batch->names_capacity - 1);
    return &batch->names[index];
}

static void add_id(struct user_batch *batch, struct db_parameters *parameters, int32_t auth_id)
{
    struct name_slot *slot = find_name(batch, auth_id);
    if (slot->is_used)
        return;
    *slot = (struct name_slot){.auth_id = auth_id, .row = -1, .is_used = true};
    db_parameters_array_int4(parameters, auth_id);
}

static void add_names_parameters(struct user_batch *batch, struct db_parameters *parameters)
{
    size_t id_count = 0;
    for (size_t i = 0; i < batch->sent_count; i++) {
        size_t count = 0;
        (void)asked_ids(user_batch_question(batch, i), &count);
        id_count += count;
    }
    if (!reset_names(batch, id_count)) {
        parameters->has_failed = true;
        return;
    }
    db_parameters_array_begin(parameters, DB_ELEMENT_INT4);
    for (size_t i = 0; i < batch->sent_count; i++) {
        size_t count = 0;
        const int32_t *ids = asked_ids(user_batch_question(batch, i), &count);
        for (size_t j = 0; j < count; j++)
            add_id(batch, parameters, ids[j]);
    }
    db_parameters_array_end(parameters);
}

static void answer_name(
    const struct user_batch *batch, struct user_name_question *name, const PGresult *result)
{
    const struct name_slot *slot = find_name(batch, name->auth_id);
    if (!slot->is_used || slot->row < 0) {
        name->question.on_done(&name->question, USER_NOT_FOUND);
        return;
    }
    name->ret_username = db_result_bytes(result, slot->row, 1, &name->ret_username_length);
    name->question.on_done(&name->question, USER_DONE);
}

static void answer_names(const struct user_batch *batch, struct user_names_question *names,
    uint32_t number, const PGresult *result)
{
    for (size_t i = 0; i < names->auth_id_count; i++) {
        struct name_slot *slot = find_name(batch, names->auth_ids[i]);
        if (!slot->is_used || slot->row < 0 || slot->seen_by == number)
            continue;
        size_t length = 0;
        const char *username = db_result_bytes(result, slot->row, 1, &length);
        slot->seen_by = number;
        names->on_name(names, slot->auth_id, username, length);
    }
    names->question.on_done(&names->question, USER_DONE);
}

static void answer_names_batch(struct user_batch *batch, const PGresult *result)
{
    for (int row = 0; row < PQntuples(result); row++) {
        struct name_slot *slot = find_name(batch, db_result_int4(result, row, 0));
        if (slot->is_used)
            slot->row = row;
    }
    for (size_t i = 0; i < batch->sent_count; i++) {
        struct user_question *question = user_batch_question(batch, i);
        if (question->is_single)
            answer_name(batch, (struct user_name_question *)(void *)question, result);
        else
            answer_names(
                batch, (struct user_names_question *)(void *)question, (uint32_t)i + 1, result);
    }
}

const struct user_shape user_read_names = {
    .statement = &names_by_id,
    .take = take_names,
    .add_parameters = add_names_parameters,
    .answer = answer_names_batch,
};

/* A statement takes a while, and so does its answer: they go by one connection, and others beside
 * them. */
const struct user_shape user_read_names_of_many = {
    .statement = &names_by_id,
    .is_large = true,
    .take = take_names,
    .add_parameters = add_names_parameters,
    .answer = answer_names_batch,
};

/* ---- id by name ---- */

static struct user_id_question *as_id_question(struct user_question *question)
{
    return (struct user_id_question *)(void *)question;
}

static void take_ids(struct user_batch *batch, struct question_queue *queue, int64_t now_us)
{
    size_t byte_count = 0;
    while (batch->question_count < ID_BATCH_NAMES && byte_count < ID_BATCH_BYTES) {
        struct user_question *question = question_queue_pop(queue, now_us);
        if (!question)
            return;
        byte_count += as_id_question(question)->username_length;
        batch->questions[batch->question_count++] = question;
    }
}

static void add_id_parameters(struct user_batch *batch, struct db_parameters *parameters)
{
    db_parameters_array_begin(parameters, DB_ELEMENT_TEXT);
    for (size_t i = 0; i < batch->sent_count; i++) {
        const struct user_id_question *question = as_id_question(user_batch_question(batch, i));
        db_parameters_array_bytes(parameters, question->username, question->username_length);
    }
    db_parameters_array_end(parameters);
    db_parameters_array_begin(parameters, DB_ELEMENT_TEXT);
    for (size_t i = 0; i < batch->sent_count; i++) {
        const struct user_id_question *question = as_id_question(user_batch_question(batch, i));
        db_parameters_array_bytes(parameters, question->canonical, question->canonical_length);
    }
    db_parameters_array_end(parameters);
}

static void answer_ids(struct user_batch *batch, const PGresult *result)
{
    int rows[ID_BATCH_NAMES];
    for (size_t i = 0; i < batch->sent_count; i++)
        rows[i] = -1;
    for (int row = 0; row < PQntuples(result); row++) {
        int32_t number = db_result_int4(result, row, 0);
        bool is_known = number >= 1 && (size_t)number <= batch->sent_count;
        if (is_known && !db_result_is_null(result, row, 1))
            rows[number - 1] = row;
    }
    for (size_t i = 0; i < batch->sent_count; i++) {
        struct user_id_question *question = as_id_question(user_batch_question(batch, i));
        if (rows[i] >= 0)
            question->ret_auth_id = db_result_int4(result, rows[i], 1);
        question->question.on_done(&question->question, rows[i] >= 0 ? USER_DONE : USER_NOT_FOUND);
    }
}

const struct user_shape user_read_id = {
    .statement = &id_by_name,
    .take = take_ids,
    .add_parameters = add_id_parameters,
    .answer = answer_ids,
};
