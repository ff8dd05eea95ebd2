/* Beside userd a member of the legacy service registers and renames users, as in a takeover: what
 * it writes has no claim, until userd sees to it. */
#include <criterion/criterion.h>
#include <stdio.h>

#include "tests/harness/test_userd.h"

#define LEGACY_USERS 1234

static struct test_userd userd;

static void init(void)
{
    static const struct test_userd_options options = {.workers = 2, .has_broker = true};
    given_userd(&userd, &options);
}

static void fini(void)
{
    finally_userd(&userd);
}

TestSuite(reconcile, .init = init, .fini = fini, .timeout = 120);

static void when_legacy_writes(const char *sql)
{
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
