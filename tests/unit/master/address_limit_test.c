/* Living connections by client address: real sockets on the loopback, no worker. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/file_descriptor.h"
#include "master/address_limit.h"

#define CAPACITY 4

struct connection {
    int client_fd;
    int worker_fd; /* the only one on the serving side */
};

static struct address_limit *limit;
static int64_t now_us; /* the test's own clock */

static void set_up(void)
{
    now_us = 0;
    cr_assert_eq(address_limit_new(CAPACITY, &limit), 0);
}

static void tear_down(void)
{
    limit = address_limit_free(limit);
}

TestSuite(address_limit, .init = set_up, .fini = tear_down, .timeout = 10);

static struct sockaddr_storage ipv4(const char *text)
{
    struct sockaddr_storage storage = {0};
    struct sockaddr_in address = {.sin_family = AF_INET};
    cr_assert_eq(inet_pton(AF_INET, text, &address.sin_addr), 1);
    memcpy(&storage, &address, sizeof(address));
    return storage;
}

static struct sockaddr_storage ipv6(const char *text)
{
    struct sockaddr_storage storage = {0};
    struct sockaddr_in6 address = {.sin6_family = AF_INET6};
    cr_assert_eq(inet_pton(AF_INET6, text, &address.sin6_addr), 1);
    memcpy(&storage, &address, sizeof(address));
    return storage;
}

/* A connection counted for `address`, whatever its real one is. */
static struct connection given_connection(const struct sockaddr_storage *address, uint32_t slot)
{
    struct sockaddr_in loopback = {.sin_family = AF_INET};
    loopback.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(loopback);
    int listener_fd CLEANUP(fd_close) = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(listener_fd, (const struct sockaddr *)&loopback, length), 0);
    cr_assert_eq(listen(listener_fd, 1), 0);
    cr_assert_eq(getsockname(listener_fd, (struct sockaddr *)&loopback, &length), 0);
    int client_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(client_fd, (const struct sockaddr *)&loopback, length), 0);
    int fd = accept(listener_fd, NULL, NULL);
    cr_assert_geq(fd, 0);
    cr_assert_eq(address_limit_add(limit, fd, (const struct sockaddr *)address, slot, now_us), 0);
    return (struct connection){.client_fd = client_fd, .worker_fd = fd};
}

static unsigned int count(struct sockaddr_storage address)
{
    return address_limit_count(limit, (const struct sockaddr *)&address);
}

static bool allows(struct sockaddr_storage address, unsigned int maximum)
{
    return address_limit_allows(limit, (const struct sockaddr *)&address, maximum, now_us);
}

static void time_passes(void)
{
    now_us += ADDRESS_LIMIT_CHECK_INTERVAL_US;
}

Test(address_limit, counts_each_address_for_itself)
{
    struct sockaddr_storage first = ipv4("192.0.2.1");
    struct sockaddr_storage second = ipv4("192.0.2.2");
    (void)given_connection(&first, 1);
    (void)given_connection(&first, 2);
    (void)given_connection(&second, 1);
    cr_assert_not(allows(first, 2));
    cr_assert(allows(first, 3));
    cr_assert(allows(second, 2));
    cr_assert(allows(ipv4("192.0.2.3"), 1));
}

Test(address_limit, has_room_again_when_the_worker_has_closed_one)
{
    struct sockaddr_storage address = ipv4("192.0.2.1");
    struct connection first = given_connection(&address, 1);
    (void)given_connection(&address, 1);
    cr_assert_not(allows(address, 2));
    fd_close(&first.worker_fd);
    time_passes();
    cr_assert(allows(address, 2));
    cr_assert_eq(count(address), 1);
}

