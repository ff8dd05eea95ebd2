/* When memory is given back. */
#include <criterion/criterion.h>

#include "worker/rpc/rpc_memory.h"

#define MIB     (UINT64_C(1024) * 1024)
#define SECOND  UINT64_C(1000000)
#define ANY_DAY (100000 * SECOND)

/* A second for each; returns how often it was due. */
static unsigned int run(struct rpc_memory *memory, const uint64_t *mib, size_t count)
{
    unsigned int due = 0;
    for (size_t i = 0; i < count; i++)
        due += rpc_memory_is_due(memory, mib[i] * MIB, ANY_DAY + i * SECOND) ? 1 : 0;
    return due;
}

Test(rpc_memory, is_given_back_when_a_load_is_over)
{
    struct rpc_memory memory = {0};
    static const uint64_t growing[] = {20, 21, 60, 120, 200, 300};
    cr_assert_eq(run(&memory, growing, 6), 0);
    cr_assert(rpc_memory_is_due(&memory, 300 * MIB, ANY_DAY + 6 * SECOND));
    rpc_memory_note(&memory, 60 * MIB, ANY_DAY + 6 * SECOND);
    cr_assert_not(rpc_memory_is_due(&memory, 60 * MIB, ANY_DAY + 7 * SECOND));
    cr_assert(rpc_memory_is_due(&memory, 60 * MIB, ANY_DAY + 12 * SECOND));
}

Test(rpc_memory, is_left_alone_while_little_is_to_be_had)
{
    struct rpc_memory memory = {0};
    static const uint64_t even[] = {20, 30, 40, 40, 40, 40};
    cr_assert_eq(run(&memory, even, 6), 0);
}

Test(rpc_memory, is_asked_for_less_and_less_where_it_is_in_use)
{
    struct rpc_memory memory = {0};
    unsigned int due = 0;
    (void)rpc_memory_is_due(&memory, 20 * MIB, ANY_DAY);
    for (uint64_t passed = 1; passed <= 3600; passed++) {
        uint64_t now_us = ANY_DAY + passed * SECOND;
        if (!rpc_memory_is_due(&memory, 100 * MIB, now_us))
            continue;
        rpc_memory_note(&memory, 100 * MIB, now_us);
        due++;
    }
    cr_assert(due > 5 && due < 15, "%u", due);
}
