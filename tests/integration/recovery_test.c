/* Processes that are killed, and a broker that is away: nothing committed is lost, nothing takes
 * effect twice, and the calls go on. */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/harness/test_userd.h"

#define USERS 200

static struct test_userd userd;
static struct test_reader reader;

static void fini(void)
{
    test_reader_close(&reader);
    finally_userd(&userd);
}

TestSuite(recovery, .fini = fini, .timeout = 300);

static void given_service(int workers, bool has_broker)
{
    const struct test_userd_options options = {.workers = workers, .has_broker = has_broker};
    given_userd(&userd, &options);
}

static size_t children(const char *program, pid_t ret_pids[TEST_MAX_MEMBERS])
{
    return test_process_children(userd.master.pid, program, ret_pids);
}

static bool is_among(const pid_t *pids, size_t count, pid_t wanted)
{
    for (size_t i = 0; i < count; i++) {
        if (pids[i] == wanted)
            return true;
    }
    return false;
}

/* Kills the first child of this program, and waits until the master has put another in its place.
 */
static void when_killed(const char *program, size_t expected_count)
{
    pid_t pids[TEST_MAX_MEMBERS];
    size_t count = children(program, pids);
    cr_assert_eq(count, expected_count, "%zu processes of %s", count, program);
    pid_t victim = pids[0];
    cr_assert_eq(kill(victim, SIGKILL), 0);
    bool is_replaced = TEST_WAIT_FOR(
        (count = children(program, pids)) == expected_count && !is_among(pids, count, victim),
        TEST_TIMEOUT_MS);
    cr_assert(is_replaced, "%s is not replaced", program);
}

/* Reads the topic until `count` different users' deletions have been seen. */
static void then_deletions_are_published(size_t count)
{
    bool seen[USERS + 1] = {false};
    size_t distinct = 0;
    int64_t deadline_ms = test_now_ms() + 2 * (int64_t)TEST_TIMEOUT_MS;
    while (distinct < count && test_now_ms() < deadline_ms) {
        struct test_record record;
        if (!test_reader_next(&reader, &record, 1000))
            continue;
        int id = 0;
        cr_assert_eq(sscanf(record.value, "{\"id\": %d}", &id), 1, "%s", record.value);
        cr_assert(id >= 1 && id <= USERS, "%s", record.value);
        distinct += seen[id] ? 0 : 1;
        seen[id] = true;
        test_record_cleanup(&record);
    }
    cr_assert_eq(distinct, count, "%zu of %zu deletions are published", distinct, count);
    then_database_says(&userd, "SELECT count(*) FROM outbox", "0");
}

Test(recovery, of_a_killed_worker_keeps_the_service_up)
{
    given_service(2, false);
    given_user(&userd, 17, "trinity");
    when_killed("userd-worker", 2);
    then_name_becomes(&userd, 17, "trinity");
    when_killed("userd-worker", 2);
    then_name_becomes(&userd, 17, "trinity");
}

/* ---- connections that a worker had not taken when it died ---- */

struct new_client {
    struct test_rpc rpc;
    struct test_call *call;
};

/* Workers that read nothing any more. */
static void given_stopped_workers(int count, pid_t ret_pids[TEST_MAX_MEMBERS])
{
    given_service(count, false);
    given_user(&userd, 17, "trinity");
    then_name_is(&userd, 17, "trinity");
    cr_assert_eq(children("userd-worker", ret_pids), (size_t)count);
    for (int i = 0; i < count; i++)
        cr_assert_eq(kill(ret_pids[i], SIGSTOP), 0);
}

/* A call on a connection of its own each, which the master has passed to a worker: from then on the
 * only descriptors of it are the master's and, in the worker's channel, the one on its way. */
static void given_calls_of_new_clients(struct new_client *clients, size_t count)
{
    static const uint8_t user_17[] = {0x08, 17};
    for (size_t i = 0; i < count; i++) {
        size_t held_before = test_process_sockets(userd.master.pid);
        test_rpc_open(&clients[i].rpc, userd.gateway_address, false);
        clients[i].call = test_rpc_start(
            &clients[i].rpc, METHOD_GET_USER, user_17, sizeof(user_17), TEST_TIMEOUT_MS);
        bool is_passed =
            TEST_WAIT_FOR(test_process_sockets(userd.master.pid) > held_before, TEST_TIMEOUT_MS);
        cr_assert(is_passed, "the master has not accepted connection %zu", i);
    }
}

static void then_calls_succeed(struct new_client *clients, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct test_reply reply;
        test_rpc_finish(clients[i].call, &reply);
        cr_assert_eq(
            reply.status, GRPC_STATUS_OK, "status %d %s", (int)reply.status, reply.message);
        test_reply_cleanup(&reply);
        test_rpc_close(&clients[i].rpc);
    }
}

