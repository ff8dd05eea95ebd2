/* How far the partitions of a Kafka cluster are applied. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "worker/store/user_store_private.h"

#define OTHER_CLUSTERS_MAX 16

const struct db_statement position_store_find = {
    .name = "find_positions",
    .sql = "SELECT topic, partition, next_offset, coalesce(record_offset = next_offset - 1, false),"
           " coalesce(record_timestamp, 0), coalesce(record_checksum, 0)"
           " FROM consumed_offset WHERE cluster = $1::text",
};
const struct db_statement position_store_other_clusters = {
    .name = "find_other_clusters",
    .sql = "SELECT DISTINCT cluster FROM consumed_offset WHERE cluster <> $1::text"
           " ORDER BY cluster LIMIT 16",
};
const struct db_statement position_store_identity = {
    .name = "find_identity",
    .sql = "SELECT id::text FROM database_identity",
};

struct find_request {
    struct store_request request;
    struct user_store *store;
    struct position_question *question; /* the caller's */
};

/* Binary text is not followed by a NUL of PostgreSQL's, but by one of libpq's. */
static const char *text_of(const PGresult *result, int row, int column)
{
    size_t length = 0;
    return db_result_bytes(result, row, column, &length);
}

static void tell(struct position_question *question, const struct db_answer *answer)
{
    const PGresult *rows = answer->results[0];
    const PGresult *others = answer->results[1];
    const PGresult *identity = answer->results[2];
    size_t count = (size_t)PQntuples(rows);
    const char *clusters[OTHER_CLUSTERS_MAX] = {NULL};
    size_t cluster_count = 0;
    struct stored_position *positions = calloc(count + 1, sizeof(*positions));
    if (!positions) {
        question->on_positions(question, NULL);
        return;
    }
    for (size_t i = 0; i < count; i++)
        positions[i] = (struct stored_position){
            .topic = text_of(rows, (int)i, 0),
            .partition = db_result_int4(rows, (int)i, 1),
            .next_offset = db_result_int8(rows, (int)i, 2),
            .record_below = {.is_known = db_result_bool(rows, (int)i, 3),
                .offset = db_result_int8(rows, (int)i, 2) - 1,
                .timestamp_ms = db_result_int8(rows, (int)i, 4),
                .checksum = db_result_int8(rows, (int)i, 5)},
        };
    for (int row = 0; row < PQntuples(others) && cluster_count < OTHER_CLUSTERS_MAX; row++)
        clusters[cluster_count++] = text_of(others, row, 0);
    const struct stored_positions stored = {
        .database = PQntuples(identity) == 1 ? text_of(identity, 0, 0) : "",
        .positions = positions,
        .position_count = count,
        .other_clusters = clusters,
        .other_cluster_count = cluster_count,
    };
    question->on_positions(question, &stored);
    free(positions);
}

static void on_answer(struct store_request *store_request, const struct db_answer *answer)
{
    struct find_request *request = CONTAINER_OF(store_request, struct find_request, request);
    struct position_question *question = request->question;
    request->store->others_in_flight--;
    free(request);
    if (answer->outcome == DB_DONE) {
        tell(question, answer);
        return;
    }
    if (answer->outcome == DB_ERROR)
        log_warn(
            "positions not read sqlstate=%s message=\"%s\"", answer->sqlstate, answer->message);
    question->on_positions(question, NULL);
}

void user_store_find_positions(struct user_store *store, struct position_question *question)
{
    struct find_request *request = calloc(1, sizeof(*request));
    if (!request) {
        question->on_positions(question, NULL);
        return;
    }
    /* Ordered, as event batches are: what one in flight moves must be seen. */
    *request = (struct find_request){
        .request = {.on_answer = on_answer, .is_write = true, .is_ordered = true},
        .store = store,
        .question = question,
    };
    struct db_parameters *parameters = &store->parameters;
    db_parameters_reset(parameters);
    db_parameters_add_text(parameters, question->cluster, strlen(question->cluster));
    const struct db_step steps[] = {
        {&position_store_find, parameters},
        {&position_store_other_clusters, parameters},
        {&position_store_identity, NULL},
    };
    int error = store_lanes_submit(store->lanes, &request->request, steps, ARRAY_LENGTH(steps));
    if (error < 0) {
        free(request);
        question->on_positions(question, NULL);
        return;
    }
    store->others_in_flight++;
}