Test(address_limit, has_room_again_when_a_connection_was_reset_and_no_trace_of_it_is_left)
{
    struct sockaddr_storage address = ipv4("192.0.2.1");
    struct connection connection = given_connection(&address, 1);
    const struct linger reset = {.l_onoff = 1};
    cr_assert_eq(setsockopt(connection.worker_fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
    fd_close(&connection.worker_fd);
    cr_assert(allows(address, 1));
}

Test(address_limit, asks_the_kernel_no_more_often_than_it_says)
{
    struct sockaddr_storage address = ipv4("192.0.2.1");
    struct connection only = given_connection(&address, 1);
    cr_assert_not(allows(address, 1));
    fd_close(&only.worker_fd);
    now_us += ADDRESS_LIMIT_CHECK_INTERVAL_US - 1;
    cr_assert_not(allows(address, 1));
    now_us += 1;
    cr_assert(allows(address, 1));
}

Test(address_limit, counts_a_connection_that_the_client_has_left_and_the_worker_has_not)
{
    struct sockaddr_storage address = ipv4("192.0.2.1");
    struct connection connection = given_connection(&address, 1);
    fd_close(&connection.client_fd);
    cr_assert_not(allows(address, 1));
}

Test(address_limit, holds_nothing_open)
{
    struct sockaddr_storage address = ipv4("192.0.2.1");
    struct connection connection = given_connection(&address, 1);
    fd_close(&connection.worker_fd);
    char byte = 0;
    cr_assert_eq(read(connection.client_fd, &byte, 1), 0, "the client sees the end");
}

Test(address_limit, forgets_what_a_dead_worker_held)
{
    struct sockaddr_storage address = ipv4("192.0.2.1");
    (void)given_connection(&address, 1);
    (void)given_connection(&address, 2);
    (void)given_connection(&address, 1);
    address_limit_forget_slot(limit, 1);
    cr_assert_eq(count(address), 1);
    address_limit_forget_slot(limit, 2);
    cr_assert_eq(count(address), 0);
}

Test(address_limit, counts_a_connection_that_goes_from_worker_to_worker_once)
{
    struct sockaddr_storage address = ipv4("192.0.2.1");
    struct sockaddr_storage other = ipv4("192.0.2.2");
    struct connection first = given_connection(&address, 1);
    struct connection second = given_connection(&address, 1);
    address_limit_remove(limit, first.worker_fd, (const struct sockaddr *)&other);
    cr_assert_eq(count(address), 2);
    for (uint32_t slot = 2; slot < 2 + 2 * CAPACITY; slot++) {
        address_limit_remove(limit, first.worker_fd, (const struct sockaddr *)&address);
        cr_assert_eq(count(address), 1);
        address_limit_remove(limit, first.worker_fd, (const struct sockaddr *)&address);
        cr_assert_eq(count(address), 1, "it was struck out already");
        cr_assert_eq(address_limit_add(
                         limit, first.worker_fd, (const struct sockaddr *)&address, slot, now_us),
            0);
        cr_assert_eq(count(address), 2);
    }
    address_limit_remove(limit, first.worker_fd, (const struct sockaddr *)&address);
    address_limit_remove(limit, second.worker_fd, (const struct sockaddr *)&address);
    cr_assert_eq(count(address), 0);
}

Test(address_limit, uses_its_room_again_and_says_when_there_is_none)
{
    struct sockaddr_storage address = ipv4("192.0.2.1");
    struct connection connections[CAPACITY];
    for (int round = 0; round < 3; round++) {
        time_passes();
        for (int i = 0; i < CAPACITY; i++)
            connections[i] = given_connection(&address, 1);
        time_passes();
        cr_assert_eq(address_limit_add(limit, connections[0].worker_fd,
                         (const struct sockaddr *)&address, 1, now_us),
            -ENOSPC);
        for (int i = 0; i < CAPACITY; i++)
            fd_close(&connections[i].worker_fd);
    }
}

Test(address_limit, grows_without_losing_count)
{
    struct sockaddr_storage address = ipv4("192.0.2.1");
    for (int i = 0; i < CAPACITY; i++)
        (void)given_connection(&address, 1);
    cr_assert_eq(address_limit_reserve(limit, CAPACITY + 2), 0);
    (void)given_connection(&address, 1);
    cr_assert_eq(count(address), CAPACITY + 1);
}

Test(address_limit, takes_an_ipv6_network_for_one_address_and_a_mapped_ipv4_for_itself)
{
    struct sockaddr_storage host = ipv6("2001:db8:1:2::1");
    struct sockaddr_storage mapped = ipv6("::ffff:192.0.2.1");
    (void)given_connection(&host, 1);
    (void)given_connection(&mapped, 1);
    cr_assert_eq(count(ipv6("2001:db8:1:2:3:4:5:6")), 1);
    cr_assert_eq(count(ipv6("2001:db8:1:3::1")), 0);
    cr_assert_eq(count(ipv4("192.0.2.1")), 1);
    cr_assert_eq(count(ipv6("::ffff:192.0.2.2")), 0);
}

Test(address_limit, agrees_with_plain_counting_as_addresses_come_and_go)
{
    enum { ADDRESSES = 7, LIVING = CAPACITY, ROUNDS = 300 };
    const char *const texts[ADDRESSES] = {
        "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "192.0.2.6", "192.0.2.7"};
    struct connection living[LIVING] = {0};
    unsigned int owner[LIVING] = {0};
    unsigned int expected[ADDRESSES] = {0};
    for (unsigned int round = 0; round < ROUNDS; round++) {
        unsigned int place = round % LIVING;
        time_passes();
        if (round >= LIVING) {
            fd_close(&living[place].worker_fd);
            fd_close(&living[place].client_fd);
            (void)allows(ipv4(texts[owner[place]]), 1);
            expected[owner[place]]--;
        }
        owner[place] = (round * round / 3 + round) % ADDRESSES;
        struct sockaddr_storage address = ipv4(texts[owner[place]]);
        living[place] = given_connection(&address, 1);
        expected[owner[place]]++;
        for (unsigned int i = 0; i < ADDRESSES; i++)
            cr_assert_eq(count(ipv4(texts[i])), expected[i], "round %u address %u", round, i);
    }
}