Test(recovery, takes_connections_that_a_dead_worker_had_not_taken_to_the_next_one)
{
    pid_t workers[TEST_MAX_MEMBERS];
    struct new_client clients[3];
    given_stopped_workers(1, workers);
    given_calls_of_new_clients(clients, ARRAY_LENGTH(clients));
    size_t held = test_process_sockets(userd.master.pid);
    cr_assert_eq(kill(workers[0], SIGKILL), 0);
    then_calls_succeed(clients, ARRAY_LENGTH(clients));
    then_log_says(&userd, "connections passed to others slot=1 count=3");
    bool is_let_go = TEST_WAIT_FOR(
        test_process_sockets(userd.master.pid) <= held - ARRAY_LENGTH(clients), TEST_TIMEOUT_MS);
    cr_assert(is_let_go, "the master keeps connections that a worker has taken");
}

Test(recovery, takes_connections_that_a_dead_worker_had_not_taken_to_its_neighbour)
{
    pid_t workers[TEST_MAX_MEMBERS];
    struct new_client clients[4];
    given_stopped_workers(2, workers);
    given_calls_of_new_clients(clients, ARRAY_LENGTH(clients));
    cr_assert_eq(kill(workers[0], SIGKILL), 0);
    cr_assert_eq(kill(workers[1], SIGCONT), 0);
    then_calls_succeed(clients, ARRAY_LENGTH(clients));
}

Test(recovery, of_a_killed_eventd_goes_on_where_it_was)
{
    given_service(1, true);
    test_broker_send(&userd.broker, "registration", "{\"id\": 17, \"username\": \"trinity\"}");
    then_name_becomes(&userd, 17, "trinity");
    when_killed("userd-eventd", 1);
    test_broker_send(&userd.broker, "registration", "{\"id\": 18, \"username\": \"morpheus\"}");
    then_name_becomes(&userd, 18, "morpheus");
    then_database_says(&userd, "SELECT count(*) FROM \"user\"", "2");
}

Test(recovery, publishes_what_was_committed_before_eventd_and_workers_died)
{
    given_service(2, true);
    test_reader_open(&reader, &userd.broker, "delete");
    for (int32_t id = 1; id <= USERS; id++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "user %d", id);
        given_user(&userd, id, name);
    }
    size_t deleted = 0;
    for (int32_t id = 1; id <= USERS; id++) {
        if (id == USERS / 4 || id == USERS / 2)
            when_killed("userd-eventd", 1);
        if (id == USERS / 3)
            when_killed("userd-worker", 2);
        struct test_reply reply;
        when_deleted(&userd, id, &reply);
        /* A call that was open when its worker died is not known to be done: ask again. */
        if (reply.status != GRPC_STATUS_OK) {
            cr_assert_eq(reply.status, GRPC_STATUS_UNAVAILABLE, "status %d %s", (int)reply.status,
                reply.message);
            then_health_becomes(&userd, TEST_HEALTH_SERVING);
            test_reply_cleanup(&reply);
            when_deleted(&userd, id, &reply);
        }
        deleted += reply.status == GRPC_STATUS_OK || reply.status == GRPC_STATUS_NOT_FOUND ? 1 : 0;
        test_reply_cleanup(&reply);
    }
    cr_assert_eq(deleted, USERS, "%zu deletions", deleted);
    then_deletions_are_published(USERS);
}

Test(recovery, serves_while_kafka_is_away)
{
    given_service(1, false);
    given_user(&userd, 17, "trinity");
    struct test_reply reply;
    when_renamed(&userd, 17, "morpheus", &reply);
    cr_assert_eq(reply.status, GRPC_STATUS_OK, "%s", reply.message);
    test_reply_cleanup(&reply);
    when_deleted(&userd, 17, &reply);
    cr_assert_eq(reply.status, GRPC_STATUS_OK, "%s", reply.message);
    test_reply_cleanup(&reply);
    then_database_says(&userd, "SELECT count(*) FROM outbox WHERE id_auth = 17", "1");
}

Test(recovery, lets_no_child_outlive_a_killed_master)
{
    given_service(2, false);
    pid_t workers[TEST_MAX_MEMBERS];
    pid_t eventds[TEST_MAX_MEMBERS];
    size_t worker_count = children("userd-worker", workers);
    size_t eventd_count = children("userd-eventd", eventds);
    cr_assert(worker_count == 2 && eventd_count == 1, "%zu workers, %zu eventd", worker_count,
        eventd_count);
    test_rpc_close(&userd.gateway);
    test_rpc_close(&userd.post);
    (void)test_process_stop(&userd.master, SIGKILL, TEST_TIMEOUT_MS);
    userd.is_started = false;
    bool is_empty =
        TEST_WAIT_FOR(kill(workers[0], 0) < 0 && kill(workers[1], 0) < 0 && kill(eventds[0], 0) < 0,
            TEST_TIMEOUT_MS);
    cr_assert(is_empty, "a child outlives its master");
}
