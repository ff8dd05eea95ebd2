/* What a client says in HTTP/2 (RFC 9113), followed from frame to frame beside the C core, for what
 * the C core itself has no bound for: how long a header block may get, in bytes and in frames, how
 * many streams are opened by who has not acknowledged our settings and so does not keep to them,
 * and how many are taken back at a time. In DATA frames it follows the gRPC messages
 * (rpc_messages.h); the contents of other frames are skipped. What is not HTTP/2 is the C core's to
 * refuse.
 */
#ifndef USERD_WORKER_RPC_RPC_FRAMES_H
#define USERD_WORKER_RPC_RPC_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/attributes.h"
#include "worker/rpc/rpc_messages.h"
#include "worker/rpc/rpc_open_requests.h"

#define RPC_FRAMES_HEAD_BYTES 9

struct rpc_frames_limits {
    uint32_t block_bytes;   /* of a header block as it is sent */
    uint32_t block_frames;  /* HEADERS and its CONTINUATIONs */
    uint32_t streams;       /* before our settings are acknowledged */
    uint32_t resets;        /* RST_STREAM before the count begins anew; 0: any number */
    uint32_t settings;      /* SETTINGS before the count begins anew; 0: any number */
    uint32_t open_requests; /* streams without a whole message (rpc_open_requests.h) */
    uint32_t
        half_messages; /* streams that are remembered with a message of which a part has come */
};

enum rpc_frames_verdict {
    RPC_FRAMES_FINE,
    RPC_FRAMES_BLOCK,
    RPC_FRAMES_STREAMS,
    RPC_FRAMES_RESETS,
    RPC_FRAMES_MESSAGE_FLAG, /* neither 0 nor 1: the C core would execute an empty message */
    RPC_FRAMES_SETTINGS,
    RPC_FRAMES_OPEN_REQUESTS,
    RPC_FRAMES_MEMORY, /* none is left to follow the connection with */
};

/* How far a connection has got. */
struct rpc_frames {
    uint32_t skip; /* bytes to go until the next frame's head */
    uint32_t block_bytes;
    uint32_t block_frames; /* of the block that is open; 0: none is */
    uint32_t streams;
    uint32_t resets;   /* the caller may set it to 0 at any time */
    uint32_t settings; /* likewise */
    bool has_acknowledged;
    bool is_data;          /* the frame whose contents are to come is DATA */
    uint64_t headers;      /* HEADERS frames, so far */
    uint64_t headers_then; /* when the caller began to count resets */
    struct rpc_messages messages;
    struct rpc_open_requests open;
    uint32_t now_ms;     /* the caller's clock, for what is in `open`; goes round */
    uint8_t head_length; /* the part of `head` that has come */
    uint8_t head[RPC_FRAMES_HEAD_BYTES];
};

/* A new connection, from its preface on. */
void rpc_frames_init(struct rpc_frames *frames);
/* A zeroed one needs none, but may have it. */
void rpc_frames_cleanup(struct rpc_frames *frames);
/* The next bytes of it. To be called no more after a verdict that is not fine. */
MUST_CHECK enum rpc_frames_verdict rpc_frames_follow(struct rpc_frames *frames,
    const struct rpc_frames_limits *limits, const void *bytes, size_t length);
/* For the log. */
const char *rpc_frames_verdict_name(enum rpc_frames_verdict verdict);

#endif
