#include "worker/rpc/rpc_unknown.h"

#include <assert.h>
#include <grpc/slice.h>
#include <stdlib.h>
#include <string.h>

#include "common/attributes.h"
#include "common/log.h"
#include "worker/rpc/rpc_tag.h"

struct unknown_call {
    struct rpc_tag requested;
    struct rpc_tag finished;
    struct rpc_method_place place;
    struct rpc_call_pool *pool;
    struct rpc_peer *peer; /* a reference, once the call has arrived */
    grpc_call *core;
    grpc_call_details details;
    grpc_metadata_array metadata;
    int was_cancelled;
};

static void free_call(struct unknown_call *call)
{
    if (call->core != NULL)
        grpc_call_unref(call->core);
    grpc_call_details_destroy(&call->details);
    grpc_metadata_array_destroy(&call->metadata);
    free(call);
}

static void on_finished(struct rpc_tag *tag, bool is_ok)
{
    struct unknown_call *call = CONTAINER_OF(tag, struct unknown_call, finished);
    (void)is_ok;
    if (call->was_cancelled != 0)
        rpc_peer_add_cancelled(call->peer);
    else
        rpc_peer_add_served(call->peer);
    rpc_peer_add_finished(call->peer, 0);
    rpc_peer_release(call->peer);
    free_call(call);
}

static void finish_call(struct unknown_call *call)
{
    grpc_slice details = grpc_slice_from_static_string("unknown method");
    grpc_op operations[3];
    memset(operations, 0, sizeof(operations));
    operations[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    operations[1].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
    operations[1].data.send_status_from_server.status = GRPC_STATUS_UNIMPLEMENTED;
    operations[1].data.send_status_from_server.status_details = &details;
    operations[2].op = GRPC_OP_RECV_CLOSE_ON_SERVER;
    operations[2].data.recv_close_on_server.cancelled = &call->was_cancelled;
    grpc_call_error error = grpc_call_start_batch(call->core, operations, 3, &call->finished, NULL);
    assert(error == GRPC_CALL_OK);
}

static void on_requested(struct rpc_tag *tag, bool is_ok)
{
    struct unknown_call *call = CONTAINER_OF(tag, struct unknown_call, requested);
    if (!is_ok) { /* the server is shutting down */
        free_call(call);
        return;
    }
    rpc_unknown_request(&call->place, call->pool);
    call->peer = rpc_peer_of_call(&call->pool->peers, call->place.listener, call->core);
    rpc_peer_add_arrived(call->peer);
    rpc_peer_add_answered(call->peer, false, 0, 0);
    finish_call(call);
}

void rpc_unknown_request(const struct rpc_method_place *place, struct rpc_call_pool *pool)
{
    struct unknown_call *call = malloc(sizeof(*call));
    if (call == NULL) {
        log_error("out of memory where=rpc_unknown");
        abort();
    }
    *call = (struct unknown_call){
        .requested = {.on_event = on_requested},
        .finished = {.on_event = on_finished},
        .place = *place,
        .pool = pool,
    };
    grpc_call_details_init(&call->details);
    grpc_metadata_array_init(&call->metadata);
    grpc_call_error error = grpc_server_request_call(place->server, &call->core, &call->details,
        &call->metadata, pool->queue, pool->queue, &call->requested);
    assert(error == GRPC_CALL_OK);
}
