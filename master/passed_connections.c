#include "master/passed_connections.h"

#include <errno.h>
#include <stdlib.h>

#include "common/file_descriptor.h"
#include "common/monotonic_clock.h"

#define NONE UINT32_MAX

/* A number is a count above its place: it finds its place by itself, and is not used again before
 * the count has gone round. The count is never 0, and so neither is a number: that means a free
 * place. */
#define PLACE_BITS 24
#define PLACE_MASK ((UINT64_C(1) << PLACE_BITS) - 1)
#define COUNT_MASK ((UINT64_C(1) << (64 - PLACE_BITS)) - 1)

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
    if (capacity > PLACE_MASK)
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
    /* Workers outlive a master that replaces itself, and may still answer for a number of its.
     * Where its count is not known the clock is ahead of it: nobody passes a connection each
     * microsecond.
     */
    passed_connections_set_count(connections, monotonic_clock_us());
    int result = passed_connections_reserve(connections, capacity);
    if (result < 0) {
        (void)passed_connections_free(connections);
        return result;
    }
    *ret_connections = connections;
    return 0;
}

uint64_t passed_connections_count(const struct passed_connections *connections)
{
    return connections->count;
}

void passed_connections_set_count(struct passed_connections *connections, uint64_t count)
{
    connections->count = count & COUNT_MASK;
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

static uint64_t next_number(struct passed_connections *connections, uint32_t place)
{
    do {
        connections->count = (connections->count + 1) & COUNT_MASK;
    } while (connections->count == 0);
    return connections->count << PLACE_BITS | place;
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
        .number = next_number(connections, place),
    };
    connections->waiting++;
    return connection;
}

static void free_place(struct passed_connections *connections, uint32_t place)
{
    connections->places[place].number = 0;
    connections->places[place].slot = connections->first_free;
    connections->first_free = place;
}

/* Out of the list of those that were used and are free. */
static void take_free_place(struct passed_connections *connections, uint32_t place)
{
    uint32_t *link = &connections->first_free;
    while (*link != place && *link != NONE)
        link = &connections->places[*link].slot;
    if (*link == place)
        *link = connections->places[place].slot;
}

int passed_connections_restore(
    struct passed_connections *connections, const struct passed_connection *saved)
{
    uint32_t place = (uint32_t)(saved->number & PLACE_MASK);
    if (saved->number == 0 || place >= connections->capacity)
        return -EPROTO;
    while (connections->used <= place)
        free_place(connections, connections->used++);
    struct passed_connection *connection = &connections->places[place];
    if (connection->number != 0)
        return -EEXIST;
    take_free_place(connections, place);
    *connection = *saved;
    connections->waiting += saved->slot == PASSED_CONNECTION_NOBODY ? 1 : 0;
    return 0;
}

const struct passed_connection *passed_connections_next(
    const struct passed_connections *connections, const struct passed_connection *previous)
{
    uint32_t place = previous == NULL ? 0 : (uint32_t)(previous - connections->places) + 1;
    while (place < connections->used && connections->places[place].number == 0)
        place++;
    return place < connections->used ? &connections->places[place] : NULL;
}

struct passed_connection *passed_connections_find(
    struct passed_connections *connections, uint64_t number)
{
    uint32_t place = (uint32_t)(number & PLACE_MASK);
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
    free_place(connections, (uint32_t)(connection - connections->places));
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
