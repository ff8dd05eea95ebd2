/* Connections that no worker has taken yet, and who has them. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "common/file_descriptor.h"
#include "master/passed_connections.h"

#define CAPACITY 4

static struct passed_connections *connections;

static void init(void)
{
    cr_assert_eq(passed_connections_new(CAPACITY, &connections), 0);
}

static void fini(void)
{
    connections = passed_connections_free(connections);
}

TestSuite(passed_connections, .init = init, .fini = fini);

/* The client's end in *ret_client; the other one is kept. */
static struct passed_connection *given_connection(int *ret_client)
{
    int fds[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    struct passed_connection *connection = passed_connections_add(connections, &fds[1], 3, 7);
    *ret_client = fds[0];
    cr_assert((connection == NULL) == (fds[1] >= 0), "taken when there is room");
    fd_close(&fds[1]);
    return connection;
}

static bool has_ended(int client)
{
    char byte;
    return recv(client, &byte, 1, MSG_DONTWAIT) == 0;
}

Test(passed_connections, keeps_one_open_until_it_is_removed)
{
    int client;
    struct passed_connection *connection = given_connection(&client);
    cr_assert_eq(connection->listener, 3);
    cr_assert_eq(connection->arrangement, 7);
    cr_assert_eq(connection->slot, PASSED_CONNECTION_NOBODY);
    uint64_t number = connection->number;
    cr_assert_eq(passed_connections_find(connections, number), connection);
    cr_assert_not(has_ended(client));
    passed_connections_remove(connections, connection);
    cr_assert(has_ended(client));
    cr_assert_null(passed_connections_find(connections, number));
    fd_close(&client);
}

Test(passed_connections, a_number_is_never_used_again)
{
    int clients[2];
    struct passed_connection *first = given_connection(&clients[0]);
    uint64_t number = first->number;
    passed_connections_remove(connections, first);
    struct passed_connection *second = given_connection(&clients[1]);
    cr_assert_eq(second, first, "the place is");
    cr_assert_gt(second->number, number);
    cr_assert_null(passed_connections_find(connections, number));
    cr_assert_null(passed_connections_find(connections, 0));
    cr_assert_null(passed_connections_find(connections, UINT64_MAX));
    fd_close(&clients[0]);
    fd_close(&clients[1]);
}

Test(passed_connections, those_of_a_dead_worker_wait_in_the_order_in_which_they_came)
{
    int clients[CAPACITY];
    struct passed_connection *passed[CAPACITY];
    for (size_t i = 0; i < CAPACITY; i++)
        passed[i] = given_connection(&clients[i]);
    passed_connections_remove(connections, passed[0]); /* so that a younger one has its place */
    fd_close(&clients[0]);
    passed[0] = given_connection(&clients[0]);
    for (size_t i = 0; i < CAPACITY; i++)
        passed_connections_give(connections, passed[i], i == 2 ? 2 : 1);
    cr_assert_eq(passed_connections_waiting(connections), 0);
    cr_assert_null(passed_connections_first_waiting(connections));

    cr_assert_eq(passed_connections_take_back(connections, 1), 3);
    cr_assert_eq(passed_connections_waiting(connections), 3);
    const size_t order[] = {1, 3, 0};
    for (size_t i = 0; i < ARRAY_LENGTH(order); i++) {
        struct passed_connection *first = passed_connections_first_waiting(connections);
        cr_assert_eq(first, passed[order[i]]);
        passed_connections_give(connections, first, 2);
    }
    cr_assert_eq(passed_connections_waiting(connections), 0);
    cr_assert_eq(passed_connections_take_back(connections, 1), 0, "nothing is its any more");
    for (size_t i = 0; i < CAPACITY; i++)
        fd_close(&clients[i]);
}

Test(passed_connections, is_bounded_and_grows_when_told)
{
    int clients[CAPACITY + 2];
    for (size_t i = 0; i < CAPACITY; i++)
        cr_assert_not_null(given_connection(&clients[i]));
    uint64_t number = passed_connections_first_waiting(connections)->number;
    cr_assert_null(given_connection(&clients[CAPACITY]));
    cr_assert_eq(passed_connections_waiting(connections), CAPACITY);
    cr_assert_eq(passed_connections_reserve(connections, CAPACITY + 1), 0);
    cr_assert_eq(passed_connections_reserve(connections, 1), 0, "never shrinks");
    cr_assert_not_null(given_connection(&clients[CAPACITY + 1]));
    cr_assert_eq(passed_connections_first_waiting(connections)->number, number);
    connections = passed_connections_free(connections);
    for (size_t i = 0; i < ARRAY_LENGTH(clients); i++) {
        cr_assert(has_ended(clients[i]));
        fd_close(&clients[i]);
    }
}

Test(passed_connections, remembers_who_had_no_room_until_that_one_is_gone)
{
    int client;
    struct passed_connection *connection = given_connection(&client);
    const uint32_t last = SCOREBOARD_SLOTS - 1;
    for (uint32_t slot = 0; slot < SCOREBOARD_SLOTS; slot++)
        cr_assert_not(passed_connections_is_refused_by(connection, slot));
    for (uint32_t slot = 1; slot < SCOREBOARD_SLOTS; slot++) {
        passed_connections_give(connections, connection, slot);
        passed_connections_refuse(connections, connection);
        cr_assert_eq(connection->slot, PASSED_CONNECTION_NOBODY);
        cr_assert_eq(passed_connections_waiting(connections), 1);
    }
    cr_assert_eq(passed_connections_take_back(connections, 2), 0);
    cr_assert_eq(passed_connections_take_back(connections, last), 0);
    for (uint32_t slot = 0; slot < SCOREBOARD_SLOTS; slot++)
        cr_assert_eq(passed_connections_is_refused_by(connection, slot),
            slot != 0 && slot != 2 && slot != last, "slot %u", slot);
    passed_connections_remove(connections, connection);
    fd_close(&client);
    connection = given_connection(&client);
    cr_assert_not(passed_connections_is_refused_by(connection, 1), "of the former in its place");
    fd_close(&client);
}

/* The count goes round; a number that were 0 would be taken for a free place, and its descriptor
 * lost. */
Test(passed_connections, a_number_is_never_0_when_the_count_goes_round)
{
    passed_connections_set_count(connections, (UINT64_C(1) << 40) - 2);
    uint64_t numbers[CAPACITY];
    for (size_t i = 0; i < CAPACITY; i++) {
        int client;
        struct passed_connection *connection = given_connection(&client);
        cr_assert_neq(connection->number, 0);
        cr_assert_eq(passed_connections_find(connections, connection->number), connection);
        numbers[i] = connection->number;
        for (size_t j = 0; j < i; j++)
            cr_assert_neq(numbers[j], numbers[i]);
        passed_connections_remove(connections, connection);
        cr_assert(has_ended(client), "its descriptor is lost");
        fd_close(&client);
    }
}

/* 71.6 minutes after the machine's start a count of microseconds is over 2^32. */
Test(passed_connections, a_number_is_not_used_again_after_2_32_of_them)
{
    int client;
    passed_connections_set_count(connections, 7);
    struct passed_connection *connection = given_connection(&client);
    uint64_t number = connection->number;
    passed_connections_remove(connections, connection);
    fd_close(&client);
    passed_connections_set_count(connections, (UINT64_C(1) << 32) + 7);
    connection = given_connection(&client);
    cr_assert_neq(connection->number, number);
    fd_close(&client);
}

Test(passed_connections, are_restored_under_their_numbers)
{
    int clients[CAPACITY];
    struct passed_connection *passed[CAPACITY];
    for (size_t i = 0; i < CAPACITY; i++)
        passed[i] = given_connection(&clients[i]);
    passed_connections_give(connections, passed[2], 5);
    passed_connections_remove(connections, passed[0]);
    fd_close(&clients[0]);
    uint64_t with_worker = passed[2]->number;
    uint64_t waiting = passed[3]->number;

    struct passed_connections *next = NULL;
    cr_assert_eq(passed_connections_new(CAPACITY, &next), 0);
    passed_connections_set_count(next, passed_connections_count(connections));
    size_t count = 0;
    for (const struct passed_connection *one = passed_connections_next(connections, NULL);
         one != NULL; one = passed_connections_next(connections, one)) {
        struct passed_connection copy = *one;
        copy.fd = fcntl(one->fd, F_DUPFD_CLOEXEC, 0);
        cr_assert_eq(passed_connections_restore(next, &copy), 0);
        cr_assert_eq(passed_connections_restore(next, &copy), -EEXIST);
        count++;
    }
    cr_assert_eq(count, CAPACITY - 1);
    cr_assert_eq(passed_connections_waiting(next), 2);
    cr_assert_eq(passed_connections_find(next, with_worker)->slot, 5);
    cr_assert_eq(passed_connections_find(next, waiting)->slot, PASSED_CONNECTION_NOBODY);
    int fds[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    struct passed_connection *added = passed_connections_add(next, &fds[0], 0, 0);
    cr_assert_not_null(added, "the free place is lost");
    cr_assert_gt(added->number, waiting);
    cr_assert_null(passed_connections_add(next, &fds[1], 0, 0));
    fd_close(&fds[1]);
    const struct passed_connection nonsense = {.fd = -1, .number = CAPACITY};
    cr_assert_eq(passed_connections_restore(next, &nonsense), -EPROTO);
    (void)passed_connections_free(next);
    for (size_t i = 1; i < CAPACITY; i++)
        fd_close(&clients[i]);
}
