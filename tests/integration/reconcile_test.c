/* Beside userd a member of the legacy service registers and renames users, as in a takeover: what
 * it writes has no claim, until userd sees to it. */
#include <criterion/criterion.h>
#include <libpq-fe.h>
#include <stdio.h>

#include "tests/harness/test_userd.h"

#define LEGACY_USERS 1234

static struct test_userd userd;

static void init(void)
{
    static const struct test_userd_options options = {.workers = 2, .has_broker = true};
    given_userd(&userd, &options);
}

/* The worker that serves the calls is the one that reconciles, and its statements may wait for
 * longer than a call does. */
static void init_alone(void)
{
    static const struct test_userd_options options = {
        .workers = 1,
        .has_broker = true,
        .database_settings = "statement_timeout_ms = 60000;",
    };
    given_userd(&userd, &options);
}

static void as_superuser(const char *sql)
{
    PGconn *connection = PQconnectdb(userd.database.admin_url);
    PGresult *result = PQexec(connection, sql);
    cr_assert_eq(
        PQresultStatus(result), PGRES_COMMAND_OK, "%s: %s", sql, PQerrorMessage(connection));
    PQclear(result);
    PQfinish(connection);
}

/* The role of given_legacy_role() belongs to the cluster, and is named like the database. */
static void fini(void)
{
    char sql[128];
    (void)snprintf(sql, sizeof(sql), "DROP ROLE IF EXISTS legacy_%s", userd.database.name);
    finally_userd(&userd);
    as_superuser(sql);
}

TestSuite(reconcile, .init = init, .fini = fini, .timeout = 120);
TestSuite(reconcile_alone, .init = init_alone, .fini = fini, .timeout = 120);

static void when_legacy_writes(const char *sql)
{
    test_database_execute(&userd.database, sql);
}

/* It has rights on "user" and on nothing else. */
static void given_legacy_role(void)
{
    char sql[512];
    const char *name = userd.database.name;
    (void)snprintf(sql, sizeof(sql), "CREATE ROLE legacy_%s; GRANT legacy_%s TO userd", name, name);
    as_superuser(sql);
    (void)snprintf(sql, sizeof(sql),
        "GRANT SELECT, INSERT, UPDATE, DELETE ON \"user\" TO legacy_%s;"
        "GRANT USAGE ON SEQUENCE user_id_seq TO legacy_%s",
        name, name);
    test_database_execute(&userd.database, sql);
}

static void when_legacy_role_writes(const char *statements)
{
    char sql[1024];
    (void)snprintf(sql, sizeof(sql), "SET ROLE legacy_%s; %s", userd.database.name, statements);
    test_database_execute(&userd.database, sql);
}

static void then_holder_is(const char *canonical, const char *expected)
{
    char sql[128];
    (void)snprintf(
        sql, sizeof(sql), "SELECT id_auth FROM username_claim WHERE canonical = '%s'", canonical);
    then_database_says(&userd, sql, expected);
}

static void then_all_is_reconciled(void)
{
    then_database_says(&userd, "SELECT count(*) FROM username_unreconciled", "0");
}

Test(reconcile, gives_users_that_others_register_the_claim_to_their_name)
{
    given_user(&userd, 1, "trinity");
    when_legacy_writes("INSERT INTO \"user\" (id_auth, username) VALUES"
                       " (5, 'Oracle'), (6, 'oracle'), (7, 'x'), (8, 'Trinity')");
    then_holder_is("oracle", "5");
    then_all_is_reconciled();
    then_holder_is("trinity", "1");
    then_database_says(&userd,
        "SELECT string_agg(id_auth::text, ',' ORDER BY id_auth) FROM username_claim", "1,5");
    then_log_says(&userd, "usernames written by others reconciled users=");
    struct test_reply reply;
    when_renamed(&userd, 1, "ORACLE", &reply);
    then_fails_with(&reply, GRPC_STATUS_INVALID_ARGUMENT, "username is already taken");
}

Test(reconcile, moves_the_claim_of_a_user_that_others_rename)
{
    when_legacy_writes("INSERT INTO \"user\" (id_auth, username) VALUES (5, 'Oracle')");
    then_holder_is("oracle", "5");
    given_user(&userd, 1, "trinity");
    when_legacy_writes("UPDATE \"user\" SET username = 'Architect' WHERE id_auth = 5");
    then_holder_is("architect", "5");
    then_holder_is("oracle", "");
    struct test_reply reply;
    when_renamed(&userd, 1, "oracle", &reply);
    cr_assert_eq(reply.status, GRPC_STATUS_OK, "%s", reply.message);
    test_reply_cleanup(&reply);
    /* to a name that is taken, to one that breaks a rule, and away */
    when_legacy_writes("UPDATE \"user\" SET username = 'ORACLE' WHERE id_auth = 5");
    then_holder_is("architect", "");
    then_holder_is("oracle", "1");
    when_legacy_writes("UPDATE \"user\" SET username = 'x' WHERE id_auth = 5;"
                       "DELETE FROM \"user\" WHERE id_auth = 5");
    then_all_is_reconciled();
    then_database_says(&userd, "SELECT string_agg(canonical, ',') FROM username_claim", "oracle");
}

