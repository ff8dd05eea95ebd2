/* A backlog of events: the calls that come meanwhile go between its batches, and do not wait for
 * its end. The gate of registrations is held, until a batch of each partition is in flight. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "tests/harness/test_status.h"
#include "tests/harness/test_userd.h"

#define PARTITIONS      3
#define SHORT_PARTITION 4 /* records of the first; its last one registers LAST_ID */
#define LONG_PARTITION  8
#define LAST_ID         4

static struct test_userd userd;
static PGconn *locker; /* the session that holds the gate */

static void when_registered(int32_t partition, int id)
{
    char event[64];
    int length = snprintf(event, sizeof(event), "{\"id\": %d, \"username\": \"user %d\"}", id, id);
    test_broker_append(&userd.broker, "registration", partition, event, (size_t)length);
}

static json_int_t records_read(void)
{
    json_t *report = test_status_read(&userd);
    json_int_t count = test_status_number(report, "eventd", "consumed");
    json_decref(report);
    return count;
}

/* Each record is a batch, and one of each partition waits in PostgreSQL. Each takes longer there
 * than the next one needs to come. */
static void given_backlog(const char *database_settings)
{
    const struct test_userd_options options = {
        .has_broker = true,
        .skips_start = true,
        .database_settings = database_settings,
        .kafka_settings = "batch_records = 1;",
    };
    given_userd(&userd, &options);
    test_database_execute(&userd.database,
        "CREATE FUNCTION take_time() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END';"
        "CREATE TRIGGER take_time AFTER INSERT ON \"user\" EXECUTE FUNCTION take_time()");
    int id = 0;
    for (int32_t partition = 0; partition < PARTITIONS; partition++)
        for (int i = 0; i < (partition == 0 ? SHORT_PARTITION : LONG_PARTITION); i++)
            when_registered(partition, ++id);
    test_broker_flush(&userd.broker);
    locker = test_database_lock_gate(&userd.database);
    when_userd_starts(&userd);
    then_health_becomes(&userd, TEST_HEALTH_SERVING);
    test_database_wait_for_waiter(&userd.database);
    bool is_full = TEST_WAIT_FOR(records_read() >= PARTITIONS, TEST_TIMEOUT_MS);
    cr_assert(is_full, "%lld batches in flight", (long long)records_read());
}

static void fini(void)
{
    if (locker != NULL)
        PQfinish(locker);
    finally_userd(&userd);
}

TestSuite(backlog, .fini = fini, .timeout = 120);

/* The calls are about the user of a partition's last record: who comes to that user before the
 * record does finds nobody. */
static void then_calls_do_not_wait_for_its_end(void)
{
    static const char read[] = {0x08, LAST_ID};
    static const char rename[] = {0x08, LAST_ID, 0x12, 5, 's', 'm', 'i', 't', 'h'};
    struct test_call *calls[] = {
        test_rpc_start(&userd.gateway, METHOD_GET_USER, read, sizeof(read), TEST_TIMEOUT_MS),
        test_rpc_start(&userd.gateway, METHOD_USER_UPDATE, rename, sizeof(rename), TEST_TIMEOUT_MS),
    };
    then_health_becomes(&userd, TEST_HEALTH_SERVING); /* behind them on the same connection */
    PQfinish(locker);
    locker = NULL;
    for (size_t i = 0; i < ARRAY_LENGTH(calls); i++) {
        struct test_reply reply;
        test_rpc_finish(calls[i], &reply);
        cr_expect_eq(reply.status, GRPC_STATUS_NOT_FOUND, "call %zu: status %d %s", i,
            (int)reply.status, reply.message);
        test_reply_cleanup(&reply);
    }
    then_name_becomes(&userd, LAST_ID, "user 4");
    then_database_says(&userd, "SELECT count(*) FROM \"user\"", "20");
}

Test(backlog, lets_calls_go_first_on_one_connection)
{
    given_backlog("statement_timeout_ms = 60000; connections = 1;");
    then_calls_do_not_wait_for_its_end();
}

Test(backlog, lets_writes_go_first_where_reads_have_a_connection_of_their_own)
{
    given_backlog("statement_timeout_ms = 60000; connections = 2;");
    then_calls_do_not_wait_for_its_end();
}
