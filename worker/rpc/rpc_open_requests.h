/* The streams of a connection whose first message has not come yet: each costs the C core a call
 * that nobody hears of. Which they are, and since when.
 *
 * A stream is here from its HEADERS until its first message is complete, or its client has ended it
 * or taken it back. What the server has ended before that stays: its client need not say anything
 * more of it. Streams are numbered upwards (RFC 9113, section 5.1.1), so that the oldest one is the
 * first, and in most connections there is none between two reads.
 */
#ifndef USERD_WORKER_RPC_RPC_OPEN_REQUESTS_H
#define USERD_WORKER_RPC_RPC_OPEN_REQUESTS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/attributes.h"

struct rpc_open_request {
    uint32_t stream;
    uint32_t begun_ms; /* goes round */
    uint32_t bytes;    /* of its header fields and its message that have come */
    bool is_over;      /* it is not here any more */
};

/* Zeroed at first. */
struct rpc_open_requests {
    struct rpc_open_request
        *places; /* owned: in the order of their streams; NULL: none needed yet */
    uint32_t capacity;
    uint32_t first; /* place in use; those before it are free */
    uint32_t end;   /* behind the last one in use */
    uint32_t count; /* of those that are here */
    uint64_t bytes; /* of all that are here */
    uint32_t last_stream;
};

void rpc_open_requests_cleanup(struct rpc_open_requests *requests);
/* HEADERS of this stream came; a number that is not above all before is no new stream. -ENOSPC:
 * there are `limit` already. -ENOMEM. */
MUST_CHECK int rpc_open_requests_begin(
    struct rpc_open_requests *requests, uint32_t stream, uint32_t limit, uint32_t now_ms);
/* So many more bytes of it have come, and there are more to come. */
void rpc_open_requests_add(struct rpc_open_requests *requests, uint32_t stream, uint32_t bytes);
/* Its first message is complete, or no more will come of it. It need not be here. */
void rpc_open_requests_end(struct rpc_open_requests *requests, uint32_t stream);
/* When the oldest one began; only while there are some. */
uint32_t rpc_open_requests_oldest_ms(const struct rpc_open_requests *requests);

#endif