/* More than one pass takes, while names change hands. */
Test(reconcile, keeps_up_with_many)
{
    char sql[256];
    (void)snprintf(sql, sizeof(sql),
        "INSERT INTO \"user\" (id_auth, username)"
        " SELECT number, 'Name ' || number FROM generate_series(1, %d) number",
        LEGACY_USERS);
    when_legacy_writes(sql);
    when_legacy_writes(
        "UPDATE \"user\" SET username = 'Name ' || id_auth % 617 WHERE id_auth > 617");
    then_all_is_reconciled();
    then_database_says(&userd,
        "SELECT count(*) FROM username_claim c JOIN \"user\" u USING (id_auth)"
        " WHERE c.username = u.username AND c.canonical = lower(u.username)",
        "618");
    then_database_says(&userd, "SELECT count(*) FROM username_claim", "618");
}

/* What we write costs nobody a note. */
Test(reconcile, leaves_out_what_userd_writes_itself)
{
    test_broker_send(&userd.broker, "registration", "{\"id\": 17, \"username\": \"trinity\"}");
    then_name_becomes(&userd, 17, "trinity");
    struct test_reply reply;
    when_renamed(&userd, 17, "Trinity Two", &reply);
    cr_assert_eq(reply.status, GRPC_STATUS_OK, "%s", reply.message);
    test_reply_cleanup(&reply);
    then_database_says(&userd, "SELECT is_called FROM username_unreconciled_number_seq", "f");
}

Test(reconcile, needs_no_right_of_the_role_that_writes)
{
    given_legacy_role();
    when_legacy_role_writes("INSERT INTO \"user\" (id_auth, username) VALUES (5, 'Oracle')");
    then_holder_is("oracle", "5");
    when_legacy_role_writes("DELETE FROM \"user\" WHERE id_auth = 5");
    then_holder_is("oracle", "");
}

/* A temporary table comes before all others, unless it is said where to look; and what its triggers
 * did would be done with the rights of userd. */
Test(reconcile, is_not_led_to_temporary_tables_of_the_role_that_writes)
{
    given_legacy_role();
    when_legacy_role_writes("CREATE TEMPORARY TABLE username_unreconciled (id_auth integer);"
                            "CREATE TEMPORARY TABLE username_claim (id_auth integer);"
                            "GRANT ALL ON username_unreconciled, username_claim TO userd;"
                            "INSERT INTO \"user\" (id_auth, username) VALUES (5, 'Oracle')");
    then_holder_is("oracle", "5");
    when_legacy_role_writes("CREATE TEMPORARY TABLE username_claim (id_auth integer);"
                            "GRANT ALL ON username_claim TO userd;"
                            "DELETE FROM \"user\" WHERE id_auth = 5");
    then_holder_is("oracle", "");
}

/* Somebody has the user's row locked, for minutes maybe: others must not wait for that. */
Test(reconcile_alone, passes_over_a_user_who_is_locked_and_holds_up_no_call)
{
    given_user(&userd, 1, "trinity");
    given_user(&userd, 2, "morpheus");
    PGconn *legacy = test_database_connect(&userd.database);
    PGconn *holder = test_database_connect(&userd.database);
    PQclear(PQexec(legacy, "BEGIN"));
    PQclear(PQexec(legacy, "UPDATE \"user\" SET username = 'Niobe' WHERE id_auth = 2"));
    PQclear(PQexec(holder, "BEGIN"));
    cr_assert(PQsendQuery(holder, "SELECT 1 FROM \"user\" WHERE id_auth = 2 FOR UPDATE"));
    test_database_wait_for_waiter(&userd.database);
    PQclear(PQexec(legacy, "COMMIT")); /* the holder has the row at once, and the note is there */
    /* More than one pass's time. */
    for (int i = 0; i < 4; i++) {
        struct test_reply reply;
        char name[32];
        (void)snprintf(name, sizeof(name), "trinity_%d", i);
        test_pause_ms(500);
        when_renamed(&userd, 1, name, &reply);
        cr_assert_eq(reply.status, GRPC_STATUS_OK, "rename %d: %s", i, reply.message);
        test_reply_cleanup(&reply);
    }
    then_database_says(&userd, "SELECT count(*) > 0 FROM username_unreconciled", "t");
    PQfinish(holder);
    then_holder_is("niobe", "2");
    then_all_is_reconciled();
    PQfinish(legacy);
}
