#include "worker/rpc/rpc_arena.h"

#include <stdint.h>
#include <stdlib.h>

#include "common/log.h"

#define ALIGNMENT       _Alignof(max_align_t)
#define BLOCK_MIN_BYTES ((size_t)4 * 1024)
#define BLOCK_MAX_BYTES ((size_t)256 * 1024)

struct rpc_arena_block {
    struct rpc_arena_block *next;
    _Alignas(max_align_t) unsigned char bytes[];
};

static void add_block(struct rpc_arena *arena, size_t needed_bytes)
{
    /* As large as all before it: few blocks for many small pieces. */
    size_t size = arena->used_bytes;
    if (size < BLOCK_MIN_BYTES)
        size = BLOCK_MIN_BYTES;
    if (size > BLOCK_MAX_BYTES)
        size = BLOCK_MAX_BYTES;
    if (size < needed_bytes)
        size = needed_bytes;

    struct rpc_arena_block *block = malloc(sizeof(*block) + size);
    if (block == NULL) {
        log_error("out of memory where=rpc_arena bytes=%zu", size);
        abort();
    }
    block->next = arena->blocks;
    arena->blocks = block;
    arena->free_start = block->bytes;
    arena->free_bytes = size;
}

void *rpc_arena_allocate(struct rpc_arena *arena, size_t size)
{
    size_t rounded = (size + ALIGNMENT - 1) & ~(ALIGNMENT - 1);
    if (rounded < size) {
        log_error("arena request too large bytes=%zu", size);
        abort();
    }
    if (rounded > arena->free_bytes)
        add_block(arena, rounded);
    void *start = arena->free_start;
    arena->free_start += rounded;
    arena->free_bytes -= rounded;
    arena->used_bytes += rounded;
    return start;
}

static void *allocate_for_decoder(void *arena_pointer, size_t size)
{
    struct rpc_arena *arena = arena_pointer;
    if (rpc_arena_has_hit_limit(arena))
        return NULL;
    if (size > arena->decode_limit_bytes - arena->used_bytes) {
        arena->used_bytes =
            SIZE_MAX; /* remembered until the reset: see rpc_arena_has_hit_limit() */
        return NULL;
    }
    return rpc_arena_allocate(arena, size);
}

static void free_for_decoder(void *arena, void *pointer)
{
    (void)arena;
    (void)pointer;
}

void rpc_arena_init(struct rpc_arena *arena, size_t decode_limit_bytes)
{
    arena->blocks = NULL;
    arena->decode_limit_bytes = decode_limit_bytes;
    arena->allocator = (ProtobufCAllocator){
        .alloc = allocate_for_decoder,
        .free = free_for_decoder,
        .allocator_data = arena,
    };
    rpc_arena_reset(arena);
}

void rpc_arena_reset(struct rpc_arena *arena)
{
    while (arena->blocks != NULL) {
        struct rpc_arena_block *next = arena->blocks->next;
        free(arena->blocks);
        arena->blocks = next;
    }
    arena->free_start = arena->first;
    arena->free_bytes = sizeof(arena->first);
    arena->used_bytes = 0;
}
