/* Connections that were refused end after a second, or before where there is no room. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "common/file_descriptor.h"
#include "common/monotonic_clock.h"
#include "master/refused_connections.h"

#define FEW_DESCRIPTORS 64 /* an eighth of which is held at most */
#define FEW_HELD        8
#define DEADLINE_US     30000000

static sd_event *event;
static struct refused_connections *connections;

static void init(void)
{
    cr_assert_geq(sd_event_new(&event), 0);
    cr_assert_eq(refused_connections_new(event, &connections), 0);
}

static void fini(void)
{
    connections = refused_connections_free(connections);
    event = sd_event_unref(event);
}

TestSuite(refused_connections, .init = init, .fini = fini);

/* The client's end of a connection that is held. */
static int hold_one(void)
{
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    refused_connections_hold(connections, &ends[1]);
    cr_assert_eq(ends[1], -1);
    return ends[0];
}

static bool has_ended(int client)
{
    char byte;
    ssize_t length = recv(client, &byte, sizeof(byte), 0);
    cr_assert(length == 0 || errno == EAGAIN);
    return length == 0;
}

Test(refused_connections, end_after_their_time_and_not_before)
{
    uint64_t begun_us = monotonic_clock_us();
    int first CLEANUP(fd_close) = hold_one();
    int second CLEANUP(fd_close) = hold_one();
    cr_assert_eq(refused_connections_count(connections), 2);
    while (refused_connections_count(connections) > 0) {
        cr_assert(!has_ended(second));
        cr_assert_lt(monotonic_clock_us() - begun_us, DEADLINE_US);
        cr_assert_geq(sd_event_run(event, DEADLINE_US), 0);
    }
    cr_assert_geq(monotonic_clock_us() - begun_us, REFUSED_CONNECTIONS_HOLD_US);
    cr_assert(has_ended(first));
    cr_assert(has_ended(second));
    int later CLEANUP(fd_close) = hold_one(); /* and the next one does too */
    while (!has_ended(later)) {
        cr_assert_lt(monotonic_clock_us() - begun_us, DEADLINE_US);
        cr_assert_geq(sd_event_run(event, DEADLINE_US), 0);
    }
}

Test(refused_connections, the_oldest_ends_where_there_is_no_room)
{
    const struct rlimit limit = {.rlim_cur = FEW_DESCRIPTORS, .rlim_max = FEW_DESCRIPTORS};
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    int clients[FEW_HELD + 1];
    for (int i = 0; i < FEW_HELD; i++)
        clients[i] = hold_one();
    cr_assert(!has_ended(clients[0]));
    clients[FEW_HELD] = hold_one();
    cr_assert_eq(refused_connections_count(connections), FEW_HELD);
    cr_assert(has_ended(clients[0]));
    cr_assert(!has_ended(clients[1]));
    cr_assert(!has_ended(clients[FEW_HELD]));
    for (int i = 0; i <= FEW_HELD; i++)
        fd_close(&clients[i]);
}

Test(refused_connections, all_end_when_descriptors_are_needed)
{
    int first CLEANUP(fd_close) = hold_one();
    int second CLEANUP(fd_close) = hold_one();
    refused_connections_end_all(connections);
    cr_assert_eq(refused_connections_count(connections), 0);
    cr_assert(has_ended(first));
    cr_assert(has_ended(second));
    int third CLEANUP(fd_close) = hold_one();
    cr_assert(!has_ended(third));
}

Test(refused_connections, go_round_in_their_ring)
{
    for (int i = 0; i < 2 * REFUSED_CONNECTIONS_MAX; i++) {
        int client = hold_one();
        fd_close(&client);
    }
    cr_assert_leq(refused_connections_count(connections), REFUSED_CONNECTIONS_MAX);
    int last CLEANUP(fd_close) = hold_one();
    cr_assert(!has_ended(last));
}
