/* The schema: up, down and status; a database of the legacy service adopted with its rows; two at a
 * time; a file that was changed after it was applied. */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/harness/test_userd.h"

static struct test_userd userd;

static void init(void)
{
    static const struct test_userd_options options = {.skips_migration = true, .skips_start = true};
    given_userd(&userd, &options);
}

static void fini(void)
{
    finally_userd(&userd);
}

TestSuite(migration, .init = init, .fini = fini, .timeout = 120);

/* As the legacy service's Alembic revision makes it, with two users who share a name. */
static const char legacy_database[] =
    "CREATE TABLE \"user\" (id serial PRIMARY KEY, username varchar NOT NULL, id_auth integer NOT "
    "NULL UNIQUE);"
    "CREATE TABLE alembic_version (version_num varchar(32) NOT NULL,"
    " CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num));"
    "INSERT INTO alembic_version VALUES ('b3e13817489d');"
    "INSERT INTO \"user\" (username, id_auth) VALUES"
    " ('trinity', 30), ('Trinity', 20), ('trinity', 10), ('morpheus', 40), ('neo', 50);";

/* `userd migrate WORD...`: the exit status, and the output, which is the caller's. */
static int migrate(const char *word, const char *number, char **ret_output)
{
    const char *const arguments[] = {"migrate", word, number, NULL};
    return when_userd_is_told(&userd, arguments, ret_output);
}

static void then_migrates(const char *word, const char *number)
{
    char *output = NULL;
    int status = migrate(word, number, &output);
    cr_assert(status == 0, "migrate %s ended with %d: %s", word, status, output);
    free(output);
}

/* As many steps as leave the legacy schema; the caller's to free. */
static char *steps_to_legacy(void)
{
    return test_database_value(&userd.database, "SELECT count(*) - 1 FROM schema_migration");
}

Test(migration, makes_the_schema_in_an_empty_database_and_again_does_nothing)
{
    then_migrates("up", NULL);
    then_migrates("up", NULL);
    then_database_says(&userd, "SELECT version_num FROM alembic_version", "b3e13817489d");
    then_database_says(&userd, "SELECT to_regclass('outbox') IS NOT NULL", "t");
}

Test(migration, status_names_what_is_applied_and_what_is_not)
{
    char *output = NULL;
    int status = migrate("status", NULL, &output);
    cr_assert(strstr(output, "legacy_base") != NULL, "exit %d: %s", status, output);
    cr_assert(strstr(output, "claims_events") != NULL, "exit %d: %s", status, output);
    char *before = output;
    then_migrates("up", NULL);
    status = migrate("status", NULL, &output);
    cr_assert(status == 0, "exit %d: %s", status, output);
    cr_assert(strcmp(before, output) != 0, "status does not tell the difference: %s", output);
    free(before);
    free(output);
}

Test(migration, goes_down_to_the_legacy_schema_and_up_again)
{
    then_migrates("up", NULL);
    given_user(&userd, 17, "trinity");
    char *steps = steps_to_legacy();
    then_migrates("down", steps);
    free(steps);
    then_database_says(&userd, "SELECT to_regclass('outbox') IS NULL", "t");
    then_database_says(&userd, "SELECT username FROM \"user\" WHERE id_auth = 17", "trinity");
    then_migrates("up", NULL);
    then_database_says(&userd, "SELECT username FROM username_claim WHERE id_auth = 17", "trinity");
}

Test(migration, down_is_refused_while_events_wait)
{
    then_migrates("up", NULL);
    test_database_execute(
        &userd.database, "INSERT INTO outbox (destination, id_auth) VALUES (1, 17)");
    char *output = NULL;
    char *steps = steps_to_legacy();
    int status = migrate("down", steps, &output);
    free(steps);
    cr_assert(status != 0, "went down: %s", output);
    cr_assert(strstr(output, "unpublished") != NULL, "%s", output);
    free(output);
    then_database_says(&userd, "SELECT count(*) FROM outbox", "1");
}

