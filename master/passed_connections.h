/* Connections on their way to a worker: passed to it, and not taken by it yet.
 *
 * A worker that dies leaves unread what is in its channel, and unserved what has not said its first
 * bytes; nothing of such a connection has been read by anyone. So a descriptor of each is kept here
 * until its worker says that it has taken it, and can go to another worker when that one does not
 * live to say so. Never reads a byte of one. Bounded by `capacity`.
 */
#ifndef USERD_MASTER_PASSED_CONNECTIONS_H
#define USERD_MASTER_PASSED_CONNECTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/attributes.h"
#include "common/scoreboard.h"

#define PASSED_CONNECTION_NOBODY    UINT32_MAX
#define PASSED_CONNECTION_WORD_BITS 64
#define PASSED_CONNECTION_WORDS \
    ((SCOREBOARD_SLOTS + PASSED_CONNECTION_WORD_BITS - 1) / PASSED_CONNECTION_WORD_BITS)

struct passed_connections;

struct passed_connection {
    int fd;               /* owned */
    uint32_t listener;    /* number */
    uint32_t arrangement; /* of the listeners that the number is one of (listener_set.h) */
    uint32_t slot;        /* of the worker that it was passed to; PASSED_CONNECTION_NOBODY: none */
    uint64_t number;      /* by which master and worker speak of it; 0: this place is free */
    uint64_t full_slots[PASSED_CONNECTION_WORDS]; /* a bit for each whose worker had no room */
};

/* 0 or -ENOMEM. */
MUST_CHECK int passed_connections_new(size_t capacity, struct passed_connections **ret_connections);
/* Makes room for `capacity` (below 2^24); never shrinks. -ENOMEM: all stays as it was. */
MUST_CHECK int passed_connections_reserve(struct passed_connections *connections, size_t capacity);
/* Closes all. NULL is fine. Always returns NULL. */
struct passed_connections *passed_connections_free(struct passed_connections *connections);

/* Keeps *fd, which is taken, for nobody yet. NULL when there is no room. The pointer is good until
 * the next reserve. */
struct passed_connection *passed_connections_add(
    struct passed_connections *connections, int *fd, uint32_t listener, uint32_t arrangement);
/* NULL: it is not here. */
struct passed_connection *passed_connections_find(
    struct passed_connections *connections, uint64_t number);
/* Says who has it now: the worker in `slot`, or PASSED_CONNECTION_NOBODY. */
void passed_connections_give(
    struct passed_connections *connections, struct passed_connection *connection, uint32_t slot);
/* Its worker has no room for it: it waits for another. */
void passed_connections_refuse(
    struct passed_connections *connections, struct passed_connection *connection);
/* Whether the worker in `slot` has said that it has no room for it. */
bool passed_connections_is_refused_by(const struct passed_connection *connection, uint32_t slot);
/* Closes our descriptor of it and forgets it. */
void passed_connections_remove(
    struct passed_connections *connections, struct passed_connection *connection);
/* The worker in `slot` is no more: its connections wait for another, and whoever comes into the
 * slot may have room for those that it had none for. Returns how many it had. */
size_t passed_connections_take_back(struct passed_connections *connections, uint32_t slot);
/* How many wait for somebody to take them, and the one that came first; NULL: none waits. */
size_t passed_connections_waiting(const struct passed_connections *connections);
struct passed_connection *passed_connections_first_waiting(struct passed_connections *connections);

/* ---- over an upgrade of the master ---- */

/* The one behind `previous` (NULL: the first); NULL: there are no more. */
const struct passed_connection *passed_connections_next(
    const struct passed_connections *connections, const struct passed_connection *previous);
/* Goes on with one of the master before, under the number that its worker knows. Takes its
 * descriptor on success. -EPROTO: no such number; -EEXIST: it is there already. */
MUST_CHECK int passed_connections_restore(
    struct passed_connections *connections, const struct passed_connection *saved);
/* What the numbers are made of: the next master goes on from there. */
uint64_t passed_connections_count(const struct passed_connections *connections);
void passed_connections_set_count(struct passed_connections *connections, uint64_t count);

#endif
