/* Calls that wait: their deadlines and cancellation count while they are queued or in flight, and
 * what was given up does not hurt the others. The database is made to wait by a session that holds
 * a lock on the table. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "tests/harness/test_status.h"
#include "tests/harness/test_userd.h"

#define QUEUED_CALLS 50

static struct test_userd userd;
static PGconn *locker; /* the session that holds the lock */

static void given(const char *limits)
{
    const struct test_userd_options options = {
        .database_settings = "statement_timeout_ms = 60000; connections = 1;",
        .limit_settings = limits,
    };
    given_userd(&userd, &options);
    given_user(&userd, 17, "trinity");
    then_name_is(&userd, 17, "trinity");
}

static void init(void)
{
    given("");
}

static void fini(void)
{
    if (locker != NULL)
        PQfinish(locker);
    finally_userd(&userd);
}

TestSuite(queued_call, .init = init, .fini = fini, .timeout = 120);

static void when_the_table_is_locked(void)
{
    locker = test_database_lock_users(&userd.database);
}

static void when_the_table_is_free_again(void)
{
    PQfinish(locker);
    locker = NULL;
}

static struct test_call *start_read(int32_t id, int64_t timeout_ms)
{
    char request[] = {0x08, (char)id};
    return test_rpc_start(&userd.gateway, METHOD_GET_USER, request, sizeof(request), timeout_ms);
}

Test(queued_call, ends_at_its_deadline)
{
    when_the_table_is_locked();
    struct test_reply reply;
    test_rpc_finish(start_read(17, 500), &reply);
    then_fails_with(&reply, GRPC_STATUS_DEADLINE_EXCEEDED, NULL);
    when_the_table_is_free_again();
    then_name_is(&userd, 17, "trinity");
}

Test(queued_call, is_answered_when_the_database_moves_again)
{
    when_the_table_is_locked();
    struct test_call *calls[QUEUED_CALLS];
    for (size_t i = 0; i < QUEUED_CALLS; i++)
        calls[i] = start_read(i % 2 == 0 ? 17 : 18, TEST_TIMEOUT_MS);
    test_database_wait_for_waiter(&userd.database);
    cr_assert(!test_rpc_has_ended(calls[0]), "answered behind a lock");
    when_the_table_is_free_again();
    for (size_t i = 0; i < QUEUED_CALLS; i++) {
        struct test_reply reply;
        test_rpc_finish(calls[i], &reply);
        grpc_status_code expected = i % 2 == 0 ? GRPC_STATUS_OK : GRPC_STATUS_NOT_FOUND;
        cr_assert(reply.status == expected, "call %zu: status %d %s", i, (int)reply.status,
            reply.message);
        test_reply_cleanup(&reply);
    }
}

Test(queued_call, can_be_cancelled_without_harm_to_the_others)
{
    when_the_table_is_locked();
    struct test_call *calls[QUEUED_CALLS];
    for (size_t i = 0; i < QUEUED_CALLS; i++)
        calls[i] = start_read(17, TEST_TIMEOUT_MS);
    test_database_wait_for_waiter(&userd.database);
    for (size_t i = 0; i < QUEUED_CALLS; i += 2)
        test_rpc_cancel(calls[i]);
    when_the_table_is_free_again();
    for (size_t i = 0; i < QUEUED_CALLS; i++) {
        struct test_reply reply;
        test_rpc_finish(calls[i], &reply);
        grpc_status_code expected = i % 2 == 0 ? GRPC_STATUS_CANCELLED : GRPC_STATUS_OK;
        cr_assert(reply.status == expected, "call %zu: status %d %s", i, (int)reply.status,
            reply.message);
        test_reply_cleanup(&reply);
    }
}

