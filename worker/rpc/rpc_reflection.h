/* Server reflection, v1 and v1alpha (one protocol under two names: the messages are the same on the
 * wire), for one listener: lists its services, health and itself, and hands out the .proto files.
 */
#ifndef USERD_WORKER_RPC_RPC_REFLECTION_H
#define USERD_WORKER_RPC_RPC_REFLECTION_H

#include "common/settings.h"
#include "worker/rpc/descriptor_index.h"
#include "worker/rpc/rpc_stream.h"

#define RPC_REFLECTION_VERSIONS 2

struct rpc_reflection {
    const struct settings_listener *listener;
    const struct descriptor_index *index;
    struct rpc_stream_method methods[RPC_REFLECTION_VERSIONS];
};

/* `reflection` must not be moved afterwards. */
void rpc_reflection_init(struct rpc_reflection *reflection,
    const struct settings_listener *listener, const struct descriptor_index *index);

#endif
