/* Events about one user leave in the order in which they were committed, also when the first of
 * them was a long time on its way into the outbox. Writers here are sessions of the test's own:
 * what userd writes is one short statement, and what its COMMIT may wait for is not. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "tests/harness/test_userd.h"

#define OTHER_EVENTS    25
#define OTHER_PAUSE_MS  100
#define READ_TIMEOUT_MS 20000
#define SQL_SIZE        256

static struct test_userd userd;
static struct test_reader reader;

static void init(void)
{
    static const struct test_userd_options options = {.workers = 1, .has_broker = true};
    given_userd(&userd, &options);
    test_reader_open(&reader, &userd.broker, "delete");
}

static void fini(void)
{
    test_reader_close(&reader);
    finally_userd(&userd);
}

TestSuite(outbox_order, .init = init, .fini = fini, .timeout = 120);

static void execute(PGconn *session, const char *sql)
{
    PGresult *result = PQexec(session, sql);
    ExecStatusType status = PQresultStatus(result);
    cr_assert(
        status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK, "%s", PQerrorMessage(session));
    PQclear(result);
}

static void write_event(PGconn *session, int id, int number)
{
    char sql[SQL_SIZE];
    (void)snprintf(sql, sizeof(sql),
        "INSERT INTO outbox (destination, id_auth, key, value)"
        " VALUES (1, %d, '%d', convert_to('{\"id\": %d, \"n\": %d}', 'UTF8'))",
        id, id, id, number);
    execute(session, sql);
}

static void then_next_is(const char *value)
{
    struct test_record record;
    cr_assert(test_reader_next(&reader, &record, READ_TIMEOUT_MS), "nothing was published");
    cr_assert_str_eq(record.value, value);
    test_record_cleanup(&record);
}

/* Long enough for any floor that goes by time alone to pass the open transaction. */
static void when_others_write_and_are_published(PGconn *session)
{
    for (int i = 0; i < OTHER_EVENTS; i++) {
        write_event(session, 1000 + i, 0);
        struct test_record record;
        cr_assert(test_reader_next(&reader, &record, READ_TIMEOUT_MS), "nothing was published");
        test_record_cleanup(&record);
        test_pause_ms(OTHER_PAUSE_MS);
    }
}

Test(outbox_order, holds_for_a_transaction_that_commits_late)
{
    PGconn *late = test_database_connect(&userd.database);
    PGconn *other = test_database_connect(&userd.database);
    execute(late, "BEGIN");
    write_event(late, 900, 1);
    when_others_write_and_are_published(other);
    execute(late, "COMMIT");
    write_event(other, 900, 2);
    then_next_is("{\"id\": 900, \"n\": 1}");
    then_next_is("{\"id\": 900, \"n\": 2}");
    PQfinish(late);
    PQfinish(other);
}
