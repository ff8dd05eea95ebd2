/* Events about one user leave in the order in which they were committed, also when the first of
 * them was a long time on its way into the outbox. Writers here are sessions of the test's own:
 * what userd writes is one short statement, and what its COMMIT may wait for is not. */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/harness/test_status.h"
#include "tests/harness/test_userd.h"

#define OTHER_EVENTS    25
#define OTHER_PAUSE_MS  100
#define READ_TIMEOUT_MS 20000
#define SQL_SIZE        256
#define DELETIONS       20
#define LONGEST_POLL_MS 1500
/* Longer than a floor takes to pass an id, and the end of it before the first rescan. */
#define FLOOR_MS 3000

static struct test_userd userd;
static struct test_reader reader;

/* A cluster of its own: nobody else's transactions end there. */
static void init(void)
{
    static const struct test_userd_options options = {.workers = 1,
        .has_broker = true,
        .has_own_cluster = true,
        .top_settings = "events = { allow_reregistration = true; };",
        .kafka_settings = "dead_letter_topic = \"absent\"; create_topics = false;"};
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

static json_int_t backlog(void)
{
    json_t *report = test_status_read(&userd);
    json_int_t rows = test_status_number(json_object_get(report, "totals"), "outbox", "backlog");
    json_decref(report);
    return rows;
}

/* The younger transaction draws the lower id and is the only one that runs: no transaction above it
 * has ended, so that pg_snapshot_xmax() is its own number. Nobody else's ends either, for the row
 * of the older one goes to a topic that is missing, and stays. */
Test(outbox_order, holds_for_a_transaction_above_all_that_have_ended)
{
    PGconn *older = test_database_connect(&userd.database);
    PGconn *late = test_database_connect(&userd.database);
    execute(older, "BEGIN; SELECT pg_current_xact_id()");
    execute(late, "BEGIN; SELECT pg_current_xact_id()");
    write_event(late, 900, 1);
    execute(older, "INSERT INTO outbox (destination, value) VALUES (2, 'dead')");
    execute(older, "COMMIT");
    cr_assert(TEST_WAIT_FOR(backlog() == 1, TEST_TIMEOUT_MS), "the row was not read");
    test_pause_ms(FLOOR_MS);
    execute(late, "COMMIT");
    write_event(late, 900, 2);
    then_next_is("{\"id\": 900, \"n\": 1}");
    then_next_is("{\"id\": 900, \"n\": 2}");
    PQfinish(older);
    PQfinish(late);
}

static void when_signalled(const char *program, int number)
{
    pid_t pids[TEST_MAX_MEMBERS];
    cr_assert_eq(test_process_children(userd.master.pid, program, pids), 1);
    cr_assert_eq(kill(pids[0], number), 0);
}

/* Two rows of one user for the topic that is missing. The first is among those that are let go when
 * a hold begins; the second comes with a read that was asked before, and is answered when the topic
 * is there. */
Test(outbox_order, holds_for_a_read_that_is_on_its_way_when_rows_are_let_go)
{
    PGconn *writer = test_database_connect(&userd.database);
    PGconn *late = test_database_connect(&userd.database);
    when_signalled("userd-eventd", SIGSTOP);
    execute(writer, "INSERT INTO outbox (destination, id_auth, key, value)"
                    " SELECT 2, n, 'key', 'first' FROM generate_series(1, 1500) n");
    cr_assert(TEST_WAIT_FOR(backlog() == 1500, TEST_TIMEOUT_MS), "the rows were not read");
    execute(late, "BEGIN; LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE;"
                  "INSERT INTO outbox (destination, id_auth, key, value)"
                  " VALUES (2, 1500, 'key', 'second')");
    test_database_wait_for_waiter(&userd.database);
    test_pause_ms(LONGEST_POLL_MS); /* the one that waits may be no read */
    when_signalled("userd-eventd", SIGCONT);
    then_log_says(&userd, "reading no more of them until these can");
    test_broker_send(&userd.broker, "absent", "made");
    then_log_says(&userd, "outbox rows of a destination can be published again");
    execute(late, "COMMIT");
    struct test_reader letters;
    struct test_record record;
    size_t firsts = 0;
    bool has_second = false;
    test_reader_open(&letters, &userd.broker, "absent");
    while (firsts < 1500 || !has_second) {
        cr_assert(test_reader_next(&letters, &record, READ_TIMEOUT_MS), "nothing was published");
        firsts += strcmp(record.value, "first") == 0;
        has_second = has_second || strcmp(record.value, "second") == 0;
        cr_assert(!has_second || firsts == 1500, "after %zu rows the last one came", firsts);
        test_record_cleanup(&record);
    }
    test_reader_close(&letters);
    PQfinish(writer);
    PQfinish(late);
}

/* From now on the steps of each transaction are written down, in their order. */
static void given_noted_steps(void)
{
    test_database_execute(&userd.database,
        "CREATE TABLE step (number bigserial, what text, writer xid8);"
        "CREATE FUNCTION note_step() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO step (what, writer) VALUES (TG_TABLE_NAME, pg_current_xact_id());"
        " RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END; END $$;"
        "CREATE TRIGGER noted BEFORE INSERT OR DELETE ON \"user\""
        " FOR EACH ROW EXECUTE FUNCTION note_step();"
        "CREATE TRIGGER noted BEFORE INSERT ON username_claim"
        " FOR EACH ROW EXECUTE FUNCTION note_step();"
        "CREATE TRIGGER noted BEFORE INSERT OR DELETE ON user_tombstone"
        " FOR EACH ROW EXECUTE FUNCTION note_step();"
        "CREATE TRIGGER noted BEFORE INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION note_step()");
}

static void then_outbox_rows_came_last(const char *transactions_with_several)
{
    then_database_says(&userd,
        "SELECT count(*) FROM step a JOIN step b USING (writer)"
        " WHERE a.number < b.number AND a.what = 'outbox' AND b.what <> 'outbox'",
        "0");
    then_database_says(&userd,
        "SELECT count(*) > 0 FROM (SELECT FROM step WHERE what = 'outbox'"
        " GROUP BY writer HAVING count(*) > 1) w",
        transactions_with_several);
}

/* The order of data-modifying CTEs is only what they refer to. */
Test(outbox_order, writes_the_outbox_row_last_for_a_call)
{
    given_user(&userd, 17, "neo");
    given_noted_steps();
    struct test_reply reply;
    when_deleted(&userd, 17, &reply);
    cr_assert_eq(reply.status, GRPC_STATUS_OK);
    test_reply_cleanup(&reply);
    then_database_says(&userd, "SELECT count(*) FROM step", "3");
    then_outbox_rows_came_last("f");
}

Test(outbox_order, writes_the_outbox_rows_last_for_events)
{
    for (int id = 1; id <= DELETIONS; id++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "user-%d", id);
        given_user(&userd, id, name);
    }
    given_noted_steps();
    for (int id = 1; id <= DELETIONS; id++) {
        char event[32];
        (void)snprintf(event, sizeof(event), "{\"id\": %d}", id);
        test_broker_append(&userd.broker, "admin_delete_user", 0, event, strlen(event));
        test_broker_append(&userd.broker, "admin_delete_user", 0, "?", 1);
    }
    test_broker_flush(&userd.broker);
    then_database_says(
        &userd, "SELECT count(*) FROM step WHERE what = 'outbox'", "40" /* 2 * DELETIONS */);
    then_outbox_rows_came_last("t");
}

