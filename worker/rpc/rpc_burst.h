/* The answers that the loop thread makes ready in one turn, sent together: a batch of the database
 * answers many calls at once, and a write for each of them would cost more than all the rest.
 *
 * Answers of other threads go at once. Without the core bridge's bursts those of the loop thread do
 * as well.
 */
#ifndef USERD_WORKER_RPC_RPC_BURST_H
#define USERD_WORKER_RPC_RPC_BURST_H

#include <pthread.h>
#include <stdbool.h>
#include <systemd/sd-event.h>

#include "common/attributes.h"
#include "worker/rpc/core_bridge.h"

struct rpc_call;

/* Zeroed at first. */
struct rpc_burst {
    const struct core_bridge *bridge;
    sd_event_source *source; /* owned: runs once the turn that made the answers ready is over */
    pthread_t thread;        /* the loop's */
    struct rpc_call *first;  /* the pool's, joined by `next`: answered, and not sent yet */
    struct rpc_call *last;
};

/* Loop thread, as all but the last of these. `bridge` must outlive it. */
MUST_CHECK int rpc_burst_open(
    struct rpc_burst *burst, sd_event *event, const struct core_bridge *bridge);
/* Sends what is left. */
void rpc_burst_close(struct rpc_burst *burst);
/* Sends what is ready now; else it leaves when the loop's turn is over, which costs another turn.
 */
void rpc_burst_flush(struct rpc_burst *burst);

/* Whether the caller is that thread. */
bool rpc_burst_is_loop_thread(const struct rpc_burst *burst);
/* Any thread: the call's answer is complete (rpc_call_life.h), and leaves with the others or at
 * once. The call must not be touched any more. */
void rpc_burst_add(struct rpc_burst *burst, struct rpc_call *call);

#endif
