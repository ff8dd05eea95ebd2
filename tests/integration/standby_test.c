/* PostgreSQL with a standby: away, while commits wait for it, and taking over. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/harness/test_userd.h"

/* Longer than the relay's lease of the outbox lasts without being renewed. */
#define WRITES_MS 16000

static struct test_userd userd;
static struct test_database standby;

static void init(void)
{
    static const struct test_userd_options options = {
        .skips_start = true,
        .has_own_cluster = true,
        .has_broker = true,
        .database_settings = "statement_timeout_ms = 1000; connect_timeout_ms = 1000;",
    };
    given_userd(&userd, &options);
    given_user(&userd, 17, "trinity");
    test_database_follow(&userd.database, &standby, userd.directory);
}

static void fini(void)
{
    test_database_thaw(&userd.database); /* a frozen one does not stop */
    test_database_remove(&standby);
    finally_userd(&userd);
}

TestSuite(standby, .init = init, .fini = fini, .timeout = 180);

static void admin(const char *sql)
{
    PGconn *connection = PQconnectdb(userd.database.admin_url);
    PGresult *result = PQexec(connection, sql);
    ExecStatusType status = PQresultStatus(result);
    cr_assert(status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK, "%s: %s", sql,
        PQerrorMessage(connection));
    PQclear(result);
    PQfinish(connection);
}

static void given_synchronous_replication(void)
{
    admin("ALTER SYSTEM SET synchronous_standby_names = '*'");
    admin("SELECT pg_reload_conf()");
}

/* By a session of another role's, which sees nothing of ours: by the superuser. */
static long count_backends(const char *condition)
{
    char sql[256];
    (void)snprintf(sql, sizeof(sql),
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'userd' AND %s", condition);
    PGconn *connection = PQconnectdb(userd.database.admin_url);
    PGresult *result = PQexec(connection, sql);
    cr_assert_eq(PQresultStatus(result), PGRES_TUPLES_OK, "%s", PQerrorMessage(connection));
    long count = strtol(PQgetvalue(result, 0, 0), NULL, 10);
    PQclear(result);
    PQfinish(connection);
    return count;
}

static grpc_status_code rename_status(const char *name, char ret_message[256])
{
    struct test_reply reply;
    when_renamed(&userd, 17, name, &reply);
    grpc_status_code status = reply.status;
    (void)snprintf(ret_message, 256, "%s", reply.message);
    test_reply_cleanup(&reply);
    return status;
}

static bool is_refused_with_the_reason(void)
{
    char message[256];
    return rename_status("neo_the_one", message) == GRPC_STATUS_UNAVAILABLE &&
           strstr(message, "synchronous standby") != NULL;
}

static bool is_renamed(const char *name)
{
    char message[256];
    return rename_status(name, message) == GRPC_STATUS_OK;
}

Test(standby, away_refuses_writes_keeps_reads_and_piles_up_no_backends)
{
    given_synchronous_replication();
    when_userd_starts(&userd);
    then_health_becomes(&userd, TEST_HEALTH_SERVING);
    cr_assert(TEST_WAIT_FOR(is_renamed("trinity_1"), TEST_TIMEOUT_MS), "not renamed at first");
    test_database_stop_cluster(&standby);

    cr_assert(TEST_WAIT_FOR(is_refused_with_the_reason(), TEST_TIMEOUT_MS), "not refused");
    /* What the relay publishes now, it cannot take out of the outbox. */
    test_database_execute(&userd.database,
        "SET synchronous_commit = local;"
        "INSERT INTO outbox (destination, id_auth, key, value) VALUES (1, 99, '99', '{}')");
    long waiting = count_backends("wait_event = 'SyncRep'");
    long backends = count_backends("true");
    int64_t end_ms = test_now_ms() + WRITES_MS;
    for (; test_now_ms() < end_ms; test_pause_ms(20)) {
        cr_assert(is_refused_with_the_reason());
        /* What no standby has is not seen: nobody has cancelled the wait. */
        then_name_is(&userd, 17, "trinity_1");
        cr_assert_eq(test_userd_health(&userd), TEST_HEALTH_SERVING);
    }
    cr_assert(waiting >= 1);
    char *log = test_file_read(userd.log_path, NULL);
    cr_assert(strstr(log, "relay cannot renew its lease") != NULL, "the relay was not held");
    cr_assert(strstr(log, "database connection lost") == NULL, "a session was dropped");
    free(log);
    /* The relay's may have come to it a little later; a probe may be there just now. */
    cr_assert(count_backends("wait_event = 'SyncRep'") <= waiting + 1, "backends pile up");
    cr_assert(count_backends("true") <= backends + 2, "%ld backends, and %ld before",
        count_backends("true"), backends);

    test_database_start_cluster(&standby);
    cr_assert(TEST_WAIT_FOR(is_renamed("trinity_2"), TEST_TIMEOUT_MS), "not renamed again");
    then_name_is(&userd, 17, "trinity_2");
    then_database_says(&userd, "SELECT count(*) FROM outbox", "0");
    cr_assert_eq(count_backends("wait_event = 'SyncRep'"), 0);
}

/* PostgreSQL does not say then whether a session is active, but still what it waits for. */
Test(standby, away_is_seen_where_activities_are_not_tracked)
{
    given_synchronous_replication();
    admin("ALTER ROLE userd SET track_activities = off");
    when_userd_starts(&userd);
    then_health_becomes(&userd, TEST_HEALTH_SERVING);
    cr_assert(TEST_WAIT_FOR(is_renamed("trinity_1"), TEST_TIMEOUT_MS), "not renamed at first");
    test_database_stop_cluster(&standby);

    cr_assert(TEST_WAIT_FOR(is_refused_with_the_reason(), TEST_TIMEOUT_MS), "not refused");
    test_database_start_cluster(&standby);
    cr_assert(TEST_WAIT_FOR(is_renamed("trinity_2"), TEST_TIMEOUT_MS), "not renamed again");
}

Test(standby, takes_over_from_a_primary_that_is_frozen)
{
    char url[2048];
    const char *other = strchr(standby.url, '@') + 1;
    (void)snprintf(url, sizeof(url), "%.*s,%s",
        (int)(strrchr(userd.database.url, '/') - userd.database.url), userd.database.url, other);
    when_config_changes(&userd, userd.database.url, url);
    when_userd_starts(&userd);
    then_health_becomes(&userd, TEST_HEALTH_SERVING);
    then_name_is(&userd, 17, "trinity");
    test_database_freeze(&userd.database);
    test_database_promote(&standby);
    test_database_execute(&standby, "UPDATE \"user\" SET username = 'morpheus' WHERE id_auth = 17");
    char name[256] = "";
    cr_assert(TEST_WAIT_FOR(test_userd_name(&userd, 17, name) == GRPC_STATUS_OK &&
                                strcmp(name, "morpheus") == 0,
                  TEST_TIMEOUT_MS),
        "the second host does not serve");
    /* The old primary is back, and nobody reads what it has. */
    test_database_thaw(&userd.database);
    for (int i = 0; i < 50; i++)
        then_name_is(&userd, 17, "morpheus");
}
