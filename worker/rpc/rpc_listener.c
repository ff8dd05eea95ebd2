#include "worker/rpc/rpc_listener.h"

#include <assert.h>
#include <errno.h>
#include <grpc/grpc_posix.h>
#include <grpc/grpc_security.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "worker/rpc/rpc_core.h"
#include "worker/rpc/rpc_reader.h"
#include "worker/rpc/rpc_server.h"
#include "worker/rpc/rpc_unknown.h"

/* Calls asked for at any time, for each method: enough for a burst. 1 to 256 make no difference in
 * CPU (HACKING.md); each takes about 1.5 KiB. */
#define REQUESTS_OF_METHOD 64
#define REQUESTS_OF_HEALTH 4

static ProtobufCService *find_service(const struct rpc_server_options *options, const char *name)
{
    for (size_t i = 0; i < options->service_count; i++) {
        if (strcmp(options->services[i]->descriptor->name, name) == 0)
            return options->services[i];
    }
    return NULL;
}

static int register_service(struct rpc_listener *listener, const char *name)
{
    ProtobufCService *service = find_service(listener->context->options, name);
    if (service == NULL) {
        log_error("unknown service listener=%s service=%s", listener->settings->name, name);
        return -ENOENT;
    }
    const struct rpc_method_place place = {.server = listener->core, .listener = listener->number};
    unsigned int count = service->descriptor->n_methods;
    struct rpc_method *methods =
        reallocarray(listener->methods, listener->method_count + count, sizeof(*methods));
    if (methods == NULL)
        return -ENOMEM;
    listener->methods = methods;
    for (unsigned int i = 0; i < count; i++) {
        int error = rpc_method_register(
            &methods[listener->method_count], &listener->context->calls, &place, service, i);
        if (error < 0) {
            log_error("duplicate service listener=%s service=%s", listener->settings->name, name);
            return error;
        }
        listener->method_count++;
    }
    return 0;
}

static int register_services(struct rpc_listener *listener)
{
    for (size_t i = 0; i < listener->settings->service_count; i++) {
        int error = register_service(listener, listener->settings->services[i]);
        if (error < 0)
            return error;
    }
    return 0;
}

/* That are served. */
static size_t reflection_versions(const struct rpc_listener *listener)
{
    return listener->context->options->settings->reflection != 0 ? RPC_REFLECTION_VERSIONS : 0;
}

static int register_own_services(struct rpc_listener *listener)
{
    struct rpc_listener_context *context = listener->context;
    const struct rpc_method_place place = {.server = listener->core, .listener = listener->number};
    rpc_health_init(&listener->health, listener->settings, &context->is_serving);
    rpc_reflection_init(&listener->reflection, listener->settings, context->descriptors);
    int error = rpc_method_register(&listener->health_check, &context->calls, &place,
        &listener->health.service.base, RPC_HEALTH_METHOD_CHECK);
    /* It asks for the whole server, and changes nothing. */
    listener->health_check.may_be_empty = true;
    if (error == 0)
        error = rpc_stream_method_register(&listener->health.watch, &context->streams, &place);
    for (size_t i = 0; i < reflection_versions(listener) && error == 0; i++)
        error =
            rpc_stream_method_register(&listener->reflection.methods[i], &context->streams, &place);
    return error;
}

int rpc_listener_open(
    struct rpc_listener *listener, struct rpc_listener_context *context, uint32_t number)
{
    *listener = (struct rpc_listener){
        .context = context,
        .settings = &context->options->settings->listeners[number],
        .number = number,
    };
    listener->core = rpc_core_new_server(context->options->settings, context->quota,
        &listener->acceptor, context->bridge.has_goaway, context->calls.is_blind);
    grpc_server_register_completion_queue(listener->core, context->queue, NULL);
    listener->credentials = grpc_insecure_server_credentials_create();
    int error = register_services(listener);
    if (error == 0)
        error = register_own_services(listener);
    if (error < 0)
        return error;
    listener->has_acceptor = core_bridge_open_acceptor(
        &context->bridge, &listener->acceptor, listener->core, listener->credentials);
    if (context->bridge.has_acceptor && !listener->has_acceptor)
        log_warn("acceptor missing listener=%s effect=\"public entry point instead\"",
            listener->settings->name);
    return 0;
}

void rpc_listener_close(struct rpc_listener *listener)
{
    if (listener->core != NULL)
        grpc_server_destroy(listener->core);
    if (listener->credentials != NULL)
        grpc_server_credentials_release(listener->credentials);
    free(listener->methods);
    *listener = (struct rpc_listener){0};
}

void rpc_listener_start(struct rpc_listener *listener)
{
    grpc_server_start(listener->core);
    for (size_t i = 0; i < listener->method_count; i++)
        rpc_method_request(&listener->methods[i], REQUESTS_OF_METHOD);
    rpc_method_request(&listener->health_check, REQUESTS_OF_HEALTH);
    rpc_stream_method_request(&listener->health.watch);
    for (size_t i = 0; i < reflection_versions(listener); i++)
        rpc_stream_method_request(&listener->reflection.methods[i]);
    const struct rpc_method_place place = {.server = listener->core, .listener = listener->number};
    rpc_unknown_request(&place, &listener->context->calls);
}

struct rpc_peer *rpc_listener_accept(struct rpc_listener *listener, int fd)
{
    char name[RPC_PEER_NAME_BYTES];
    /* The acceptor names a connection by its address, which those of a Unix socket do not have. */
    bool is_by_address = listener->has_acceptor && rpc_peer_write_name(fd, false, name);
    bool has_name = is_by_address || rpc_peer_write_name(fd, true, name);
    assert(has_name);
    struct rpc_peer *peer = rpc_peer_open(&listener->context->calls.peers, listener->number, name);
    if (peer->number != 0)
        peer->account = rpc_account_open(&listener->context->accounts, fd);
    rpc_reader_add(fd, listener->number, peer);
    if (is_by_address)
        core_bridge_accept(&listener->acceptor, fd);
    else
        grpc_server_add_channel_from_fd(listener->core, fd, listener->credentials);
    return peer;
}
