/* The thread that looks after connections: what each does is judged (rpc_guard.h) a hundred times a
 * second while it does anything, and who goes too far is cut off.
 *
 * A thread of its own, which calls nothing of the C core: a client that floods can keep any thread
 * that does there for seconds.
 */
#ifndef USERD_WORKER_RPC_RPC_WATCH_H
#define USERD_WORKER_RPC_RPC_WATCH_H

#include "common/attributes.h"
#include "common/scoreboard.h"
#include "common/settings.h"
#include "worker/rpc/rpc_peer.h"

struct rpc_watch;
struct rpc_watch_entry;

/* Starts the thread. */
MUST_CHECK int rpc_watch_new(
    const struct settings *settings, struct scoreboard_slot *slot, struct rpc_watch **ret_watch);
/* Every entry must have been removed. NULL is fine; returns NULL. */
struct rpc_watch *rpc_watch_free(struct rpc_watch *watch);

/* Where the master says when connections were short for the last time (scoreboard.h). Before the
 * first connection. */
void rpc_watch_set_shortage(struct rpc_watch *watch, const _Atomic uint64_t *short_at_us);

/* Looks after the connection behind `fd` from now on. NULL when there are no resources (logged): it
 * goes unwatched. */
struct rpc_watch_entry *rpc_watch_add(struct rpc_watch *watch, int fd, struct rpc_peer *peer);
/* Before the fd and the peer are closed. NULL is fine. */
void rpc_watch_remove(struct rpc_watch_entry *entry);

#endif
