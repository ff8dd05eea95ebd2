/* The database is away, at start or later: calls are refused at once with a retry hint, health says
 * so, and everything comes back by itself. Each test has a PostgreSQL cluster of its own. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "tests/harness/test_userd.h"

static struct test_userd userd;

static void fini(void)
{
    finally_userd(&userd);
}

TestSuite(database_away, .fini = fini, .timeout = 180);

static void given_service(bool is_migrated, bool is_started)
{
    const struct test_userd_options options = {
        .workers = 2,
        .has_own_cluster = true,
        .skips_migration = !is_migrated,
        .skips_start = !is_started,
    };
    given_userd(&userd, &options);
}

static void then_calls_are_unavailable(void)
{
    struct test_reply reply;
    test_rpc_finish(test_rpc_start(&userd.gateway, METHOD_GET_USER, "\x08\x11", 2, 5000), &reply);
    cr_assert(
        reply.status == GRPC_STATUS_UNAVAILABLE, "status %d %s", (int)reply.status, reply.message);
    cr_assert(reply.has_pushback, "no retry hint");
    test_reply_cleanup(&reply);
}

Test(database_away, is_waited_for_at_start)
{
    given_service(true, false);
    given_user(&userd, 17, "trinity");
    test_database_stop_cluster(&userd.database);
    when_userd_starts(&userd);
    then_health_becomes(&userd, TEST_HEALTH_NOT_SERVING);
    then_calls_are_unavailable();
    test_database_start_cluster(&userd.database);
    then_health_becomes(&userd, TEST_HEALTH_SERVING);
    then_name_becomes(&userd, 17, "trinity");
}

Test(database_away, is_noticed_and_comes_back)
{
    given_service(true, true);
    given_user(&userd, 17, "trinity");
    then_name_is(&userd, 17, "trinity");
    test_database_stop_cluster(&userd.database);
    then_health_becomes(&userd, TEST_HEALTH_NOT_SERVING);
    then_calls_are_unavailable();
    cr_assert(test_process_is_running(&userd.master), "userd is gone");
    test_database_start_cluster(&userd.database);
    then_health_becomes(&userd, TEST_HEALTH_SERVING);
    then_name_becomes(&userd, 17, "trinity");
}

Test(database_away, without_its_schema_is_not_served)
{
    given_service(false, true);
    then_health_becomes(&userd, TEST_HEALTH_NOT_SERVING);
    then_calls_are_unavailable();
    const char *const arguments[] = {"migrate", "up", NULL};
    char *output = NULL;
    int status = when_userd_is_told(&userd, arguments, &output);
    cr_assert(status == 0, "%s", output);
    free(output);
    then_health_becomes(&userd, TEST_HEALTH_SERVING);
}

/* `userd run --migrate`: served from the first moment, and migrated when the database comes. */
Test(database_away, is_migrated_when_it_comes)
{
    static const struct test_userd_options options = {.has_own_cluster = true,
        .skips_migration = true,
        .skips_start = true,
        .runs_migration = true};
    static const char *const status_words[] = {"status", NULL};
    char *output = NULL;
    given_userd(&userd, &options);
    test_database_stop_cluster(&userd.database);
    when_userd_starts(&userd);
    then_calls_are_unavailable();
    cr_assert_eq(when_userd_is_told(&userd, status_words, &output), 0, "%s", output);
    free(output);
    test_database_start_cluster(&userd.database);
    then_health_becomes(&userd, TEST_HEALTH_SERVING);
    then_database_says(&userd, "SELECT to_regclass('outbox') IS NOT NULL", "t");
    then_log_says(&userd, "schema is up to date");
}

Test(database_away, that_cannot_be_migrated_ends_userd)
{
    static const struct test_userd_options options = {
        .skips_migration = true, .skips_start = true, .runs_migration = true};
    given_userd(&userd, &options);
    test_database_execute(
        &userd.database, "CREATE TABLE \"user\" (id integer, name text, id_auth bigint)");
    when_userd_starts(&userd);
    cr_assert_eq(test_process_wait(&userd.master, TEST_TIMEOUT_MS), 1);
    userd.is_started = false;
    test_rpc_close(&userd.gateway);
    test_rpc_close(&userd.post);
    then_log_says(&userd, "id_auth is bigint, expected integer");
}

Test(database_away, does_not_keep_userd_from_stopping)
{
    given_service(true, true);
    test_database_stop_cluster(&userd.database);
    then_health_becomes(&userd, TEST_HEALTH_NOT_SERVING);
    int64_t start_ms = test_now_ms();
    when_userd_stops(&userd);
    cr_assert(
        test_now_ms() - start_ms < 15000, "took %lld ms", (long long)(test_now_ms() - start_ms));
    test_database_start_cluster(&userd.database);
}