Test(migration, adopts_a_legacy_database_with_its_rows)
{
    test_database_execute(&userd.database, legacy_database);
    then_migrates("up", NULL);
    then_database_says(&userd,
        "SELECT string_agg(id || ':' || username || ':' || id_auth, ' ' ORDER BY id) FROM \"user\"",
        "1:trinity:30 2:Trinity:20 3:trinity:10 4:morpheus:40 5:neo:50");
    /* The lowest id holds the name; a name that breaks today's rules has no canonical form to hold.
     */
    then_database_says(
        &userd, "SELECT id_auth FROM username_claim WHERE canonical = 'trinity'", "30");
    then_database_says(
        &userd, "SELECT id_auth FROM username_claim WHERE canonical = 'morpheus'", "40");
}

Test(migration, serves_a_legacy_database_with_names_that_are_shared)
{
    test_database_execute(&userd.database, legacy_database);
    then_migrates("up", NULL);
    when_userd_starts(&userd);
    then_health_becomes(&userd, TEST_HEALTH_SERVING);
    then_name_is(&userd, 10, "trinity");
    then_name_is(&userd, 20, "Trinity");
    then_name_is(&userd, 30, "trinity");
    then_name_is(&userd, 50, "neo");
    struct test_reply reply;
    when_asked_for_id(&userd, "trinity", &reply);
    cr_assert_eq(reply.status, GRPC_STATUS_OK, "%s", reply.message);
    cr_assert(reply.length == 2 && reply.bytes[1] == 30, "not the holder of the name");
    test_reply_cleanup(&reply);
}

Test(migration, leaves_a_schema_that_the_legacy_service_can_use)
{
    test_database_execute(&userd.database, legacy_database);
    then_migrates("up", NULL);
    /* What it does: insert, rename, delete, by these columns alone. */
    test_database_execute(&userd.database,
        "INSERT INTO \"user\" (username, id_auth) VALUES ('trinity', 60);"
        "UPDATE \"user\" SET username = 'morpheus' WHERE id_auth = 30;"
        "DELETE FROM \"user\" WHERE id_auth = 40;");
    then_migrates("up", NULL);
    then_database_says(&userd, "SELECT count(*) FROM username_claim WHERE id_auth = 40", "0");
    then_database_says(
        &userd, "SELECT id_auth FROM username_claim WHERE canonical = 'morpheus'", "30");
}

Test(migration, refuses_a_database_of_another_revision)
{
    test_database_execute(&userd.database,
        "CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);"
        "INSERT INTO alembic_version VALUES ('0123456789ab');");
    char *output = NULL;
    int status = migrate("up", NULL, &output);
    cr_assert(status != 0, "adopted: %s", output);
    cr_assert(strstr(output, "0123456789ab") != NULL, "%s", output);
    free(output);
    then_database_says(&userd, "SELECT to_regclass('outbox') IS NULL", "t");
}

Test(migration, by_two_at_once_is_done_once)
{
    static const char *const environment[] = {"DB_URL", "KAFKA_BOOTSTRAP_SERVERS", NULL};
    const char *const argv[] = {TEST_USERD, "migrate", "up", "-c", userd.config_path, NULL};
    struct test_process both[2];
    for (size_t i = 0; i < ARRAY_LENGTH(both); i++)
        test_process_start(&both[i], argv, environment, userd.log_path);
    for (size_t i = 0; i < ARRAY_LENGTH(both); i++) {
        int status = test_process_wait(&both[i], TEST_TIMEOUT_MS);
        cr_assert(status == 0, "number %zu ended with %d", i, status);
    }
    then_database_says(&userd, "SELECT version_num FROM alembic_version", "b3e13817489d");
}

static bool is_waiting(const struct test_process *process)
{
    char *output = test_file_read(process->output_path, NULL);
    bool says_so = strstr(output, "database cannot be reached") != NULL;
    free(output);
    return says_so;
}

Test(migration, gives_up_waiting_for_the_database_when_it_is_told_to)
{
    const char *const argv[] = {TEST_USERD, "migrate", "status", "-c", userd.config_path, NULL};
    static const char *const environment[] = {
        "DB_URL=postgresql://nobody@127.0.0.1:1/nothing", "KAFKA_BOOTSTRAP_SERVERS", NULL};
    char output_path[160];
    (void)snprintf(output_path, sizeof(output_path), "%s/migrate.log", userd.directory);
    struct test_process process;
    test_process_start(&process, argv, environment, output_path);
    cr_assert(
        TEST_WAIT_FOR(is_waiting(&process), TEST_TIMEOUT_MS), "it does not say what it waits for");
    cr_assert_eq(test_process_stop(&process, SIGTERM, TEST_TIMEOUT_MS), 75);
}
