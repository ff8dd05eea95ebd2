/* One unary method of one listener: keeps calls of it asked for at the C core, decodes what arrives
 * and hands it to the handler through the generated service vtable. Rpc thread only, but for
 * rpc_method_register(). */
#ifndef USERD_WORKER_RPC_RPC_METHOD_H
#define USERD_WORKER_RPC_RPC_METHOD_H

#include <grpc/grpc.h>
#include <protobuf-c/protobuf-c.h>

#include "common/attributes.h"
#include "worker/rpc/rpc_call_life.h"

/* Where a method is served. */
struct rpc_method_place {
    grpc_server *server;
    uint32_t listener; /* its number */
};

struct rpc_method {
    struct rpc_call_pool *pool;
    struct rpc_method_place place;
    void *registered; /* the C core's */
    ProtobufCService *service;
    unsigned int index;            /* in the service */
    bool may_be_empty;             /* an empty request is executed even if it may be a broken one */
    struct scoreboard_method *row; /* NULL: not counted */
};

/* "/package.Service/Method": malloc'ed. */
char *rpc_method_path(
    const ProtobufCServiceDescriptor *service, const ProtobufCMethodDescriptor *method);

/* Before grpc_server_start(). -EEXIST when the server has such a method already. */
MUST_CHECK int rpc_method_register(struct rpc_method *method, struct rpc_call_pool *pool,
    const struct rpc_method_place *place, ProtobufCService *service, unsigned int index);
/* After grpc_server_start(): asks for `count` calls; each that arrives is replaced by another. */
void rpc_method_request(struct rpc_method *method, unsigned int count);

#endif
