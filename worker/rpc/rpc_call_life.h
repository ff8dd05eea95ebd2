/* The inside of a unary call (rpc_call.h), and the pool that its objects come from and go back to.
 *
 * An object is made once and used for many calls, one after the other: asked for at the C core,
 * arrived, answered, recycled. "finished" is started by the answer; "closed", which tells that the
 * client has gone away, is part of it, unless the call had to wait and was watched: then it was
 * started on its own before. The object goes back when all that was started has come back, on the
 * rpc thread; until its answer a call is with one thread at a time, so that nothing here needs a
 * lock.
 */
#ifndef USERD_WORKER_RPC_RPC_CALL_LIFE_H
#define USERD_WORKER_RPC_RPC_CALL_LIFE_H

#include <grpc/grpc.h>

#include "common/attributes.h"
#include "common/scoreboard.h"
#include "worker/rpc/core_bridge.h"
#include "worker/rpc/rpc_arena.h"
#include "worker/rpc/rpc_burst.h"
#include "worker/rpc/rpc_call.h"
#include "worker/rpc/rpc_peer.h"
#include "worker/rpc/rpc_tag.h"

struct rpc_method;

/* One for each worker; rpc thread only, but for `slot`, `burst`, `peers` and the atomics. */
struct rpc_call_pool {
    grpc_completion_queue *queue;
    const struct core_bridge *bridge;
    struct scoreboard_slot *slot;
    size_t message_limit_bytes;
    bool is_blind;               /* nobody looks at what connections send: see rpc_reader_check.h */
    struct rpc_call *free_calls; /* owned */
    size_t free_count;
    atomic_size_t late;  /* of those in progress */
    atomic_bool is_late; /* calls that arrive from now on are late ones */
    struct rpc_burst burst;
    struct rpc_peer_set peers;
};

struct rpc_call {
    struct rpc_tag requested;
    struct rpc_tag closed;
    struct rpc_tag finished;
    struct rpc_call_pool *pool;
    struct rpc_method *method;
    struct rpc_call *next; /* of the free ones, or of a burst of answers */
    /* filled in by the C core when the call arrives */
    grpc_call *core;
    gpr_timespec deadline;
    grpc_metadata_array metadata;
    grpc_byte_buffer *payload; /* owned until decoded */
    /* while it lives */
    struct rpc_peer *peer; /* a reference */
    size_t request_bytes;  /* decoded */
    size_t reply_bytes;
    int64_t deadline_us;
    uint64_t begun_us;
    uint64_t answered_us;
    atomic_bool is_cancelled;
    atomic_flag is_answered;
    int was_cancelled;        /* written by the C core with the closed tag */
    bool is_late;             /* it arrived after the time that its worker had to leave */
    bool is_watched;          /* closed was started on its own */
    unsigned int outstanding; /* of closed and finished: what is to come back */
    /* the answer */
    grpc_status_code status;
    bool has_reply;
    bool is_conflict;
    grpc_byte_buffer reply; /* one slice from the answer on */
    grpc_slice details;     /* owned until the final batch is started */
    grpc_metadata trailer;
    struct rpc_arena arena;
};

void rpc_call_pool_init(struct rpc_call_pool *pool, grpc_completion_queue *queue,
    const struct core_bridge *bridge, struct scoreboard_slot *slot,
    const struct settings *settings);
void rpc_call_pool_cleanup(struct rpc_call_pool *pool);
/* Calls that have arrived, and whose answer has not all been sent yet. Any thread. */
size_t rpc_call_pool_in_progress(const struct rpc_call_pool *pool);
/* From now on calls that arrive are told from those that are there. Any thread. */
void rpc_call_pool_count_late(struct rpc_call_pool *pool);
/* Of the calls in progress those that have arrived since. Any thread. */
size_t rpc_call_pool_late(const struct rpc_call_pool *pool);

/* An object to ask for a call with; its `requested` tag is the caller's to fill in. */
struct rpc_call *rpc_call_take(struct rpc_call_pool *pool);
/* Back to the pool without having become a call. */
void rpc_call_give_back(struct rpc_call *call);
/* The call has arrived, at this listener. */
void rpc_call_begin(struct rpc_call *call, uint32_t listener);
/* The ProtobufCClosure that answers; `call` is the struct rpc_call. A NULL message answers
 * INTERNAL. */
void rpc_call_answer(const ProtobufCMessage *message, void *call);

/* What goes with the status besides its message: returns how many (static) entries it has put. */
size_t rpc_call_put_trailer(grpc_status_code status, grpc_metadata *ret_trailer);

/* For rpc_burst.c: starts the final batch of an answered call, the C core's way or, with a bridge,
 * within its burst. */
void rpc_call_send_answer(struct rpc_call *call, const struct core_bridge *bridge);

#endif
