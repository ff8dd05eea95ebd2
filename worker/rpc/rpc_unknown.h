/* Calls of methods that a listener does not have: answered UNIMPLEMENTED. Without one of these
 * asked for at all times the C core would let such a call wait until its deadline. */
#ifndef USERD_WORKER_RPC_RPC_UNKNOWN_H
#define USERD_WORKER_RPC_RPC_UNKNOWN_H

#include "worker/rpc/rpc_method.h"

/* After grpc_server_start(), once for each server. Keeps itself going until the server is shut
 * down. */
void rpc_unknown_request(const struct rpc_method_place *place, struct rpc_call_pool *pool);

#endif
