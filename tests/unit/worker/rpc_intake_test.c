/* From a passed descriptor to the C core, and the count of connections that have ended. */
#include <criterion/criterion.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/file_descriptor.h"
#include "worker/rpc/rpc_intake.h"

#define LISTENER   1
#define TIMEOUT_MS 50
#define HELLO      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
#define HELLO_SIZE (sizeof(HELLO) - 1)

struct fixture {
    struct scoreboard_slot slot; /* first: it is aligned to cache lines */
    struct rpc_peer_set peers;
    sd_event *event;
    struct settings settings;
    struct rpc_intake *intake;
    uint64_t number;      /* the last connection's */
    uint64_t settled[16]; /* numbers */
    size_t settled_count;
    unsigned int returned_count;
    unsigned int ready_count_when_settled;
    int core_fd; /* what the C core was given */
    unsigned int ready_count;
    unsigned int empty_count;
};

static struct rpc_peer *on_ready(uint32_t listener, int fd, void *userdata)
{
    struct fixture *fixture = userdata;
    cr_assert_eq(listener, LISTENER);
    fd_close(&fixture->core_fd);
    fixture->core_fd = fd;
    fixture->ready_count++;
    return rpc_peer_open(&fixture->peers, listener, "fd:1");
}

static void on_settled(uint64_t number, bool is_returned, void *userdata)
{
    struct fixture *fixture = userdata;
    cr_assert_lt(fixture->settled_count, ARRAY_LENGTH(fixture->settled));
    fixture->settled[fixture->settled_count++] = number;
    fixture->returned_count += is_returned ? 1 : 0;
    fixture->ready_count_when_settled = fixture->ready_count;
}

static void on_empty(void *userdata)
{
    ((struct fixture *)userdata)->empty_count++;
}

static void open_fixture_for(struct fixture *fixture, int connections)
{
    static const struct rpc_intake_handlers handlers = {
        .on_ready = on_ready, .on_settled = on_settled, .on_empty = on_empty};
    memset(fixture, 0, sizeof(*fixture));
    fixture->core_fd = -1;
    fixture->settings.limits.connections = connections;
    fixture->settings.limits.handshake_timeout_ms = TIMEOUT_MS;
    fixture->settings.limits.queued_calls = 10;
    fixture->settings.limits.held_megabytes = 8;
    fixture->settings.limits.streams_per_connection = 10;
    fixture->settings.limits.unread_timeout_ms = TIMEOUT_MS;
    rpc_peer_set_init(&fixture->peers, &fixture->settings);
    cr_assert_geq(sd_event_new(&fixture->event), 0);
    cr_assert_eq(rpc_intake_new(fixture->event, &fixture->settings, &fixture->slot, &handlers,
                     fixture, &fixture->intake),
        0);
}

static void open_fixture(struct fixture *fixture)
{
    open_fixture_for(fixture, 2);
}

static void close_fixture(struct fixture *fixture)
{
    fixture->intake = rpc_intake_free(fixture->intake);
    rpc_peer_set_cleanup(&fixture->peers);
    fd_close(&fixture->core_fd);
    (void)sd_event_unref(fixture->event);
}

/* Passes one end of a new connection, which already has `length` bytes waiting; returns the
 * client's end. */
