#include "worker/rpc/rpc_method.h"

#include <assert.h>
#include <errno.h>
#include <grpc/byte_buffer.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/log.h"
#include "common/monotonic_clock.h"
#include "worker/rpc/rpc_message.h"
#include "worker/rpc/rpc_meter.h"

/* Declared ahead: a call that arrives asks for the next one. */
static void request_call(struct rpc_method *method);

char *rpc_method_path(
    const ProtobufCServiceDescriptor *service, const ProtobufCMethodDescriptor *method)
{
    char *path = NULL;
    if (asprintf(&path, "/%s/%s", service->name, method->name) < 0) {
        log_error("out of memory where=rpc_method");
        abort();
    }
    return path;
}

/* No payload came: the client sent none, or the call was over before all of it was here. */
static void fail_without_payload(struct rpc_call *call)
{
    if (grpc_call_failed_before_recv_message(call->core) == 0) {
        /* The gRPC status codes document: the wrong number of requests. */
        rpc_call_fail(call, GRPC_STATUS_UNIMPLEMENTED, "exactly one request message is expected");
        return;
    }
    if (rpc_call_deadline_us(call) <= (int64_t)monotonic_clock_us())
        rpc_call_fail(call, GRPC_STATUS_DEADLINE_EXCEEDED, "deadline exceeded");
    else
        rpc_call_fail(call, GRPC_STATUS_CANCELLED, "request was cut off");
}

static void dispatch(struct rpc_call *call)
{
    const struct rpc_method *method = call->method;
    const char *reason = rpc_peer_refusal(call->peer);
    if (reason != NULL) {
        grpc_byte_buffer_destroy(call->payload); /* of any size; the answer may wait for long */
        call->payload = NULL;
        rpc_call_fail(call, GRPC_STATUS_RESOURCE_EXHAUSTED, reason);
        return;
    }
    if (call->payload == NULL) {
        fail_without_payload(call);
        return;
    }
    /* The C core makes an empty message of one with an unknown flag. The reader does not let such
     * a message come here; without it nothing tells the two. */
    if (call->pool->is_blind && !method->may_be_empty &&
        grpc_byte_buffer_length(call->payload) == 0) {
        grpc_byte_buffer_destroy(call->payload);
        call->payload = NULL;
        rpc_call_fail(
            call, GRPC_STATUS_INTERNAL, "an empty request cannot be told from a broken one here");
        return;
    }
    core_bridge_mark_compression(call->pool->bridge, call->core, call->payload);
    struct rpc_message_refusal refusal;
    const ProtobufCMessage *message =
        rpc_message_decode(method->service->descriptor->methods[method->index].input, call->payload,
            call->pool->message_limit_bytes, &call->arena, &refusal);
    grpc_byte_buffer_destroy(call->payload);
    call->payload = NULL;
    if (message == NULL) {
        rpc_call_fail(call, refusal.status, refusal.text);
        return;
    }
    call->request_bytes = call->arena.used_bytes;
    rpc_peer_add_request(call->peer, call->request_bytes);
    method->service->invoke(method->service, method->index, message, rpc_call_answer, call);
}

static void on_requested(struct rpc_tag *tag, bool is_ok)
{
    struct rpc_call *call = CONTAINER_OF(tag, struct rpc_call, requested);
    if (!is_ok) { /* the server is shutting down */
        rpc_call_give_back(call);
        return;
    }
    request_call(call->method);
    rpc_call_begin(call, call->method->place.listener);
    dispatch(call);
}

static void request_call(struct rpc_method *method)
{
    struct rpc_call *call = rpc_call_take(method->pool);
    call->method = method;
    call->requested.on_event = on_requested;
    grpc_completion_queue *queue = method->pool->queue;
    grpc_call_error error =
        grpc_server_request_registered_call(method->place.server, method->registered, &call->core,
            &call->deadline, &call->metadata, &call->payload, queue, queue, &call->requested);
    assert(error == GRPC_CALL_OK);
}

int rpc_method_register(struct rpc_method *method, struct rpc_call_pool *pool,
    const struct rpc_method_place *place, ProtobufCService *service, unsigned int index)
{
    char *path = rpc_method_path(service->descriptor, &service->descriptor->methods[index]);
    *method = (struct rpc_method){
        .pool = pool,
        .place = *place,
        .registered = grpc_server_register_method(
            place->server, path, NULL, GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER, 0),
        .service = service,
        .index = index,
        .row = rpc_meter_open(pool->slot, path + 1),
    };
    free(path);
    return method->registered == NULL ? -EEXIST : 0;
}

void rpc_method_request(struct rpc_method *method, unsigned int count)
{
    for (unsigned int i = 0; i < count; i++)
        request_call(method);
}
