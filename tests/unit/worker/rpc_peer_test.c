/* The names and the shares of connections. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "common/file_descriptor.h"
#include "worker/rpc/rpc_peer.h"

#define LIMIT 100

static struct rpc_peer_set set;

static void init(void)
{
    struct settings settings = {0};
    settings.limits.queued_calls = LIMIT;
    settings.limits.held_megabytes = 8;
    rpc_peer_set_init(&set, &settings);
}

static void fini(void)
{
    rpc_peer_set_cleanup(&set);
}

TestSuite(rpc_peer, .init = init, .fini = fini);

/* As many calls as are within its share. */
static int take_share(struct rpc_peer *peer)
{
    for (int count = 0;; count++) {
        rpc_peer_add_arrived(peer);
        if (rpc_peer_refusal(peer) == NULL)
            continue;
        rpc_peer_add_answered(peer, false, 0, 0);
        rpc_peer_add_finished(peer, 0);
        return count;
    }
}

static void give_back(struct rpc_peer *peer, int count)
{
    for (int i = 0; i < count; i++) {
        rpc_peer_add_answered(peer, true, 0, 0);
        rpc_peer_add_finished(peer, 0);
    }
}

Test(rpc_peer, leaves_room_for_the_others)
{
    struct rpc_peer *first = rpc_peer_open(&set, 0, "fd:1");
    struct rpc_peer *second = rpc_peer_open(&set, 0, "fd:2");
    struct rpc_peer *third = rpc_peer_open(&set, 0, "fd:3");
    int of_first = take_share(first);
    int of_second = take_share(second);
    cr_assert_eq(of_first, LIMIT / 2);
    cr_assert_eq(of_second, LIMIT / 4);
    cr_assert_geq(take_share(third), LIMIT / 10, "who floods takes all");
    cr_assert_eq(take_share(first), 0);
    give_back(first, of_first);
    cr_assert_geq(take_share(first), LIMIT / 8);
    rpc_peer_close(first);
    rpc_peer_close(second);
    rpc_peer_close(third);
}

Test(rpc_peer, does_not_count_what_is_not_read_as_waiting)
{
    struct rpc_peer *reader = rpc_peer_open(&set, 0, "fd:1");
    struct rpc_peer *slow = rpc_peer_open(&set, 0, "fd:2");
    int count = take_share(slow);
    for (int i = 0; i < count; i++)
        rpc_peer_add_answered(slow, true, 0, 0);
    rpc_peer_add_arrived(slow);
    rpc_peer_add_answered(slow, true, 0, 0);
    cr_assert_eq(take_share(slow), 0, "its answers must be read first");
    cr_assert_eq(take_share(reader), LIMIT / 2);
    rpc_peer_close(reader);
    rpc_peer_close(slow);
}

Test(rpc_peer, bounds_the_bytes_of_answers)
{
    struct rpc_peer *slow = rpc_peer_open(&set, 0, "fd:1");
    struct rpc_peer *other = rpc_peer_open(&set, 0, "fd:2");
    size_t megabyte = (size_t)1024 * 1024;
    int count = 0;
    for (; rpc_peer_has_room(slow, megabyte); count++) {
        rpc_peer_add_arrived(slow);
        rpc_peer_add_answered(slow, true, 0, megabyte);
    }
    cr_assert_eq(count, 4, "half of what there is");
    cr_assert(rpc_peer_has_room(other, megabyte));
    cr_assert(rpc_peer_has_room(slow, 10), "small answers count as calls");
    for (int i = 0; i < count; i++)
        rpc_peer_add_finished(slow, megabyte);
    cr_assert(rpc_peer_has_room(slow, megabyte));
    rpc_peer_close(slow);
    rpc_peer_close(other);
}

Test(rpc_peer, is_found_by_listener_and_name_as_long_as_it_lives)
{
    struct rpc_peer *one = rpc_peer_open(&set, 0, "ipv4:127.0.0.1:1");
    struct rpc_peer *other = rpc_peer_open(&set, 1, "ipv4:127.0.0.1:1");
    struct rpc_peer *found = rpc_peer_find(&set, 1, "ipv4:127.0.0.1:1");
    cr_assert_eq(found, other);
    cr_assert_neq(one->number, other->number);
    rpc_peer_close(other);
    struct rpc_peer *unknown = rpc_peer_find(&set, 1, "ipv4:127.0.0.1:1");
    cr_assert_eq(unknown->number, 0);
    uint32_t number = found->number;
    struct rpc_peer *next = rpc_peer_open(&set, 1, "ipv4:127.0.0.1:2");
    cr_assert_neq(next->number, number, "a call still has it");
    rpc_peer_release(found);
    rpc_peer_release(unknown);
    rpc_peer_close(one);
    rpc_peer_close(next);
}