static int connect_client(struct fixture *fixture, const char *bytes, size_t length)
{
    int fds[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    if (length > 0)
        cr_assert_eq(write(fds[0], bytes, length), (ssize_t)length);
    rpc_intake_add(fixture->intake, LISTENER, ++fixture->number, &fds[1]);
    cr_assert_eq(fds[1], -1, "the descriptor is taken");
    return fds[0];
}

static void run_for_ms(struct fixture *fixture, unsigned int time_ms)
{
    for (unsigned int i = 0; i < time_ms; i++)
        cr_assert_geq(sd_event_run(fixture->event, 1000), 0);
}

static uint32_t closed_count(struct fixture *fixture)
{
    return atomic_load(&fixture->slot.closed[LISTENER]);
}

Test(rpc_intake, hands_over_at_once_when_the_first_bytes_are_there)
{
    struct fixture fixture;
    open_fixture(&fixture);
    int client = connect_client(&fixture, HELLO, HELLO_SIZE);
    cr_assert_eq(fixture.ready_count, 1);
    char bytes[HELLO_SIZE];
    cr_assert_eq(
        read(fixture.core_fd, bytes, sizeof(bytes)), (ssize_t)sizeof(bytes), "nothing was eaten");
    fd_close(&client);
    close_fixture(&fixture);
}

Test(rpc_intake, waits_for_first_bytes_that_come_in_pieces)
{
    struct fixture fixture;
    open_fixture(&fixture);
    int client = connect_client(&fixture, HELLO, 10);
    run_for_ms(&fixture, 5);
    cr_assert_eq(fixture.ready_count, 0);
    cr_assert_eq(write(client, &HELLO[10], HELLO_SIZE - 10), (ssize_t)(HELLO_SIZE - 10));
    run_for_ms(&fixture, 5);
    cr_assert_eq(fixture.ready_count, 1);
    fd_close(&client);
    close_fixture(&fixture);
}

Test(rpc_intake, leaves_other_protocols_to_the_core)
{
    struct fixture fixture;
    open_fixture(&fixture);
    int client = connect_client(&fixture, "GET", 3);
    cr_assert_eq(fixture.ready_count, 1);
    fd_close(&client);
    close_fixture(&fixture);
}

Test(rpc_intake, closes_a_peer_that_says_nothing)
{
    struct fixture fixture;
    open_fixture(&fixture);
    int silent = connect_client(&fixture, NULL, 0);
    int halting = connect_client(&fixture, HELLO, HELLO_SIZE - 1);
    run_for_ms(&fixture, 3 * TIMEOUT_MS);
    char byte;
    cr_assert_eq(recv(silent, &byte, 1, MSG_DONTWAIT), 0, "end of file");
    cr_assert_leq(recv(halting, &byte, 1, MSG_DONTWAIT), 0);
    cr_assert_eq(closed_count(&fixture), 2);
    cr_assert_eq(fixture.ready_count, 0);
    fd_close(&silent);
    fd_close(&halting);
    close_fixture(&fixture);
}

static uint64_t oldest_us(struct fixture *fixture)
{
    return atomic_load(&fixture->slot.oldest_us[LISTENER]);
}

Test(rpc_intake, says_of_each_connection_once_that_it_is_taken_and_before_it_is)
{
    struct fixture fixture;
    open_fixture(&fixture);
    int silent = connect_client(&fixture, NULL, 0);
    run_for_ms(&fixture, 3);
    cr_assert_eq(fixture.settled_count, 0, "another worker could still have it");
    int client = connect_client(&fixture, HELLO, HELLO_SIZE);
    cr_assert_eq(fixture.settled_count, 1);
    cr_assert_eq(fixture.settled[0], 2);
    cr_assert_eq(fixture.ready_count_when_settled, 0, "once it is read nobody else can have it");
    run_for_ms(&fixture, 3 * TIMEOUT_MS);
    cr_assert_eq(fixture.settled_count, 2, "the silent one was closed");
    cr_assert_eq(fixture.settled[1], 1);
    fd_close(&client);
    run_for_ms(&fixture, 3);
    cr_assert_eq(fixture.settled_count, 2);
    cr_assert_eq(fixture.returned_count, 0);
    fd_close(&silent);
    close_fixture(&fixture);
}

Test(rpc_intake, publishes_since_when_it_has_its_oldest_connection)
{
    struct fixture fixture;
    open_fixture(&fixture);
    cr_assert_eq(oldest_us(&fixture), 0);
    int first = connect_client(&fixture, HELLO, HELLO_SIZE);
    uint64_t first_us = oldest_us(&fixture);
    cr_assert_gt(first_us, 0);
    run_for_ms(&fixture, 3);
    int second = connect_client(&fixture, HELLO, HELLO_SIZE);
    cr_assert_eq(oldest_us(&fixture), first_us);
    fd_close(&first);
    run_for_ms(&fixture, 3);
    cr_assert_gt(oldest_us(&fixture), first_us, "the second one's");
    fd_close(&second);
    run_for_ms(&fixture, 3);
    cr_assert_eq(oldest_us(&fixture), 0);
    close_fixture(&fixture);
}

Test(rpc_intake, counts_the_end_of_a_connection_once)
{
    struct fixture fixture;
    open_fixture(&fixture);
    int client = connect_client(&fixture, HELLO, HELLO_SIZE);
    run_for_ms(&fixture, 3);
    cr_assert_eq(closed_count(&fixture), 0);
    fd_close(&client);
    run_for_ms(&fixture, 5);
    cr_assert_eq(closed_count(&fixture), 1);
    cr_assert_eq(fixture.empty_count, 1);
    cr_assert_eq(rpc_intake_count(fixture.intake), 0);
    fd_close(&fixture.core_fd); /* the C core comes later: no second count */
    run_for_ms(&fixture, 5);
    close_fixture(&fixture);
    cr_assert_eq(closed_count(&fixture), 1);
}

Test(rpc_intake, notices_when_the_core_ends_it)
{
    struct fixture fixture;
    open_fixture(&fixture);
    int client = connect_client(&fixture, HELLO, HELLO_SIZE);
    (void)shutdown(fixture.core_fd, SHUT_RDWR); /* as the C core does before it closes */
    fd_close(&fixture.core_fd);
    run_for_ms(&fixture, 5);
    cr_assert_eq(closed_count(&fixture), 1);
    fd_close(&client);
    close_fixture(&fixture);
}

Test(rpc_intake, turns_away_above_the_limit_and_counts_it)
{
    struct fixture fixture;
    open_fixture(&fixture);
    int clients[3];
    for (size_t i = 0; i < ARRAY_LENGTH(clients); i++)
        clients[i] = connect_client(&fixture, HELLO, HELLO_SIZE);
    cr_assert_eq(fixture.ready_count, 2);
    cr_assert_eq(closed_count(&fixture), 1);
    cr_assert_eq(fixture.returned_count, 1, "another worker may have room");
    for (size_t i = 0; i < ARRAY_LENGTH(clients); i++)
        fd_close(&clients[i]);
    close_fixture(&fixture);
    cr_assert_eq(closed_count(&fixture), 3);
}

Test(rpc_intake, takes_no_more_than_it_has_descriptors_for)
{
    struct rlimit limit;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = 256 + 2 * 10;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    struct fixture fixture;
    open_fixture_for(&fixture, 100);
    int clients[11];
    for (size_t i = 0; i < ARRAY_LENGTH(clients); i++)
        clients[i] = connect_client(&fixture, HELLO, HELLO_SIZE);
    cr_assert_eq(fixture.ready_count, 10);
    cr_assert_eq(fixture.returned_count, 1);
    for (size_t i = 0; i < ARRAY_LENGTH(clients); i++)
        fd_close(&clients[i]);
    close_fixture(&fixture);
}

Test(rpc_intake, returns_a_connection_whose_descriptor_was_cut_off)
{
    struct fixture fixture;
    open_fixture(&fixture);
    int none = -2;
    rpc_intake_add(fixture.intake, LISTENER, 7, &none);
    cr_assert_eq(fixture.settled_count, 1);
    cr_assert_eq(fixture.settled[0], 7);
    cr_assert_eq(fixture.returned_count, 1);
    cr_assert_eq(closed_count(&fixture), 1, "it was passed");
    cr_assert_eq(rpc_intake_count(fixture.intake), 0);
    close_fixture(&fixture);
}

Test(rpc_intake, a_drain_returns_who_waits_and_who_comes)
{
    struct fixture fixture;
    open_fixture(&fixture);
    int served = connect_client(&fixture, HELLO, HELLO_SIZE);
    int waiting = connect_client(&fixture, NULL, 0);
    cr_assert_eq(fixture.settled_count, 1);
    rpc_intake_drain(fixture.intake, false);
    cr_assert_eq(fixture.ready_count, 1);
    cr_assert_eq(fixture.settled_count, 2, "settled once");
    cr_assert_eq(fixture.settled[1], 2);
    cr_assert_eq(fixture.returned_count, 1);
    cr_assert_eq(closed_count(&fixture), 1);
    cr_assert_eq(rpc_intake_count(fixture.intake), 1);
    int late = connect_client(&fixture, HELLO, HELLO_SIZE);
    cr_assert_eq(fixture.ready_count, 1);
    cr_assert_eq(fixture.returned_count, 2);
    cr_assert_eq(closed_count(&fixture), 2);
    fd_close(&served);
    fd_close(&waiting);
    fd_close(&late);
    close_fixture(&fixture);
}

Test(rpc_intake, a_stop_hands_over_who_waits_and_returns_who_comes)
{
    struct fixture fixture;
    open_fixture(&fixture);
    int waiting = connect_client(&fixture, NULL, 0);
    rpc_intake_drain(fixture.intake, true);
    cr_assert_eq(fixture.ready_count, 1);
    int late = connect_client(&fixture, HELLO, HELLO_SIZE);
    cr_assert_eq(fixture.ready_count, 1);
    cr_assert_eq(closed_count(&fixture), 1);
    cr_assert_eq(fixture.settled_count, 2);
    cr_assert_eq(fixture.settled[1], 2);
    cr_assert_eq(fixture.returned_count, 1);
    fd_close(&waiting);
    fd_close(&late);
    close_fixture(&fixture);
}
