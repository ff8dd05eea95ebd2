/* One listener's grpc_server: its methods, health and reflection, and its way in for connections.
 * The server (rpc_server.h) owns one for each listener of the settings. */
#ifndef USERD_WORKER_RPC_RPC_LISTENER_H
#define USERD_WORKER_RPC_RPC_LISTENER_H

#include "common/attributes.h"
#include "worker/rpc/core_bridge.h"
#include "worker/rpc/rpc_account.h"
#include "worker/rpc/rpc_call_life.h"
#include "worker/rpc/rpc_health.h"
#include "worker/rpc/rpc_method.h"
#include "worker/rpc/rpc_reflection.h"
#include "worker/rpc/rpc_stream.h"
#include "worker/rpc/rpc_tag.h"

struct rpc_server_options;

/* What the listeners of a worker share; owned by the server. */
/* One of each: the order is by what belongs together. */
/* NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding) */
struct rpc_listener_context {
    const struct rpc_server_options *options;
    struct core_bridge bridge;
    grpc_completion_queue *queue;
    grpc_resource_quota *quota;
    struct rpc_account_set accounts;
    struct rpc_call_pool calls;
    struct rpc_stream_set streams;
    struct descriptor_index *descriptors;
    atomic_bool is_serving;
};

struct rpc_listener {
    struct rpc_listener_context *context;
    const struct settings_listener *settings;
    uint32_t number;                      /* among the settings' */
    grpc_server *core;                    /* owned */
    grpc_server_credentials *credentials; /* owned */
    struct core_acceptor acceptor;
    bool has_acceptor;
    struct rpc_method *methods; /* owned */
    size_t method_count;
    struct rpc_health health;
    struct rpc_method health_check;
    struct rpc_reflection reflection;
    struct rpc_tag shut_down; /* filled in by the server */
};

/* Makes the grpc_server with all its methods. `listener` must not be moved afterwards. Loop thread,
 * like all but the last of these. `number`: in the settings. -ENOENT (logged) when a service of the
 * setting is none of ours; rpc_listener_close() also after a failure. */
MUST_CHECK int rpc_listener_open(
    struct rpc_listener *listener, struct rpc_listener_context *context, uint32_t number);
/* The server has been shut down, or was never started. */
void rpc_listener_close(struct rpc_listener *listener);
/* Lets the server go and asks it for calls; the rpc thread is not running yet. */
void rpc_listener_start(struct rpc_listener *listener);
/* Takes the fd. The connection as its calls see it: rpc_peer_close() when it has ended. */
MUST_CHECK struct rpc_peer *rpc_listener_accept(struct rpc_listener *listener, int fd);

#endif
