/* Streaming calls (health's Watch, server reflection): one read and one write at a time, each
 * write's completion being the flow control. Handlers run on the rpc thread, one at a time; other
 * threads can only wake streams. */
#ifndef USERD_WORKER_RPC_RPC_STREAM_H
#define USERD_WORKER_RPC_RPC_STREAM_H

#include <grpc/grpc.h>
#include <protobuf-c/protobuf-c.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "common/attributes.h"
#include "worker/rpc/rpc_arena.h"
#include "worker/rpc/rpc_method.h"

struct rpc_stream;

/* One streaming method of one listener. */
struct rpc_stream_method {
    const char *path; /* "/package.Service/Method" */
    const ProtobufCMessageDescriptor *input;
    /* A request has arrived; it lives until the next one is read or the stream ends. */
    void (*on_message)(struct rpc_stream *stream, const ProtobufCMessage *message);
    /* The client will send no more. */
    void (*on_half_closed)(struct rpc_stream *stream);
    /* What rpc_stream_send() sent is on its way: the next may be sent. */
    void (*on_sent)(struct rpc_stream *stream);
    /* rpc_stream_set_wake() was called. NULL: does not care. */
    void (*on_wake)(struct rpc_stream *stream);
    void *userdata;
    /* private */
    struct rpc_stream_set *set;
    struct rpc_method_place place;
    void *registered;
};

/* All streams of a worker, open or asked for. */
struct rpc_stream_set {
    struct rpc_call_pool *pool; /* of the unary calls: what they have in common */
    pthread_mutex_t lock;     /* guards `first`, the links, and what each stream says is guarded */
    struct rpc_stream *first; /* open streams */
    size_t open_count;        /* rpc thread */
    atomic_bool is_draining;
};

void rpc_stream_set_init(struct rpc_stream_set *set, struct rpc_call_pool *pool);
void rpc_stream_set_cleanup(struct rpc_stream_set *set);
/* Runs on_wake of every open stream. Any thread. */
void rpc_stream_set_wake(struct rpc_stream_set *set);
/* Ends every stream, and each that comes later, with UNAVAILABLE. Any thread. */
void rpc_stream_set_drain(struct rpc_stream_set *set);

/* Before grpc_server_start(). `method` must outlive the server. -EEXIST when the server has such a
 * method already. */
MUST_CHECK int rpc_stream_method_register(struct rpc_stream_method *method,
    struct rpc_stream_set *set, const struct rpc_method_place *place);
/* After it: asks for a stream; each that arrives is replaced by another. */
void rpc_stream_method_request(struct rpc_stream_method *method);

void *rpc_stream_userdata(const struct rpc_stream *stream); /* the method's */
/* A few bytes for the handler, zeroed when the stream arrives. */
#define RPC_STREAM_STATE_BYTES 32
void *rpc_stream_state(struct rpc_stream *stream);

/* Reads the next request. The first one is read without being asked for. */
void rpc_stream_read(struct rpc_stream *stream);
/* Frees the request: nothing of it is needed any more. Otherwise it is held until the next one is
 * read or the stream ends. */
void rpc_stream_forget_request(struct rpc_stream *stream);
bool rpc_stream_is_sending(const struct rpc_stream *stream);
/* Must not be sending. Ends the stream with RESOURCE_EXHAUSTED when the message is more than the
 * connection may hold. */
void rpc_stream_send(struct rpc_stream *stream, const ProtobufCMessage *message);
/* Ends the stream, after what is being sent. `message` is NULL or lives as long as the stream.
 * Later ends are ignored. */
void rpc_stream_finish(struct rpc_stream *stream, grpc_status_code status, const char *message);
bool rpc_stream_is_finished(const struct rpc_stream *stream);

#endif
