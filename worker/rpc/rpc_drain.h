/* How a worker's servers come to their end: clients are asked to leave, calls are finished, and
 * what does not leave is ended.
 *
 * Step by step; each is left by what it waits for or by its time limit.
 *
 * A server that is shut down answers every new call CANCELLED, and a client that has no call under
 * way may not read GOAWAY before its next one. As long as such connections are left, servers are
 * therefore not shut down: they serve until a moment without a call, and then end all connections
 * with a last GOAWAY, which says how far they got. Whatever a client sends later it may send again
 * elsewhere, and does so by itself. Where calls do not end, the moment is one without any other:
 * who comes late, and is answered at once, does not fail for them.
 */
#ifndef USERD_WORKER_RPC_RPC_DRAIN_H
#define USERD_WORKER_RPC_RPC_DRAIN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/attributes.h"
#include "worker/rpc/rpc_intake.h"
#include "worker/rpc/rpc_listener.h"

enum rpc_drain_step {
    RPC_DRAIN_NOT_BEGUN,
    RPC_DRAIN_CONNECTIONS, /* clients were asked to leave */
    RPC_DRAIN_CALLS,       /* their time is over: waits for a moment without a call */
    RPC_DRAIN_SHUTDOWN,    /* the servers are shut down: calls in progress may finish */
    RPC_DRAIN_CANCEL,      /* all connections are ended, calls in progress with them */
    RPC_DRAIN_DONE,
};

/* `is_clean` false: servers could not be shut down. Threads are still in them, and in whatever they
 * use: nothing of it may be freed. */
typedef void rpc_drain_done(bool is_clean, void *userdata);

/* Part of a server; its members are this module's own. */
struct rpc_drain {
    struct rpc_listener_context *context;
    struct rpc_listener *listeners;
    size_t listener_count;
    struct rpc_intake *intake;
    enum rpc_drain_step step;
    uint64_t drain_deadline_us; /* of RPC_DRAIN_CONNECTIONS */
    uint64_t idle_since_us;     /* from when on a connection without a call is ended */
    uint64_t calls_deadline_us; /* of RPC_DRAIN_CALLS */
    _Atomic size_t running;     /* servers that are not shut down: counted down by the rpc thread */
    int shut_down_fd;           /* owned: eventfd, written by the rpc thread when `running` is 0 */
    sd_event_source *shut_down_source; /* owned */
    sd_event_source *timer;            /* owned */
    rpc_drain_done *on_drained;
    void *userdata;
};

/* Loop thread, as all but rpc_drain_count_shut_down(). `drain` is zeroed, its shut_down_fd -1.
 * rpc_drain_close() also after a failure. */
MUST_CHECK int rpc_drain_open(struct rpc_drain *drain, sd_event *event,
    struct rpc_listener_context *context, struct rpc_listener *listeners);
void rpc_drain_close(struct rpc_drain *drain);
/* The servers are there. */
void rpc_drain_set(struct rpc_drain *drain, size_t listener_count, struct rpc_intake *intake);
/* As rpc_server_drain() and rpc_server_stop(). */
void rpc_drain_begin(struct rpc_drain *drain, unsigned int timeout_ms, bool is_stop,
    rpc_drain_done *on_drained, void *userdata);
void rpc_drain_stop(struct rpc_drain *drain);
/* The last connection has ended. */
void rpc_drain_on_empty(struct rpc_drain *drain);
/* The two last steps by themselves, for a server that was never drained. */
void rpc_drain_shut_down(struct rpc_drain *drain);
void rpc_drain_cancel(struct rpc_drain *drain);
/* A server has been shut down. Rpc thread. */
void rpc_drain_count_shut_down(struct rpc_drain *drain);

#endif
