/* Processes that have no descriptor left: what cannot be taken goes elsewhere or is turned away,
 * what is served goes on being served, and nobody ends for want of one. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/file_descriptor.h"

#include "tests/harness/test_userd.h"

#define CLIENTS 64
#define HELLO   "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
/* What a whole service may have in the test below, and the connections that this leaves a worker:
 * two descriptors for each, beside 256 others. */
#define WHOLE_LIMIT     300
#define ROOM_OF_A_LIMIT ((WHOLE_LIMIT - 256) / 2)

enum client_fate { CLIENT_WAITS, CLIENT_SERVED, CLIENT_TURNED_AWAY };

static struct test_userd userd;
static int clients[CLIENTS];
static enum client_fate fates[CLIENTS];
static pid_t workers[TEST_MAX_MEMBERS];
static size_t worker_count;

static void init(void)
{
    for (size_t i = 0; i < CLIENTS; i++)
        clients[i] = -1;
}

static void fini(void)
{
    for (size_t i = 0; i < CLIENTS; i++)
        fd_close(&clients[i]);
    finally_userd(&userd);
}

TestSuite(descriptor_limit, .init = init, .fini = fini, .timeout = 120);

/* With a client that is served already. */
static void given_service(const struct test_userd_options *options)
{
    given_userd(&userd, options);
    given_user(&userd, 17, "trinity");
    then_name_is(&userd, 17, "trinity");
    worker_count = test_process_children(userd.master.pid, "userd-worker", workers);
    cr_assert_eq(worker_count, (size_t)userd.workers);
}

static void when_clients_come(size_t count)
{
    const struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)userd.gateway_port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    for (size_t i = 0; i < count; i++) {
        fd_close(&clients[i]);
        fates[i] = CLIENT_WAITS;
        clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        cr_assert(clients[i] >= 0);
        cr_assert_eq(connect(clients[i], (const struct sockaddr *)&address, sizeof(address)), 0);
        /* a connection that has been turned away already says so when it is read */
        (void)send(clients[i], HELLO, sizeof(HELLO) - 1, MSG_NOSIGNAL);
    }
}

/* The server's first frame, or the end. */
static enum client_fate look_at(int client)
{
    struct pollfd entry = {.fd = client, .events = POLLIN};
    if (poll(&entry, 1, 0) <= 0)
        return CLIENT_WAITS;
    char byte;
    return recv(client, &byte, 1, 0) > 0 ? CLIENT_SERVED : CLIENT_TURNED_AWAY;
}

static size_t count_fates(size_t count, enum client_fate fate)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        if (fates[i] == CLIENT_WAITS)
            fates[i] = look_at(clients[i]);
        found += fates[i] == fate ? 1 : 0;
    }
    return found;
}

static void then_nobody_waits(size_t count)
{
    bool is_done = TEST_WAIT_FOR(count_fates(count, CLIENT_WAITS) == 0, TEST_TIMEOUT_MS);
    cr_assert(is_done, "%zu clients hear nothing", count_fates(count, CLIENT_WAITS));
}

static void then_all_workers_live(void)
{
    pid_t now[TEST_MAX_MEMBERS];
    cr_assert_eq(test_process_children(userd.master.pid, "userd-worker", now), worker_count);
    cr_assert_arr_eq(now, workers, worker_count * sizeof(workers[0]));
}

/* What is sent to a process that waits in its loop wakes it at once: it has read all. */
static bool is_asleep(pid_t pid)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    char *stat = test_file_read(path, NULL);
    const char *name_end = strrchr(stat, ')');
    bool is_asleep = name_end != NULL && strncmp(name_end, ") S", 3) == 0;
    free(stat);
    return is_asleep;
}

/* The workers have answered for their connections, and the master has let go of its copies: in this
 * order, for each wakes the next one. */
static bool are_all_asleep(void)
{
    for (size_t i = 0; i < worker_count; i++)
        if (!is_asleep(workers[i]))
            return false;
    return is_asleep(userd.master.pid);
}

