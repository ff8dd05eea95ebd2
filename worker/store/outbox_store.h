/* The relay's side of the outbox in PostgreSQL: its rows, and their end. All SQL of the relay
 * stands here and in lease_store.
 *
 * Each function sends one request on the relay's own connection; the caller's on_answer reads the
 * result.
 */
#ifndef USERD_WORKER_STORE_OUTBOX_STORE_H
#define USERD_WORKER_STORE_OUTBOX_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/attributes.h"
#include "worker/db/db_connection.h"

/* For db_connection_new(); those of lease_store are among them. */
extern const struct db_statement *const outbox_store_statements[];

#define OUTBOX_STORE_UUID_SIZE 37
#define OUTBOX_STORE_TIME_SIZE 64 /* what snprintf() could write, as the compiler sees it */

/* One row; pointers are into the result. */
struct outbox_store_row {
    int64_t id;
    int16_t destination;
    bool has_auth_id;
    int32_t auth_id;
    const char *key; /* NULL: none */
    size_t key_length;
    const char *value; /* NULL: none */
    size_t value_length;
    char event_id[OUTBOX_STORE_UUID_SIZE];
    char created_at[OUTBOX_STORE_TIME_SIZE]; /* RFC 3339 in UTC */
    const char *traceparent;                 /* NULL: none; not NUL-terminated */
    size_t traceparent_length;
    int64_t age_us; /* by the database's own clock, when it read the row */
    /* As array_send() lays them out; outbox_store_array_next() walks them. */
    const char *header_names;
    size_t header_names_length;
    const char *header_values;
    size_t header_values_length;
};

/* A walk over the elements of a one-dimensional binary array. */
struct outbox_store_array {
    const char *next;
    const char *end;
    int32_t left;
};

/* Rows above `floor` but the `known` ones and those of `held` destinations, in the order of ids: at
 * most `max_rows`, and no more once they hold `max_bytes`. */
struct outbox_store_query {
    int64_t floor;
    const int64_t *known;
    size_t known_count;
    const int64_t *held;
    size_t held_count;
    int32_t max_rows;
    int64_t max_bytes;
    bool is_marking; /* see outbox_poll.h */
    int64_t fence;   /* of our lease: of another's nothing is read */
};
MUST_CHECK int outbox_store_read(struct db_connection *connection, struct db_request *request,
    const struct outbox_store_query *query);
/* How many rows there are; pg_snapshot_xmin() of the snapshot that they were read in: all
 * transactions below it have ended; and the transaction id that the read itself was given after
 * that snapshot, 0 unless it was marking. */
int outbox_store_snapshot(
    const PGresult *result, uint64_t *ret_oldest_running_xid, uint64_t *ret_own_xid);
void outbox_store_row(const PGresult *result, int row, struct outbox_store_row *ret_row);
/* -EPROTO: this is no such array. */
MUST_CHECK int outbox_store_array_open(
    const char *bytes, size_t length, struct outbox_store_array *ret_array);
/* False at the end. *ret_bytes NULL: an SQL NULL. */
bool outbox_store_array_next(
    struct outbox_store_array *array, const char **ret_bytes, size_t *ret_length);

/* Neither does anything when the lease is another's. */
MUST_CHECK int outbox_store_delete(struct db_connection *connection, struct db_request *request,
    int64_t fence, const int64_t *ids, size_t count);
/* Moves a row aside, in one statement, with the reason. */
MUST_CHECK int outbox_store_park(struct db_connection *connection, struct db_request *request,
    int64_t fence, int64_t id, const char *reason);

#endif
