/* Memory of one call: grows by blocks, is given back all at once. The first block is part of the
 * object, so that an ordinary call asks malloc for nothing. Owned by whoever embeds it; one thread
 * at a time. */
#ifndef USERD_WORKER_RPC_RPC_ARENA_H
#define USERD_WORKER_RPC_RPC_ARENA_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>

#include "common/attributes.h"

#define RPC_ARENA_FIRST_BYTES 1024

struct rpc_arena_block;

struct rpc_arena {
    struct rpc_arena_block *blocks; /* owned */
    unsigned char *free_start;
    size_t free_bytes;
    size_t used_bytes;            /* handed out in all */
    size_t decode_limit_bytes;    /* the allocator below gives no more than this in all; see
                                     rpc_arena_init() */
    ProtobufCAllocator allocator; /* for protobuf-c: its free does nothing */
    _Alignas(max_align_t) unsigned char first[RPC_ARENA_FIRST_BYTES];
};

/* `decode_limit_bytes` bounds what a peer's message can grow to when it is decoded: unpacked
 * messages can be many times the size of their bytes. protobuf-c then reports a failure to unpack.
 */
void rpc_arena_init(struct rpc_arena *arena, size_t decode_limit_bytes);
/* Gives everything back; the arena can be used again. */
void rpc_arena_reset(struct rpc_arena *arena);

/* Aligned for anything, not zeroed. Aborts without memory: sizes are bounded by the caller. */
void *rpc_arena_allocate(struct rpc_arena *arena, size_t size);
/* Something was refused because of decode_limit_bytes since the last reset. */
#define rpc_arena_has_hit_limit(arena) ((arena)->used_bytes > (arena)->decode_limit_bytes)

#endif
