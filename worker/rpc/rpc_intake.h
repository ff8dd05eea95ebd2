/* Connections between the master and the C core: waits for a connection's first bytes, hands it
 * over, and notices its end.
 *
 * Of each the master is told, before a byte is read, that it has been taken (or has ended), so that
 * it can forget it; what comes while draining, or when there is no room for it, is returned
 * instead, for another worker.
 *
 * Owns one descriptor of its own for each connection (a dup of the C core's), which lives exactly
 * as long as the connection: closing it is when `closed` on the scoreboard is counted, once for
 * each descriptor that the master has passed, also for those that are turned away. A peer that does
 * not send the HTTP/2 preface in time never reaches the C core. Bounded by limits.connections and
 * by the descriptors that there are for them. Loop thread.
 */
#ifndef USERD_WORKER_RPC_RPC_INTAKE_H
#define USERD_WORKER_RPC_RPC_INTAKE_H

#include <systemd/sd-event.h>

#include "common/attributes.h"
#include "common/scoreboard.h"
#include "common/settings.h"
#include "worker/rpc/rpc_peer.h"

struct rpc_intake;

struct rpc_intake_handlers {
    /* The connection speaks: it is the C core's now. Takes the fd. Returns the connection as its
     * calls see it, which is closed with it. */
    struct rpc_peer *(*on_ready)(uint32_t listener, int fd, void *userdata);
    /* It is about to be the C core's, has ended, or (returned) is none of ours. Once for each
     * rpc_intake_add(). */
    void (*on_settled)(uint64_t number, bool is_returned, void *userdata);
    /* The last connection has ended. May be NULL. */
    void (*on_empty)(void *userdata);
};

MUST_CHECK int rpc_intake_new(sd_event *event, const struct settings *settings,
    struct scoreboard_slot *slot, const struct rpc_intake_handlers *handlers, void *userdata,
    struct rpc_intake **ret_intake);
/* As rpc_watch_set_shortage(). */
void rpc_intake_set_shortage(struct rpc_intake *intake, const _Atomic uint64_t *short_at_us);
/* Closes what is left and counts it as closed. */
struct rpc_intake *rpc_intake_free(struct rpc_intake *intake);

/* Takes *fd; negative: there was no descriptor left for it. `number`: the master's. */
void rpc_intake_add(struct rpc_intake *intake, uint32_t listener, uint64_t number, int *fd);
/* Returns what comes later. What still waits for its first bytes is returned as well, since nothing
 * of it was read; `is_stop`: there is nobody to return it to, and it is handed over, so that the C
 * core tells it to go elsewhere. */
void rpc_intake_drain(struct rpc_intake *intake, bool is_stop);
size_t rpc_intake_count(const struct rpc_intake *intake);
/* Nothing has come on any connection for `quiet_ms`, as far as the kernel says so (TCP). */
MUST_CHECK bool rpc_intake_is_quiet(const struct rpc_intake *intake, unsigned int quiet_ms);

#endif
