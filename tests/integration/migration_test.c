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

/* `userd migrate WORD...` with a URL of another making in the place of the configured one. */
static int migrate_at(const char *url, const char *const *words, char **ret_output)
{
    char text[1200];
    const char *argv[12] = {TEST_USERD, "migrate"};
    const char *const environment[] = {text, "KAFKA_BOOTSTRAP_SERVERS", NULL};
    size_t count = 2;
    while (*words != NULL)
        argv[count++] = *words++;
    argv[count++] = "-c";
    argv[count++] = userd.config_path;
    (void)snprintf(text, sizeof(text), "DB_URL=%s", url);
    return test_process_run(argv, environment, userd.directory, ret_output);
}

/* `from` in the place of which `to` stands in the database's URL. */
static void given_url(const char *from, const char *to, char ret_url[1024])
{
    const char *place = strstr(userd.database.url, from);
    cr_assert(place != NULL, "no %s in the URL", from);
    (void)snprintf(ret_url, 1024, "%.*s%s%s", (int)(place - userd.database.url), userd.database.url,
        to, place + strlen(from));
}

static void then_ends_at_once(const char *url, const char *expected)
{
    static const char *const directions[] = {"up", "down", "status"};
    for (size_t i = 0; i < ARRAY_LENGTH(directions); i++) {
        const char *const words[] = {directions[i], "--timeout", "0", NULL};
        char *output = NULL;
        int status = migrate_at(url, words, &output);
        cr_assert_eq(status, 69, "migrate %s ended with %d: %s", directions[i], status, output);
        cr_assert(strstr(output, expected) != NULL, "%s", output);
        free(output);
    }
}

Test(migration, ends_at_once_with_a_wrong_password)
{
    char url[1024];
    given_url("postgresql://userd:", "postgresql://userd:wrong-", url);
    then_ends_at_once(url, "28P01");
}

Test(migration, ends_at_once_without_its_database)
{
    char url[1024];
    given_url(userd.database.name, "no_such_database", url);
    then_ends_at_once(url, "no_such_database");
}

Test(migration, ends_at_once_with_a_parameter_that_the_server_refuses)
{
    char url[1024];
    (void)snprintf(url, sizeof(url), "%s?options=-c%%20no_such_parameter%%3D1", userd.database.url);
    then_ends_at_once(url, "no_such_parameter");
}

Test(migration, ends_when_its_time_is_over)
{
    const char *const words[] = {"up", "--timeout", "1", NULL};
    char *output = NULL;
    int status = migrate_at("postgresql://nobody@127.0.0.1:1/nothing", words, &output);
    cr_assert_eq(status, 69, "ended with %d: %s", status, output);
    cr_assert(strstr(output, "refused") != NULL, "%s", output);
    free(output);
}

/* A name that is too long is refused without asking a name server. */
Test(migration, names_the_host_of_several_that_has_no_address)
{
    const char *const words[] = {"up", "--timeout", "1", NULL};
    char url[256];
    char *output = NULL;
    (void)snprintf(url, sizeof(url), "postgresql://u@x%064d,127.0.0.1:1/db", 7);
    int status = migrate_at(url, words, &output);
    cr_assert_eq(status, 69, "ended with %d: %s", status, output);
    cr_assert_not_null(strstr(output, "cannot resolve x0000"), "%s", output);
    cr_assert_not_null(strstr(output, "refused"), "%s", output);
    free(output);
}

Test(migration, says_whom_it_waits_for_and_does_not_wait_for_ever)
{
    const char *const words[] = {"up", "--timeout", "4", NULL};
    char *output = NULL;
    test_database_execute(&userd.database, legacy_database);
    PGconn *holder = test_database_connect(&userd.database);
    PQclear(PQexec(holder, "SET application_name = 'a-nuisance'"));
    PQclear(PQexec(holder, "BEGIN; LOCK TABLE \"user\" IN ACCESS SHARE MODE; SELECT 1"));
    PQclear(PQexec(holder, "LOCK TABLE \"user\" IN ROW EXCLUSIVE MODE"));
    int status = migrate_at(userd.database.url, words, &output);
    cr_assert_eq(status, 69, "ended with %d: %s", status, output);
    cr_assert(strstr(output, "a-nuisance pid ") != NULL, "%s", output);
    free(output);
    then_database_says(&userd, "SELECT to_regclass('outbox') IS NULL", "t");
    PQfinish(holder);
    then_migrates("up", NULL);
}

/* As a running userd does whose commits wait for a standby: what passes must not end `run
 * --migrate`. */