/* The name that the server's end of a new connection to this address gets. */
static void name_connection(
    const struct sockaddr *address, socklen_t length, char *ret_name, uint16_t *ret_port)
{
    struct sockaddr_storage bound = {0};
    socklen_t bound_length = sizeof(bound);
    int listener CLEANUP(fd_close) = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int client CLEANUP(fd_close) = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(listener, address, length), 0);
    cr_assert_eq(listen(listener, 1), 0);
    cr_assert_eq(getsockname(listener, (struct sockaddr *)(void *)&bound, &bound_length), 0);
    cr_assert_eq(connect(client, (struct sockaddr *)(void *)&bound, bound_length), 0);
    int server CLEANUP(fd_close) = accept(listener, NULL, NULL);
    cr_assert(rpc_peer_write_name(server, false, ret_name));
    bound_length = sizeof(bound);
    cr_assert_eq(getsockname(client, (struct sockaddr *)(void *)&bound, &bound_length), 0);
    struct sockaddr_in parts = {0};
    memcpy(&parts, &bound, sizeof(parts));
    *ret_port = ntohs(parts.sin_port); /* where IPv6 has it too */
}

Test(rpc_peer, is_named_as_the_c_core_names_it)
{
    char name[RPC_PEER_NAME_BYTES];
    char expected[RPC_PEER_NAME_BYTES];
    uint16_t port = 0;
    const struct sockaddr_in ipv4 = {
        .sin_family = AF_INET, .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    name_connection((const struct sockaddr *)(const void *)&ipv4, sizeof(ipv4), name, &port);
    (void)snprintf(expected, sizeof(expected), "ipv4:127.0.0.1:%u", port);
    cr_assert_str_eq(name, expected);
    const struct sockaddr_in6 ipv6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    name_connection((const struct sockaddr *)(const void *)&ipv6, sizeof(ipv6), name, &port);
    (void)snprintf(expected, sizeof(expected), "ipv6:%%5B::1%%5D:%u", port);
    cr_assert_str_eq(name, expected);
    cr_assert(rpc_peer_write_name(7, true, name));
    cr_assert_str_eq(name, "fd:7");
}

/* ---- names that somebody chose ---- */

#define NAMES 4000

static char names[2][NAMES][RPC_PEER_NAME_BYTES];

/* FNV-1a, which anybody can compute. */
static uint32_t open_hash_of(const char *name)
{
    uint32_t hash = UINT32_C(2166136261);
    for (; *name != '\0'; name++)
        hash = (hash ^ (unsigned char)*name) * UINT32_C(16777619);
    return hash;
}

/* CPU time of this thread for connections of these names, each looked for once. */
static int64_t cost_of(char (*of)[RPC_PEER_NAME_BYTES])
{
    static struct rpc_peer *peers[NAMES];
    for (int i = 0; i < NAMES; i++)
        peers[i] = rpc_peer_open(&set, 0, of[i]);
    struct timespec start;
    struct timespec end;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
    for (int i = 0; i < NAMES; i++) {
        struct rpc_peer *found = rpc_peer_find(&set, 0, of[i]);
        cr_assert_eq(found, peers[i]);
        rpc_peer_release(found);
    }
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
    for (int i = 0; i < NAMES; i++)
        rpc_peer_close(peers[i]);
    return (end.tv_sec - start.tv_sec) * 1000000 + (end.tv_nsec - start.tv_nsec) / 1000;
}

Test(rpc_peer, finds_connections_that_were_chosen_to_meet_as_any_others)
{
    int chosen = 0;
    int others = 0;
    for (unsigned int i = 0; chosen < NAMES; i++) {
        char name[RPC_PEER_NAME_BYTES];
        (void)snprintf(name, sizeof(name), "ipv4:10.%u.%u.%u:%u", i >> 22 & 255, i >> 14 & 255,
            i >> 6 & 255, 1024 + (i & 63));
        if (open_hash_of(name) % RPC_PEER_BUCKETS == 0)
            memcpy(names[0][chosen++], name, sizeof(name));
        else if (others < NAMES)
            memcpy(names[1][others++], name, sizeof(name));
    }
    (void)cost_of(names[1]); /* warm */
    int64_t usual_us = cost_of(names[1]);
    int64_t chosen_us = cost_of(names[0]);
    cr_assert_lt(chosen_us, 10 * (usual_us + 100), "%lld us against %lld", (long long)chosen_us,
        (long long)usual_us);
}
