#include "worker/store/outbox_store.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "worker/store/lease_store.h"

#define US_PER_S         INT64_C(1000000)
#define POSTGRES_EPOCH_S INT64_C(946684800) /* 2000-01-01 from 1970-01-01 */
#define LAST_YEAR        9999
#define UUID_BYTES       16

/* Nothing is read or removed for one whose lease is another's by now. */
#define HOLDS_LEASE(fence) "(SELECT l.fence FROM outbox_lease l) = " fence "::bigint"

/* `size` without a detoasted byte; the first row always comes, however large. With no row at all
 * there is one of NULLs beside the snapshot. NOT IN of a subquery is one hash of the known ids,
 * where <> ALL of a parameter compares every row with every one of them: 48 ms for a thousand rows
 * beside a full window, against 3. Times and ids come as they are stored: it is cheaper to write
 * them out here. */
static const struct db_statement read_rows = {
    .name = "outbox_read",
    .sql =
        "SELECT id, destination::integer, id_auth, key, value, header_names, header_values, "
        "event_id, created_at, traceparent, clock_timestamp(),"
        " pg_snapshot_xmin(snapshot)::text::bigint,"
        " CASE WHEN $6::boolean THEN pg_current_xact_id()::text::bigint END"
        " FROM (SELECT pg_current_snapshot() AS snapshot) n LEFT JOIN (SELECT * FROM (SELECT f.*, "
        "sum(f.size) OVER (ORDER BY f.id) - f.size AS bytes_before FROM ("
        "  SELECT *, coalesce(octet_length(value), 0) + 256 AS size FROM outbox"
        "  WHERE id > $1::bigint AND id NOT IN (SELECT unnest($2::bigint[]))"
        "  AND destination <> ALL ($5::bigint[]) AND " HOLDS_LEASE(
            "$7") "  ORDER BY id LIMIT $3::integer) f) s"
                  " WHERE bytes_before < $4::bigint) r ON true ORDER BY id",
};

static const struct db_statement delete_rows = {
    .name = "outbox_delete",
    .sql = "DELETE FROM outbox WHERE id = ANY ($1::bigint[]) AND " HOLDS_LEASE("$2"),
};

static const struct db_statement park_row = {
    .name = "outbox_park",
    .sql = "WITH gone AS (DELETE FROM outbox WHERE id = $1::bigint AND " HOLDS_LEASE(
        "$3") " RETURNING *)"
              " INSERT INTO outbox_parked (id, destination, id_auth, key, value, header_names, "
              "header_values,"
              " event_id, created_at, reason, traceparent)"
              " SELECT id, destination, id_auth, key, value, header_names, header_values, event_id,"
              " created_at, $2::text, traceparent FROM gone",
};

const struct db_statement *const outbox_store_statements[] = {
    &lease_store_look_statement,
    &lease_store_take_statement,
    &lease_store_renew_statement,
    &lease_store_measure_statement,
    &read_rows,
    &delete_rows,
    &park_row,
    NULL,
};

enum read_column {
    COLUMN_ID,
    COLUMN_DESTINATION,
    COLUMN_AUTH_ID,
    COLUMN_KEY,
    COLUMN_VALUE,
    COLUMN_HEADER_NAMES,
    COLUMN_HEADER_VALUES,
    COLUMN_EVENT_ID,
    COLUMN_CREATED_AT,
    COLUMN_TRACEPARENT,
    COLUMN_NOW,
    COLUMN_OLDEST_RUNNING_XID,
    COLUMN_OWN_XID,
};

static int submit(struct db_connection *connection, struct db_request *request,
    const struct db_statement *statement, const struct db_parameters *parameters)
{
    struct db_step step = {.statement = statement, .parameters = parameters};
    return db_connection_submit(connection, request, &step, 1);
}

static void add_ids(struct db_parameters *parameters, const int64_t *ids, size_t count)
{
    db_parameters_array_begin(parameters, DB_ELEMENT_INT8);
    for (size_t i = 0; i < count; i++)
        db_parameters_array_int8(parameters, ids[i]);
    db_parameters_array_end(parameters);
}

int outbox_store_read(struct db_connection *connection, struct db_request *request,
    const struct outbox_store_query *query)
{
    struct db_parameters parameters CLEANUP(db_parameters_cleanup) = {0};
    db_parameters_add_int8(&parameters, query->floor);
    add_ids(&parameters, query->known, query->known_count);
    db_parameters_add_int4(&parameters, query->max_rows);
    db_parameters_add_int8(&parameters, query->max_bytes);
    add_ids(&parameters, query->held, query->held_count);
    db_parameters_add_bool(&parameters, query->is_marking);
    db_parameters_add_int8(&parameters, query->fence);
    return submit(connection, request, &read_rows, &parameters);
}

static const char *nullable_bytes(const PGresult *result, int row, int column, size_t *ret_length)
{
    *ret_length = 0;
    if (db_result_is_null(result, row, column))
        return NULL;
    return db_result_bytes(result, row, column, ret_length);
}

/* As uuid_send() lays it out: sixteen bytes. */
static void write_uuid(const char *bytes, char ret_text[OUTBOX_STORE_UUID_SIZE])
{
    static const char digits[] = "0123456789abcdef";
    size_t length = 0;
    for (size_t i = 0; i < UUID_BYTES; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            ret_text[length++] = '-';
        unsigned int byte = (unsigned char)bytes[i];
        ret_text[length++] = digits[byte >> 4];
        ret_text[length++] = digits[byte & 15];
    }
    ret_text[length] = '\0';
}

