#include "worker/rpc/rpc_health.h"

#include <string.h>

#include "worker/rpc/rpc_call.h"

typedef Grpc__Health__V1__HealthCheckRequest health_request;
typedef Grpc__Health__V1__HealthCheckResponse health_response;
typedef Grpc__Health__V1__HealthCheckResponse__ServingStatus serving_status;

/* What a Watch stream remembers. */
struct watch_state {
    bool is_known; /* the name that was asked for */
    bool has_request;
    bool has_sent;
    serving_status sent;
};
_Static_assert(
    sizeof(struct watch_state) <= RPC_STREAM_STATE_BYTES, "the stream has no room for a watch");

static bool is_known_service(const struct rpc_health *health, const char *name)
{
    if (name[0] == '\0')
        return true;
    for (size_t i = 0; i < health->listener->service_count; i++) {
        if (strcmp(health->listener->services[i], name) == 0)
            return true;
    }
    return false;
}

static serving_status current_status(const struct rpc_health *health)
{
    return atomic_load_explicit(health->is_serving, memory_order_acquire)
               ? GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
               : GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING;
}

static void health_check(Grpc__Health__V1__Health_Service *service, const health_request *request,
    Grpc__Health__V1__HealthCheckResponse_Closure closure, void *call)
{
    const struct rpc_health *health = CONTAINER_OF(service, struct rpc_health, service);
    if (!is_known_service(health, request->service)) {
        rpc_call_fail(call, GRPC_STATUS_NOT_FOUND, "unknown service");
        return;
    }
    health_response response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    response.status = current_status(health);
    closure(&response, call);
}

/* Sends the state when it is not the one that was sent last. A change while a send is under way is
 * seen when that is done: states between are left out. */
static void send_state(struct rpc_stream *stream)
{
    struct watch_state *watch = rpc_stream_state(stream);
    if (!watch->has_request || rpc_stream_is_sending(stream))
        return;
    health_response response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    response.status =
        watch->is_known ? current_status(rpc_stream_userdata(stream))
                        : GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN;
    if (watch->has_sent && watch->sent == response.status)
        return;
    watch->has_sent = true;
    watch->sent = response.status;
    rpc_stream_send(stream, &response.base);
}

static void on_watch_message(struct rpc_stream *stream, const ProtobufCMessage *message)
{
    const health_request *request = (const health_request *)(const void *)message;
    struct watch_state *watch = rpc_stream_state(stream);
    watch->has_request = true;
    watch->is_known = is_known_service(rpc_stream_userdata(stream), request->service);
    rpc_stream_forget_request(stream); /* a Watch may stay open for ever */
    send_state(stream);
}

static void on_watch_half_closed(struct rpc_stream *stream)
{
    /* Asked for one message and got none; after the message nothing is read any more. */
    rpc_stream_finish(stream, GRPC_STATUS_UNIMPLEMENTED, "exactly one request message is expected");
}

void rpc_health_init(struct rpc_health *health, const struct settings_listener *listener,
    const atomic_bool *is_serving)
{
    *health = (struct rpc_health){
        .service =
            {
                .base = GRPC__HEALTH__V1__HEALTH__BASE_INIT, .check = health_check,
                /* .watch stays NULL: the vtable knows no streams, `watch` below serves it */
            },
        .listener = listener,
        .is_serving = is_serving,
        .watch =
            {
                .path = "/grpc.health.v1.Health/Watch",
                .input = &grpc__health__v1__health_check_request__descriptor,
                .on_message = on_watch_message,
                .on_half_closed = on_watch_half_closed,
                .on_sent = send_state,
                .on_wake = send_state,
                .userdata = health,
            },
    };
}
