#include "master/passed_connections.h"

#include <errno.h>
#include <stdlib.h>

#include "common/file_descriptor.h"
#include "common/monotonic_clock.h"

#define NONE UINT32_MAX

/* A number is a count above its place: it finds its place by itself, and is never used twice. */
#define PLACE_BITS 32

struct passed_connections {
    struct passed_connection *places; /* owned */
    uint32_t capacity;
    uint32_t used;       /* places from here on were never written: they cost no memory yet */
    uint32_t first_free; /* of those that were; the next one is in its `slot` */
    uint64_t count;      /* in the last number */
    size_t waiting;
};

int passed_connections_reserve(struct passed_connections *connections, size_t capacity)
{
    if (capacity <= connections->capacity)
        return 0;
    if (capacity >= NONE)
        return -EINVAL;
    struct passed_connection *places =
        reallocarray(connections->places, capacity, sizeof(*connections->places));
    if (places == NULL)
        return -ENOMEM;
    connections->places = places;
    connections->capacity = (uint32_t)capacity;
    return 0;
}

int passed_connections_new(size_t capacity, struct passed_connections **ret_connections)
{
    struct passed_connections *connections = calloc(1, sizeof(*connections));
    if (connections == NULL)
        return -ENOMEM;
    connections->first_free = NONE;
    /* Workers outlive a master that replaces itself, and may still answer for a number of its. The
     * clock is ahead of any count: nobody passes a connection each microsecond. */
    connections->count = monotonic_clock_us();
    int result = passed_connections_reserve(connections, capacity);
    if (result < 0) {
        (void)passed_connections_free(connections);
        return result;
    }
    *ret_connections = connections;
    return 0;
}

struct passed_connections *passed_connections_free(struct passed_connections *connections)
{
    if (connections == NULL)
        return NULL;
    for (uint32_t i = 0; i < connections->used; i++)
        if (connections->places[i].number != 0)
            fd_close(&connections->places[i].fd);
    free(connections->places);
    free(connections);
    return NULL;
}

struct passed_connection *passed_connections_add(
    struct passed_connections *connections, int *fd, uint32_t listener, uint32_t arrangement)
{
    uint32_t place = connections->first_free;
    if (place != NONE)
        connections->first_free = connections->places[place].slot;
    else if (connections->used < connections->capacity)
        place = connections->used++;
    else
        return NULL;
    struct passed_connection *connection = &connections->places[place];
    *connection = (struct passed_connection){
        .fd = fd_take(fd),
        .listener = listener,
        .arrangement = arrangement,
        .slot = PASSED_CONNECTION_NOBODY,
        .number = ++connections->count << PLACE_BITS | place,
    };
    connections->waiting++;
    return connection;
}

struct passed_connection *passed_connections_find(
    struct passed_connections *connections, uint64_t number)
{
    uint32_t place = (uint32_t)number; /* its lower half */
    if (place >= connections->used || number == 0 || connections->places[place].number != number)
        return NULL;
    return &connections->places[place];
}

void passed_connections_give(
    struct passed_connections *connections, struct passed_connection *connection, uint32_t slot)
{
    connections->waiting -= connection->slot == PASSED_CONNECTION_NOBODY ? 1 : 0;
    connections->waiting += slot == PASSED_CONNECTION_NOBODY ? 1 : 0;
    connection->slot = slot;
}

static uint64_t slot_bit(uint32_t slot)
{
    return UINT64_C(1) << slot % PASSED_CONNECTION_WORD_BITS;
}

void passed_connections_refuse(
    struct passed_connections *connections, struct passed_connection *connection)
{
    connection->full_slots[connection->slot / PASSED_CONNECTION_WORD_BITS] |=
        slot_bit(connection->slot);
    passed_connections_give(connections, connection, PASSED_CONNECTION_NOBODY);
}

bool passed_connections_is_refused_by(const struct passed_connection *connection, uint32_t slot)
{
    return (connection->full_slots[slot / PASSED_CONNECTION_WORD_BITS] & slot_bit(slot)) != 0;
}

void passed_connections_remove(
    struct passed_connections *connections, struct passed_connection *connection)
{
    connections->waiting -= connection->slot == PASSED_CONNECTION_NOBODY ? 1 : 0;
    fd_close(&connection->fd);
    connection->number = 0;
    connection->slot = connections->first_free;
    connections->first_free = (uint32_t)(connection - connections->places);
}

size_t passed_connections_take_back(struct passed_connections *connections, uint32_t slot)
{
    size_t taken = 0;
    for (uint32_t i = 0; i < connections->used; i++) {
        struct passed_connection *connection = &connections->places[i];
        connection->full_slots[slot / PASSED_CONNECTION_WORD_BITS] &= ~slot_bit(slot);
        if (connection->number == 0 || connection->slot != slot)
            continue;
        passed_connections_give(connections, connection, PASSED_CONNECTION_NOBODY);
        taken++;
    }
    return taken;
}

struct passed_connection *passed_connections_first_waiting(struct passed_connections *connections)
{
    struct passed_connection *first = NULL;
    for (uint32_t i = 0; i < connections->used && connections->waiting > 0; i++) {
        struct passed_connection *connection = &connections->places[i];
        if (connection->number != 0 && connection->slot == PASSED_CONNECTION_NOBODY &&
            (first == NULL || connection->number < first->number))
            first = connection;
    }
    return first;
}

size_t passed_connections_waiting(const struct passed_connections *connections)
{
    return connections->waiting;
}
