/* `userd check --connect`: the real PostgreSQL and a real broker are tried, nothing is changed. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "tests/harness/test_userd.h"

static struct test_userd userd;

static void fini(void)
{
    finally_userd(&userd);
}

TestSuite(check_connect, .fini = fini, .timeout = 120);

static void given_parts(bool has_broker, bool is_migrated)
{
    const struct test_userd_options options = {
        .has_broker = has_broker, .skips_start = true, .skips_migration = !is_migrated};
    given_userd(&userd, &options);
}

static void then_check_says(int expected_status, const char *const *texts)
{
    static const char *const arguments[] = {"check", "--connect", NULL};
    char *output = NULL;
    int status = when_userd_is_told(&userd, arguments, &output);
    cr_expect_eq(status, expected_status, "status %d: %s", status, output);
    for (size_t i = 0; texts[i] != NULL; i++)
        cr_expect(strstr(output, texts[i]) != NULL, "\"%s\" is not in: %s", texts[i], output);
    free(output);
}

Test(check_connect, says_what_is_in_order)
{
    given_parts(true, true);
    const char *const texts[] = {"database: ", "PostgreSQL ", "schema: version ",
        "kafka.bootstrap_servers: 1 brokers", "kafka.registration_topic: topic registration, ",
        "kafka.group: group user_service, ", NULL};
    then_check_says(EX_OK, texts);
}

Test(check_connect, names_each_thing_that_is_missing)
{
    given_parts(false, false);
    const char *const texts[] = {"schema: is not there, expected ours: run userd migrate up",
        "kafka.bootstrap_servers: no broker of \"127.0.0.1:9\" answers: ", "Connection refused",
        NULL};
    then_check_says(EX_UNAVAILABLE, texts);
}

Test(check_connect, names_the_database_that_does_not_exist)
{
    given_parts(true, true);
    when_config_changes(&userd, userd.database.name, "nowhere");
    const char *const texts[] = {"database: ", "database \"nowhere\" does not exist",
        "kafka.bootstrap_servers: 1 brokers", NULL};
    then_check_says(EX_UNAVAILABLE, texts);
}

Test(check_connect, names_the_legacy_schema_an_old_one_and_a_missing_right)
{
    given_parts(true, false);
    test_database_execute(&userd.database, "CREATE TABLE \"user\" (id int)");
    const char *const legacy[] = {"schema: is the legacy service's, expected ours", NULL};
    then_check_says(EX_UNAVAILABLE, legacy);
    test_database_execute(&userd.database,
        "CREATE TABLE schema_migration (version int); INSERT INTO schema_migration VALUES (1)");
    const char *const old[] = {"schema: is at version 1, expected ", "run userd migrate up", NULL};
    then_check_says(EX_UNAVAILABLE, old);
    test_database_execute(&userd.database,
        "UPDATE schema_migration SET version = 1000; REVOKE INSERT ON \"user\" FROM CURRENT_USER");
    const char *const right[] = {"lacks INSERT on \"user\", expected it to be granted", NULL};
    then_check_says(EX_UNAVAILABLE, right);
}

Test(check_connect, names_a_topic_that_is_not_there_and_nobody_makes)
{
    given_parts(true, true);
    when_config_changes(&userd, "session_timeout_ms = 4000;",
        "session_timeout_ms = 4000; create_topics = false; delete_topic = \"nowhere\";");
    const char *const texts[] = {
        "kafka.delete_topic: topic nowhere is not there, expected it", NULL};
    then_check_says(EX_UNAVAILABLE, texts);
}
