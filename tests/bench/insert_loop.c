/* The yardstick for what userd consumes: registrations written as plainly as PostgreSQL allows, one
 * `INSERT ... SELECT FROM unnest` after the other, one transaction with the move of a position for
 * each batch. No Kafka, no JSON, no rules, no conflicts, no tombstones.
 *
 *   insert_loop URL FIRST COUNT BATCH user|claim
 *
 * FIRST is the first id. `user`: into "user" alone; `claim`: and who holds the name, as userd does.
 * The database has userd's schema. Prints one line of key=value.
 */
#include <errno.h>
#include <inttypes.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/attributes.h"
#include "common/monotonic_clock.h"
#include "worker/db/db_parameters.h"

#define BATCH_MAX UINT64_C(10000)
#define BAD_USAGE 64

#define MOVE                                                                                   \
    "WITH moved AS (INSERT INTO consumed_offset AS o (cluster, topic, partition, next_offset)" \
    " VALUES ('insert_loop', 'registration', 0, $3::int8) ON CONFLICT (cluster, topic, "       \
    "partition)"                                                                               \
    " DO UPDATE SET next_offset = excluded.next_offset, updated_at = now())"
#define ADD_CLAIMS                                                            \
    ", claimed AS (INSERT INTO username_claim (id_auth, canonical, username)" \
    " SELECT id_auth, username, username FROM unnest($1::int4[], $2::text[])" \
    " AS e (id_auth, username))"
#define ADD_USERS                               \
    " INSERT INTO \"user\" (username, id_auth)" \
    " SELECT username, id_auth FROM unnest($1::int4[], $2::text[]) AS e (id_auth, username)"

static void die(const char *what, const char *why)
{
    (void)fprintf(stderr, "insert_loop: %s: %s\n", what, why);
    exit(EXIT_FAILURE);
}

static uint64_t parse_number(const char *text)
{
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value == 0 || value > INT32_MAX)
        die(text, "expected a positive number");
    return value;
}

static void add_registrations(struct db_parameters *parameters, uint64_t first, uint64_t count)
{
    db_parameters_array_begin(parameters, DB_ELEMENT_INT4);
    for (uint64_t i = 0; i < count; i++)
        db_parameters_array_int4(parameters, (int32_t)(first + i));
    db_parameters_array_end(parameters);
    db_parameters_array_begin(parameters, DB_ELEMENT_TEXT);
    for (uint64_t i = 0; i < count; i++) {
        char name[24];
        int length = snprintf(name, sizeof(name), "user%" PRIu64, first + i);
        db_parameters_array_bytes(parameters, name, (size_t)length);
    }
    db_parameters_array_end(parameters);
    db_parameters_add_int8(parameters, (int64_t)(first + count));
}

/* Each in a transaction of its own. */
static void insert_batch(PGconn *connection, struct db_parameters *parameters)
{
    const char *values[DB_MAX_PARAMETERS] = {NULL};
    int formats[DB_MAX_PARAMETERS] = {0};
    for (int i = 0; i < parameters->count; i++) {
        values[i] = parameters->buffer + parameters->offsets[i];
        formats[i] = 1;
    }
    PGresult *result = PQexecPrepared(
        connection, "insert", parameters->count, values, parameters->lengths, formats, 1);
    if (PQresultStatus(result) != PGRES_COMMAND_OK)
        die("insert", PQerrorMessage(connection));
    PQclear(result);
}

int main(int argc, char **argv)
{
    bool is_plain = argc == 6 && strcmp(argv[5], "user") == 0;
    if (argc != 6 || (!is_plain && strcmp(argv[5], "claim") != 0)) {
        (void)fputs("usage: insert_loop URL FIRST COUNT BATCH user|claim\n", stderr);
        return BAD_USAGE;
    }
    uint64_t first = parse_number(argv[2]);
    uint64_t count = parse_number(argv[3]);
    uint64_t batch = parse_number(argv[4]);
    if (batch > BATCH_MAX)
        die(argv[4], "expected at most 10000");
    PGconn *connection = PQconnectdb(argv[1]);
    if (PQstatus(connection) != CONNECTION_OK)
        die("connect", PQerrorMessage(connection));
    /* As the service's sessions: the claims come with the users. */
    PQclear(PQexec(connection, "SET userd.writer = 'on'"));
    PGresult *prepared = PQprepare(
        connection, "insert", is_plain ? MOVE ADD_USERS : MOVE ADD_CLAIMS ADD_USERS, 0, NULL);
    if (PQresultStatus(prepared) != PGRES_COMMAND_OK)
        die("prepare", PQerrorMessage(connection));
    PQclear(prepared);
    struct db_parameters parameters CLEANUP(db_parameters_cleanup) = {0};
    uint64_t begun_us = monotonic_clock_us();
    for (uint64_t done = 0; done < count; done += batch) {
        db_parameters_reset(&parameters);
        add_registrations(&parameters, first + done, count - done < batch ? count - done : batch);
        insert_batch(connection, &parameters);
    }
    double seconds = (double)(monotonic_clock_us() - begun_us) / (double)MONOTONIC_CLOCK_US_PER_S;
    (void)printf(
        "seconds=%.3f rows=%" PRIu64 " rate=%.0f\n", seconds, count, (double)count / seconds);
    PQfinish(connection);
    return EXIT_SUCCESS;
}
