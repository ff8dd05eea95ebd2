/* The C core as a whole: its start and end in this process, where its log goes, and what each
 * server is told. Holds every choice of a C core setting. */
#ifndef USERD_WORKER_RPC_RPC_CORE_H
#define USERD_WORKER_RPC_RPC_CORE_H

#include <grpc/grpc.h>

#include "common/settings.h"
#include "worker/rpc/core_bridge.h"

/* What the fields of a call's header may take, as RFC 9113 (section 10.5.1) counts. */
#define RPC_CORE_METADATA_BYTES 16384

/* Signals must be blocked: the C core starts threads. */
void rpc_core_init(void);
/* After all servers and queues are destroyed. */
void rpc_core_cleanup(void);

/* The bound on what the connections of all servers of a worker may buffer. Unref when the servers
 * are made. */
grpc_resource_quota *rpc_core_new_quota(void);
/* A server with our limits; the acceptor must stay where it is. Without `has_goaway`, the means to
 * ask clients to leave, their connections end by age, often enough for a drain. `is_blind`: nobody
 * looks at what connections send (rpc_reader_check.h), so that the C core's own limits have to do.
 */
grpc_server *rpc_core_new_server(const struct settings *settings, grpc_resource_quota *quota,
    struct core_acceptor *acceptor, bool has_goaway, bool is_blind);

#endif