Test(queued_call, whose_deadline_passed_before_its_turn_changes_nothing)
{
    when_the_table_is_locked();
    /* Two batches are in flight on the one connection; whatever comes now is queued in the worker.
     */
    struct test_call *holders[2];
    for (size_t i = 0; i < ARRAY_LENGTH(holders); i++) {
        holders[i] = start_read(17, TEST_TIMEOUT_MS);
        test_database_wait_for_waiter(&userd.database);
        then_health_becomes(&userd, TEST_HEALTH_SERVING);
    }
    static const char request[] = "\x08\x11\x12\x08"
                                  "late one";
    struct test_call *late[8];
    for (size_t i = 0; i < ARRAY_LENGTH(late); i++)
        late[i] =
            test_rpc_start(&userd.gateway, METHOD_USER_UPDATE, request, sizeof(request) - 1, 300);
    for (size_t i = 0; i < ARRAY_LENGTH(late); i++) {
        struct test_reply reply;
        test_rpc_finish(late[i], &reply);
        then_fails_with(&reply, GRPC_STATUS_DEADLINE_EXCEEDED, NULL);
    }
    then_method_has_ended(&userd, &METHOD_USER_UPDATE[1], ARRAY_LENGTH(late));
    when_the_table_is_free_again();
    for (size_t i = 0; i < ARRAY_LENGTH(holders); i++) {
        struct test_reply reply;
        test_rpc_finish(holders[i], &reply);
        cr_assert_eq(reply.status, GRPC_STATUS_OK, "%s", reply.message);
        test_reply_cleanup(&reply);
    }
    then_name_is(&userd, 17, "trinity");
}

Test(queued_call, that_is_cancelled_before_its_turn_changes_nothing)
{
    given_user(&userd, 18, "niobe");
    when_the_table_is_locked();
    struct test_call *holders[2];
    for (size_t i = 0; i < ARRAY_LENGTH(holders); i++) {
        holders[i] = start_read(17, TEST_TIMEOUT_MS);
        test_database_wait_for_waiter(&userd.database);
        then_health_becomes(&userd, TEST_HEALTH_SERVING);
    }
    static const char request[] = "\x08\x11\x12\x08"
                                  "late one";
    json_int_t begun = test_status_calls_begun(&userd);
    struct test_call *call = test_rpc_start(
        &userd.gateway, METHOD_USER_UPDATE, request, sizeof(request) - 1, TEST_TIMEOUT_MS);
    then_calls_have_begun(&userd, begun + 1);
    test_rpc_cancel(call);
    struct test_reply reply;
    test_rpc_finish(call, &reply);
    then_fails_with(&reply, GRPC_STATUS_CANCELLED, NULL);
    then_method_has_ended(&userd, &METHOD_USER_UPDATE[1], 1);
    when_the_table_is_free_again();
    for (size_t i = 0; i < ARRAY_LENGTH(holders); i++) {
        test_rpc_finish(holders[i], &reply);
        cr_assert_eq(reply.status, GRPC_STATUS_OK, "%s", reply.message);
        test_reply_cleanup(&reply);
    }
    /* It would have been written with this one, or before. */
    when_renamed(&userd, 18, "morpheus", &reply);
    cr_assert_eq(reply.status, GRPC_STATUS_OK, "%s", reply.message);
    test_reply_cleanup(&reply);
    then_name_is(&userd, 17, "trinity");
}

static void init_small(void)
{
    given("queued_calls = 10;");
}

TestSuite(full_queue, .init = init_small, .fini = fini, .timeout = 120);

Test(full_queue, refuses_with_a_retry_hint_and_recovers)
{
    when_the_table_is_locked();
    struct test_call *holder = start_read(17, TEST_TIMEOUT_MS);
    test_database_wait_for_waiter(&userd.database);
    struct test_call *calls[QUEUED_CALLS];
    for (size_t i = 0; i < QUEUED_CALLS; i++)
        calls[i] = start_read(17, TEST_TIMEOUT_MS);
    size_t refused = 0;
    cr_assert(TEST_WAIT_FOR(test_rpc_has_ended(calls[QUEUED_CALLS - 1]), TEST_TIMEOUT_MS),
        "nothing is refused");
    when_the_table_is_free_again();
    for (size_t i = 0; i < QUEUED_CALLS; i++) {
        struct test_reply reply;
        test_rpc_finish(calls[i], &reply);
        if (reply.status == GRPC_STATUS_RESOURCE_EXHAUSTED) {
            cr_assert(reply.has_pushback, "no retry hint");
            refused++;
        } else {
            cr_assert_eq(reply.status, GRPC_STATUS_OK, "%d %s", (int)reply.status, reply.message);
        }
        test_reply_cleanup(&reply);
    }
    cr_assert(refused >= QUEUED_CALLS / 2, "%zu calls refused", refused);
    struct test_reply reply;
    test_rpc_finish(holder, &reply);
    test_reply_cleanup(&reply);
    then_name_is(&userd, 17, "trinity");
}
