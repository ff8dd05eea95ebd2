/* Workers that leave: a reload replaces all of them, and no call may fail by it, not even that of a
 * client which has not looked at its connection since its last call and so has not read GOAWAY. */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>

#include "tests/harness/test_userd.h"

static struct test_userd userd;
static struct test_rpc client;
static struct test_rpc stuck_client;
static PGconn *locker; /* a session that holds a lock on the user's row */

/* With the idle client's connection a worker lives for this long after GOAWAY, and up to two
 * seconds more. */
static const int64_t idle_times_ms[] = {300, 1100, 1300, 1500, 1800, 2100, 2400};
static const int64_t stuck_idle_times_ms[] = {1300, 1440, 1800};

/* Where there is time enough, a worker ends connections without a call four seconds after GOAWAY.
 */
static const int64_t patient_idle_times_ms[] = {3950, 4030, 4250};

static void given_service(const char *drain_setting)
{
    const struct test_userd_options options = {
        .workers = 1,
        .top_settings = drain_setting,
        .database_settings = "statement_timeout_ms = 60000;",
    };
    given_userd(&userd, &options);
    given_user(&userd, 17, "trinity");
    test_rpc_open(&client, userd.gateway_address, false);
}

static void init(void)
{
    given_service("shutdown = { drain_timeout_ms = 1000; };");
}

static void init_patient(void)
{
    given_service("shutdown = { drain_timeout_ms = 30000; };");
}

static void fini(void)
{
    if (locker != NULL)
        PQfinish(locker);
    test_rpc_close(&client);
    test_rpc_close(&stuck_client);
    finally_userd(&userd);
}

TestSuite(drain, .init = init, .fini = fini, .timeout = 120);
TestSuite(patient_drain, .init = init_patient, .fini = fini, .timeout = 120);

static void then_is_served(struct test_rpc *rpc, int64_t idle_ms)
{
    struct test_reply reply;
    test_rpc_call(rpc, METHOD_GET_USER, "\x08\x11", 2, &reply);
    cr_assert(reply.status == GRPC_STATUS_OK, "idle for %lld ms of a drain: status %d %s",
        (long long)idle_ms, (int)reply.status, reply.message);
    test_reply_cleanup(&reply);
}

static size_t worker_count(pid_t ret_pids[TEST_MAX_MEMBERS])
{
    return test_process_children(userd.master.pid, "userd-worker", ret_pids);
}

/* The new worker is there and the old one drains. */
static void when_reloaded(void)
{
    pid_t pids[TEST_MAX_MEMBERS];
    cr_assert(TEST_WAIT_FOR(worker_count(pids) == 1, TEST_TIMEOUT_MS), "an old worker stays");
    pid_t old_pid = pids[0];
    struct test_reply reply;
    test_rpc_call(&client, METHOD_HEALTH_CHECK, "", 0, &reply);
    test_reply_cleanup(&reply);
    char drain_line[64];
    (void)snprintf(drain_line, sizeof(drain_line), "[%d]: drain begun", (int)old_pid);
    cr_assert_eq(kill(userd.master.pid, SIGHUP), 0);
    then_log_says(&userd, drain_line);
}

/* Nothing of this process talks gRPC meanwhile: the C core of a client handles all of its
 * connections whenever it handles one. */
Test(drain, fails_no_call_of_a_client_that_was_idle)
{
    for (size_t i = 0; i < ARRAY_LENGTH(idle_times_ms); i++) {
        then_is_served(&client, 0);
        when_reloaded();
        test_pause_ms(idle_times_ms[i]);
        then_is_served(&client, idle_times_ms[i]);
    }
}

Test(patient_drain, fails_no_call_of_a_client_that_was_idle)
{
    for (size_t i = 0; i < ARRAY_LENGTH(patient_idle_times_ms); i++) {
        then_is_served(&client, 0);
        when_reloaded();
        test_pause_ms(patient_idle_times_ms[i]);
        then_is_served(&client, patient_idle_times_ms[i]);
    }
}

static void when_the_user_is_locked(void)
{
    locker = test_database_connect(&userd.database);
    PQclear(PQexec(locker, "BEGIN"));
    PGresult *result = PQexec(locker, "SELECT 1 FROM \"user\" WHERE id_auth = 17 FOR UPDATE");
    cr_assert_eq(PQntuples(result), 1, "%s", PQresultErrorMessage(result));
    PQclear(result);
}

/* A rename that does not end keeps the worker to the end of its time. */
Test(drain, with_a_call_that_does_not_end_fails_none_of_a_client_that_was_idle)
{
    /* A name of its own each time: PostgreSQL may carry the call out when its worker has gone, and
     * one's own name waits for no lock. */
    char request[] = "\x08\x11\x12\x08"
                     "late one";
    for (size_t i = 0; i < ARRAY_LENGTH(stuck_idle_times_ms); i++) {
        request[sizeof(request) - 2] = (char)('a' + (int)i);
        test_rpc_open(&stuck_client, userd.gateway_address, false);
        when_the_user_is_locked();
        struct test_call *call = test_rpc_start(
            &stuck_client, METHOD_USER_UPDATE, request, sizeof(request) - 1, TEST_TIMEOUT_MS);
        test_database_wait_for_waiter(&userd.database);
        when_reloaded();
        test_pause_ms(stuck_idle_times_ms[i]);
        then_is_served(&client, stuck_idle_times_ms[i]);
        struct test_reply reply;
        test_rpc_finish(call, &reply);
        cr_assert_neq(reply.status, GRPC_STATUS_OK, "a call outlived its worker");
        test_reply_cleanup(&reply);
        test_rpc_close(&stuck_client);
        PQfinish(TAKE_PTR(locker));
    }
}