static void then_all_sleep(void)
{
    cr_assert(TEST_WAIT_FOR(are_all_asleep(), TEST_TIMEOUT_MS));
}

/* All workers but the last have no descriptor left. */
static void then_the_last_worker_serves_all(const struct test_userd_options *options)
{
    given_service(options);
    for (size_t i = 0; i + 1 < worker_count; i++)
        test_process_limit_descriptors(workers[i], TEST_DESCRIPTORS_FOR_LIFE);
    when_clients_come(CLIENTS);
    then_nobody_waits(CLIENTS);
    cr_expect_eq(count_fates(CLIENTS, CLIENT_SERVED), CLIENTS);
    then_all_workers_live();
    then_name_is(&userd, 17, "trinity");
}

Test(descriptor_limit, of_one_worker_sends_its_connections_to_another)
{
    static const struct test_userd_options options = {.workers = 2};
    then_the_last_worker_serves_all(&options);
}

Test(descriptor_limit, of_many_workers_sends_their_connections_to_the_one_that_has_room)
{
    static const struct test_userd_options options = {.workers = 5};
    then_the_last_worker_serves_all(&options);
}

Test(descriptor_limit, of_a_worker_does_not_count_a_connection_twice_against_its_address)
{
    /* the clients, and a few of the test's own */
    static const struct test_userd_options options = {
        .workers = 3, .limit_settings = "connections_per_address = 80;"};
    then_the_last_worker_serves_all(&options);
}

Test(descriptor_limit, of_all_workers_turns_clients_away_and_serves_those_that_are_there)
{
    static const struct test_userd_options options = {.workers = 2};
    given_service(&options);
    for (size_t i = 0; i < worker_count; i++)
        test_process_limit_descriptors(workers[i], TEST_DESCRIPTORS_FOR_LIFE);
    when_clients_come(CLIENTS);
    then_nobody_waits(CLIENTS);
    cr_expect_eq(count_fates(CLIENTS, CLIENT_TURNED_AWAY), CLIENTS);
    then_all_workers_live();
    then_name_is(&userd, 17, "trinity");

    for (size_t i = 0; i < worker_count; i++)
        test_process_limit_descriptors(workers[i], -1);
    when_clients_come(CLIENTS);
    then_nobody_waits(CLIENTS);
    cr_expect_eq(count_fates(CLIENTS, CLIENT_SERVED), CLIENTS);
    then_all_workers_live();
}

Test(descriptor_limit, of_the_whole_service_leaves_each_worker_the_connections_that_fit)
{
    static const struct test_userd_options options = {.descriptor_limit = WHOLE_LIMIT};
    given_service(&options);
    then_log_says(&userd, "connections are limited by descriptors");
    when_clients_come(CLIENTS);
    then_nobody_waits(CLIENTS);
    size_t served = count_fates(CLIENTS, CLIENT_SERVED);
    /* one or two are those of the test's own calls */
    cr_expect(served <= ROOM_OF_A_LIMIT && served + 4 >= ROOM_OF_A_LIMIT, "%zu served", served);
    then_all_workers_live();
    then_name_is(&userd, 17, "trinity");
}

Test(descriptor_limit, of_the_master_turns_clients_away_until_it_has_one_again)
{
    static const struct test_userd_options options = {.workers = 1};
    given_service(&options);
    then_all_sleep();
    test_process_limit_descriptors(
        userd.master.pid, test_process_free_descriptor(userd.master.pid));
    when_clients_come(CLIENTS);
    then_nobody_waits(CLIENTS);
    cr_expect_eq(count_fates(CLIENTS, CLIENT_TURNED_AWAY), CLIENTS);
    then_name_is(&userd, 17, "trinity");

    test_process_limit_descriptors(userd.master.pid, -1);
    when_clients_come(CLIENTS);
    then_nobody_waits(CLIENTS);
    cr_expect_eq(count_fates(CLIENTS, CLIENT_SERVED), CLIENTS);
    then_all_workers_live();
}