Test(migration, waits_for_the_claims_of_names_that_others_write)
{
    const char *const words[] = {"up", "--timeout", "1", NULL};
    char *output = NULL;
    then_migrates("up", NULL);
    PGconn *holder = test_database_connect(&userd.database);
    PQclear(PQexec(holder, "BEGIN; LOCK TABLE username_claim IN ROW EXCLUSIVE MODE"));
    int status = migrate_at(userd.database.url, words, &output);
    cr_assert_eq(status, 69, "ended with %d: %s", status, output);
    cr_assert_not_null(strstr(output, "a lock was not to be had"), "%s", output);
    free(output);
    PQfinish(holder);
    then_migrates("up", NULL);
}

Test(migration, down_takes_back_all_or_nothing)
{
    char *output = NULL;
    then_migrates("up", NULL);
    test_database_execute(
        &userd.database, "INSERT INTO outbox (destination, id_auth) VALUES (1, 17)");
    char *before = test_database_value(&userd.database, "SELECT count(*) FROM schema_migration");
    int status = migrate("down", "9", &output);
    cr_assert_eq(status, 1, "ended with %d: %s", status, output);
    cr_assert(strstr(output, "claims_events") != NULL, "not which one: %s", output);
    free(output);
    then_database_says(&userd, "SELECT count(*) FROM schema_migration", before);
    then_database_says(&userd,
        "SELECT count(*) FROM pg_attribute WHERE attrelid = 'outbox'::regclass"
        " AND attname = 'traceparent' AND NOT attisdropped",
        "1");
    free(before);
}

Test(migration, down_is_refused_while_a_worker_runs)
{
    char *output = NULL;
    then_migrates("up", NULL);
    when_userd_starts(&userd);
    then_health_becomes(&userd, TEST_HEALTH_SERVING);
    int status = migrate("down", "1", &output);
    cr_assert_eq(status, 1, "ended with %d: %s", status, output);
    cr_assert(strstr(output, "userd worker-1 pid ") != NULL, "not by whom: %s", output);
    free(output);
    then_migrates("up", NULL); /* which is not */
    when_userd_stops(&userd);
    then_migrates("down", "1");
}

static void then_is_refused_with(const char *const *expected)
{
    char *output = NULL;
    int status = migrate("up", NULL, &output);
    cr_assert_eq(status, 1, "ended with %d: %s", status, output);
    for (; *expected != NULL; expected++)
        cr_assert(strstr(output, *expected) != NULL, "not \"%s\": %s", *expected, output);
    free(output);
    then_database_says(&userd, "SELECT to_regclass('username_claim') IS NULL", "t");
}

Test(migration, refuses_tables_of_another_shape_and_says_what_differs)
{
    static const char *const expected[] = {"\"user\".id_auth is bigint, expected integer",
        "\"user\".id_auth is not UNIQUE", "\"user\".username is not there",
        "\"user\".email is NOT NULL without a default", "\"user\".id has no default", NULL};
    test_database_execute(&userd.database,
        "CREATE TABLE \"user\" (id integer PRIMARY KEY, id_auth bigint NOT NULL,"
        " email text NOT NULL)");
    then_is_refused_with(expected);
}

Test(migration, refuses_a_view_and_a_list_of_migrations_that_is_not_ours)
{
    static const char *const expected[] = {"schema_migration.name is not there", NULL};
    static const char *const expected_of_view[] = {"\"user\" is not a table", NULL};
    test_database_execute(
        &userd.database, "CREATE TABLE schema_migration (version integer NOT NULL)");
    then_is_refused_with(expected);
    test_database_execute(
        &userd.database, "DROP TABLE schema_migration; CREATE VIEW \"user\" AS SELECT 1 AS id");
    then_is_refused_with(expected_of_view);
}

Test(migration, dry_run_says_what_it_would_do_and_does_not_do_it)
{
    static const char *const words[] = {"up", "--dry-run", NULL};
    char *output = NULL;
    test_database_execute(&userd.database, legacy_database);
    int status = migrate_at(userd.database.url, words, &output);
    cr_assert_eq(status, 0, "ended with %d: %s", status, output);
    cr_assert(strstr(output, "would apply 2 0002_claims_events") != NULL, "%s", output);
    free(output);
    then_database_says(&userd,
        "SELECT count(*) FROM pg_class WHERE relname IN ('outbox', 'schema_migration')", "0");
    /* What would not work is found out. */
    test_database_execute(&userd.database, "CREATE TABLE outbox (id integer)");
    status = migrate_at(userd.database.url, words, &output);
    cr_assert_eq(status, 1, "ended with %d: %s", status, output);
    cr_assert(strstr(output, "0002_claims_events: relation \\\"outbox\\\" already exists") != NULL,
        "%s", output);
    free(output);
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
