/* A call's memory. */
#include <criterion/criterion.h>
#include <stdint.h>
#include <string.h>

#include "worker/rpc/rpc_arena.h"

Test(rpc_arena, gives_aligned_memory_that_does_not_overlap)
{
    struct rpc_arena arena;
    rpc_arena_init(&arena, SIZE_MAX);
    unsigned char *pieces[200];
    for (size_t i = 0; i < ARRAY_LENGTH(pieces); i++) {
        pieces[i] = rpc_arena_allocate(&arena, i + 1);
        cr_assert_eq((uintptr_t)pieces[i] % _Alignof(max_align_t), 0);
        memset(pieces[i], (int)i, i + 1);
    }
    for (size_t i = 0; i < ARRAY_LENGTH(pieces); i++)
        cr_assert(pieces[i][0] == i && pieces[i][i] == i);
    rpc_arena_reset(&arena);
}

Test(rpc_arena, starts_in_the_object_itself_and_again_after_a_reset)
{
    struct rpc_arena arena;
    rpc_arena_init(&arena, SIZE_MAX);
    void *first = rpc_arena_allocate(&arena, 16);
    cr_assert_eq(first, (void *)arena.first);
    (void)rpc_arena_allocate(&arena, 1000000);
    rpc_arena_reset(&arena);
    cr_assert_eq(rpc_arena_allocate(&arena, 16), first);
    cr_assert_null(arena.blocks);
}

Test(rpc_arena, bounds_what_a_decoder_gets)
{
    struct rpc_arena arena;
    rpc_arena_init(&arena, 4096);
    cr_assert_not_null(arena.allocator.alloc(&arena, 4000));
    cr_assert(!rpc_arena_has_hit_limit(&arena));
    cr_assert_null(arena.allocator.alloc(&arena, 4000));
    cr_assert(rpc_arena_has_hit_limit(&arena));
    cr_assert_null(arena.allocator.alloc(&arena, 1), "stays so until the reset");
    rpc_arena_reset(&arena);
    cr_assert_not_null(arena.allocator.alloc(&arena, 1));
    rpc_arena_reset(&arena);
}
