/* grpc.health.v1 for one listener: Check (an ordinary unary service) and Watch. Knows "" and the
 * names of the listener's services; all have one state, the worker's. */
#ifndef USERD_WORKER_RPC_RPC_HEALTH_H
#define USERD_WORKER_RPC_RPC_HEALTH_H

#include "common/attributes.h"
#include "common/settings.h"
#include "worker/rpc/rpc_stream.h"

#include "grpc/health/v1/health.pb-c.h"

struct rpc_health {
    Grpc__Health__V1__Health_Service service; /* first: handlers get a pointer to it */
    const struct settings_listener *listener;
    const atomic_bool *is_serving; /* the server's */
    struct rpc_stream_method watch;
};

#define RPC_HEALTH_METHOD_CHECK 0 /* index in the service */

/* `health` must not be moved afterwards. */
void rpc_health_init(struct rpc_health *health, const struct settings_listener *listener,
    const atomic_bool *is_serving);

#endif
