/* Follows the gRPC messages in a connection's DATA frames: each message begins with a flag and a
 * length (gRPC over HTTP/2, "Length-Prefixed-Message"), wherever frames are cut.
 *
 * The C core executes a message whose flag is neither 0 nor 1 as an empty message and gives no sign
 * of it. It must therefore not get to see one.
 *
 * State is kept only for streams whose last DATA frame ended within a message: most have none. A
 * connection has so many of them at most; one more drops the oldest stream's.
 */
#ifndef USERD_WORKER_RPC_RPC_MESSAGES_H
#define USERD_WORKER_RPC_RPC_MESSAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/attributes.h"

/* Where a stream is between two of its bytes. All zero: between two messages. */
struct rpc_messages_place {
    uint32_t stream; /* 0: none */
    uint32_t left;   /* bytes of the message that are to come; of its length what has come */
    uint8_t prefix;  /* bytes of the prefix that have come */
};

/* Zeroed at first. */
struct rpc_messages {
    struct rpc_messages_place now;     /* of the frame that is being read */
    struct rpc_messages_place *places; /* owned: a hash table; NULL: not needed yet */
    uint32_t capacity;                 /* of it, a power of two */
    uint32_t count;
    uint64_t secret; /* of its order */
    uint64_t begun;  /* messages, so far */
};

void rpc_messages_cleanup(struct rpc_messages *messages);
/* A DATA frame of this stream begins. */
void rpc_messages_begin_frame(struct rpc_messages *messages, uint32_t stream);
/* The next bytes of it. False: a message's flag is neither 0 nor 1; nothing may be called after it
 * but rpc_messages_cleanup(). */
MUST_CHECK bool rpc_messages_follow(
    struct rpc_messages *messages, const uint8_t *bytes, size_t length);
/* The frame is over. At most `limit` streams are remembered. Negative errno: this one
 * could not be. */
MUST_CHECK int rpc_messages_end_frame(
    struct rpc_messages *messages, bool is_last_of_stream, uint32_t limit);
/* The client took the stream back. */
void rpc_messages_forget(struct rpc_messages *messages, uint32_t stream);

#endif
