/* What leans on entry points of the C core (and of abseil below it) that are exported but not
 * public: all of it is here.
 *
 * Used only when the library is the very release that it was proven with and a self-test at start
 * passes; otherwise, or when core_bridge is "off", each has its public way: connections through
 * grpc_server_add_channel_from_fd(), a drain without GOAWAY before it, compression by an unknown
 * algorithm not noticed, a write for each reply, and abseil as it is. Loop thread, after
 * grpc_init().
 */
#ifndef USERD_WORKER_RPC_CORE_BRIDGE_H
#define USERD_WORKER_RPC_CORE_BRIDGE_H

#include <grpc/grpc.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/attributes.h"
#include "common/settings.h"

struct core_bridge {
    bool has_acceptor;
    bool has_goaway;
    bool has_message_flags;
    bool has_burst;
    void (*send_goaways)(void *server);
    uint32_t (*get_message_flags)(grpc_call *call);
    grpc_call_error (*start_batch)(grpc_call *call, const grpc_op *operations,
        size_t operation_count, void *tag, bool is_closure);
};

/* Looks for the entry points and tests them. Does not fail: what cannot be used is not used, and
 * logged. */
void core_bridge_open(struct core_bridge *bridge, enum core_bridge_mode mode);

/* Where the C core puts its way in for accepted connections. Must outlive the server and stay where
 * it is. */
struct core_acceptor {
    void *handler; /* the C core's object, NULL: none */
};

/* For the arguments of grpc_server_create(). */
grpc_arg core_bridge_acceptor_argument(struct core_acceptor *acceptor);
/* Between grpc_server_create(), with the argument above, and grpc_server_start(). False: use the
 * public way. */
bool core_bridge_open_acceptor(const struct core_bridge *bridge, struct core_acceptor *acceptor,
    grpc_server *server, grpc_server_credentials *credentials);
/* Hands over a connected, non-blocking socket; the C core owns it from here on. Between
 * grpc_server_start() and grpc_server_shutdown_and_notify(), never later. */
void core_bridge_accept(const struct core_acceptor *acceptor, int fd);

/* Asks all clients of a started server to open no more calls here. False: there is no way to. */
bool core_bridge_send_goaways(const struct core_bridge *bridge, grpc_server *server);

/* Runs `function` with one execution context of the C core around all of it: what the batches that
 * it starts with core_bridge_start_batch() have to say leaves when it has returned, in one write
 * for each connection. Any thread, but not within another. False: there is no way to, it has not
 * run. */
bool core_bridge_run_burst(
    const struct core_bridge *bridge, void (*function)(void *state), void *state);
/* As grpc_call_start_batch(), inside such a function only. */
grpc_call_error core_bridge_start_batch(const struct core_bridge *bridge, grpc_call *call,
    const grpc_op *operations, size_t operation_count, void *tag);

/* The last message that the call received was compressed, whether or not the C core knows the
 * algorithm: it takes one that it does not know for none, and hands the bytes out as if they were
 * plain. False when there is no way to see it. */
bool core_bridge_is_compressed(const struct core_bridge *bridge, grpc_call *call);
/* The call's last message, as the C core handed it out: one that only looks plain gets
 * GRPC_COMPRESS_ALGORITHMS_COUNT for its algorithm. */
void core_bridge_mark_compression(
    const struct core_bridge *bridge, grpc_call *call, grpc_byte_buffer *message);

#endif