/* As timestamptz_send() lays it out: microseconds from 2000 on. */
static void write_time(int64_t since_2000_us, char ret_text[OUTBOX_STORE_TIME_SIZE])
{
    int64_t microseconds = since_2000_us % US_PER_S;
    int64_t seconds = since_2000_us / US_PER_S;
    if (microseconds < 0) {
        microseconds += US_PER_S;
        seconds--;
    }
    time_t since_1970 = (time_t)(seconds + POSTGRES_EPOCH_S);
    struct tm parts = {0};
    /* A year that no calendar has, as of 'infinity', is not ours: the column's default is the
     * clock. */
    if (gmtime_r(&since_1970, &parts) == NULL || parts.tm_year > LAST_YEAR - 1900)
        (void)gmtime_r(&(time_t){0}, &parts);
    (void)snprintf(ret_text, OUTBOX_STORE_TIME_SIZE, "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ",
        parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min,
        parts.tm_sec, (int)microseconds);
}

int outbox_store_snapshot(
    const PGresult *result, uint64_t *ret_oldest_running_xid, uint64_t *ret_own_xid)
{
    *ret_oldest_running_xid = (uint64_t)db_result_int8(result, 0, COLUMN_OLDEST_RUNNING_XID);
    *ret_own_xid = db_result_is_null(result, 0, COLUMN_OWN_XID)
                       ? 0
                       : (uint64_t)db_result_int8(result, 0, COLUMN_OWN_XID);
    return db_result_is_null(result, 0, COLUMN_ID) ? 0 : PQntuples(result);
}

void outbox_store_row(const PGresult *result, int row, struct outbox_store_row *ret_row)
{
    struct outbox_store_row values = {
        .id = db_result_int8(result, row, COLUMN_ID),
        .destination = (int16_t)db_result_int4(result, row, COLUMN_DESTINATION),
        .has_auth_id = !db_result_is_null(result, row, COLUMN_AUTH_ID),
    };
    if (values.has_auth_id)
        values.auth_id = db_result_int4(result, row, COLUMN_AUTH_ID);
    values.key = nullable_bytes(result, row, COLUMN_KEY, &values.key_length);
    values.value = nullable_bytes(result, row, COLUMN_VALUE, &values.value_length);
    values.header_names =
        db_result_bytes(result, row, COLUMN_HEADER_NAMES, &values.header_names_length);
    values.header_values =
        db_result_bytes(result, row, COLUMN_HEADER_VALUES, &values.header_values_length);
    size_t uuid_length = 0;
    write_uuid(db_result_bytes(result, row, COLUMN_EVENT_ID, &uuid_length), values.event_id);
    int64_t created_us = db_result_int8(result, row, COLUMN_CREATED_AT);
    write_time(created_us, values.created_at);
    values.traceparent =
        nullable_bytes(result, row, COLUMN_TRACEPARENT, &values.traceparent_length);
    int64_t now_us = db_result_int8(result, row, COLUMN_NOW);
    values.age_us = now_us > created_us ? now_us - created_us : 0;
    *ret_row = values;
}

/* Reads a big-endian integer off the front. */
static bool take_integer(struct outbox_store_array *array, int32_t *ret_value)
{
    if (array->end - array->next < (ptrdiff_t)sizeof(uint32_t))
        return false;
    uint32_t network = 0;
    memcpy(&network, array->next, sizeof(network));
    array->next += sizeof(network);
    *ret_value = (int32_t)ntohl(network);
    return true;
}

int outbox_store_array_open(const char *bytes, size_t length, struct outbox_store_array *ret_array)
{
    struct outbox_store_array array = {.next = bytes, .end = bytes + length};
    int32_t dimensions = 0;
    int32_t ignored = 0;
    /* dimensions, has-null flag, element type; for each dimension its length and lower bound */
    if (!take_integer(&array, &dimensions) || !take_integer(&array, &ignored) ||
        !take_integer(&array, &ignored) || dimensions < 0 || dimensions > 1)
        return -EPROTO;
    if (dimensions == 1 && (!take_integer(&array, &array.left) || !take_integer(&array, &ignored)))
        return -EPROTO;
    *ret_array = array;
    return 0;
}

bool outbox_store_array_next(
    struct outbox_store_array *array, const char **ret_bytes, size_t *ret_length)
{
    int32_t length = 0;
    if (array->left <= 0 || !take_integer(array, &length) || length > array->end - array->next)
        return false;
    array->left--;
    *ret_bytes = length < 0 ? NULL : array->next;
    *ret_length = length < 0 ? 0 : (size_t)length;
    array->next += *ret_length;
    return true;
}

int outbox_store_delete(struct db_connection *connection, struct db_request *request, int64_t fence,
    const int64_t *ids, size_t count)
{
    struct db_parameters parameters CLEANUP(db_parameters_cleanup) = {0};
    add_ids(&parameters, ids, count);
    db_parameters_add_int8(&parameters, fence);
    return submit(connection, request, &delete_rows, &parameters);
}

int outbox_store_park(struct db_connection *connection, struct db_request *request, int64_t fence,
    int64_t id, const char *reason)
{
    struct db_parameters parameters CLEANUP(db_parameters_cleanup) = {0};
    db_parameters_add_int8(&parameters, id);
    db_parameters_add_text(&parameters, reason, strlen(reason));
    db_parameters_add_int8(&parameters, fence);
    return submit(connection, request, &park_row, &parameters);
}
