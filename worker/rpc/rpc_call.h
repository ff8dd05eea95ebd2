/* One call: from the request's bytes to the reply's, and the object that carries it through the
 * worker.
 *
 * Handlers (worker/api/) are the generated protobuf-c service vtables: `closure_data` is the struct
 * rpc_call. They answer exactly once, on any thread: by calling the closure with a response, or
 * with rpc_call_fail(). The request message and all that rpc_call_allocate() gave live until then.
 */
#ifndef USERD_WORKER_RPC_RPC_CALL_H
#define USERD_WORKER_RPC_RPC_CALL_H

#include <grpc/status.h>
#include <protobuf-c/protobuf-c.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/attributes.h"

struct rpc_call;

/* From the call's arena: zeroed, aligned for anything, freed with the call. Aborts without memory;
 * sizes are bounded by the size limit of messages. */
void *rpc_call_allocate(struct rpc_call *call, size_t size);
/* The same arena as protobuf-c wants it. */
ProtobufCAllocator *rpc_call_allocator(struct rpc_call *call);

/* CLOCK_MONOTONIC; INT64_MAX: none. */
int64_t rpc_call_deadline_us(const struct rpc_call *call);
/* Set when the client of a watched call has gone away. */
const atomic_bool *rpc_call_is_cancelled(const struct rpc_call *call);

/* The call's connection: a small number that no other living one has; 0: not known. */
uint32_t rpc_call_source(const struct rpc_call *call);

/* From now on the client's going away is noticed, which costs a tenth of a short call: for one that
 * waits. Not beside another function that is given the call; as often as one likes. */
void rpc_call_watch(struct rpc_call *call);
/* The caller's W3C traceparent, in the call's arena; NULL: none, or none that is valid. */
const char *rpc_call_traceparent(struct rpc_call *call);

/* Answers with an error. `message` is copied. For RESOURCE_EXHAUSTED and UNAVAILABLE a retry hint
 * (grpc-retry-pushback-ms) is added. */
void rpc_call_fail(struct rpc_call *call, grpc_status_code status, const char *message);
/* The same for what the request and the state of things do not allow together: counted apart from
 * failures. */
void rpc_call_conflict(struct rpc_call *call, grpc_status_code status, const char *message);

#endif