/* Dead letters beside registrations that revive deleted ids. */
Test(outbox_order, writes_dead_letters_last)
{
    test_database_execute(
        &userd.database, "INSERT INTO user_tombstone (id_auth) SELECT generate_series(1, 20)");
    given_noted_steps();
    for (int id = 1; id <= DELETIONS; id++) {
        char event[64];
        (void)snprintf(event, sizeof(event), "{\"id\": %d, \"username\": \"name-%d\"}", id, id);
        test_broker_append(&userd.broker, "registration", 0, event, strlen(event));
        test_broker_append(&userd.broker, "registration", 0, "?", 1);
    }
    test_broker_flush(&userd.broker);
    then_database_says(&userd, "SELECT count(*) FROM step WHERE what = 'outbox'", "20");
    then_outbox_rows_came_last("t");
}

/* Such a row was written by nobody of ours. It is told of once, and holds up nothing. */
Test(outbox_order, sets_a_row_aside_that_makes_no_sense)
{
    test_database_execute(&userd.database,
        "INSERT INTO outbox (destination, id_auth, value, header_names, header_values)"
        " VALUES (1, 900, 'x', ARRAY[NULL], ARRAY['x'::bytea])");
    test_database_execute(&userd.database, "INSERT INTO outbox (destination, id_auth, key, value)"
                                           " VALUES (1, 900, '900', '{\"id\": 900, \"n\": 2}')");
    then_next_is("{\"id\": 900, \"n\": 2}");
    then_database_says(
        &userd, "SELECT string_agg(reason, ',') FROM outbox_parked", "its headers cannot be read");
    then_database_says(&userd, "SELECT count(*) FROM outbox", "0");
    char *log = test_file_read(userd.log_path, NULL);
    const char *first = strstr(log, "outbox row can never be published");
    cr_assert_not_null(first);
    cr_assert_null(strstr(first + 1, "outbox row can never be published"), "said once");
    cr_assert_null(strstr(log, "outbox row cannot be read"));
    free(log);
}
