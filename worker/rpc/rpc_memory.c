#include "worker/rpc/rpc_memory.h"

#include <malloc.h>

#include "common/log.h"
#include "common/monotonic_clock.h"
#include "worker/rpc/rpc_guard.h"

#define MIB (UINT64_C(1024) * 1024)
/* An ordinary load comes and goes within this. */
#define GROWTH_BYTES (24 * MIB)
/* A second without growth by more than that: the load is over, or even. */
#define EVEN_BYTES (1 * MIB)
/* It takes some milliseconds of those that allocate meanwhile. Longer and longer where nothing
 * comes of it: what is in use cannot be given back. */
#define PAUSE_US     (UINT64_C(5) * MONOTONIC_CLOCK_US_PER_S)
#define PAUSE_MAX_US (UINT64_C(600) * MONOTONIC_CLOCK_US_PER_S)

bool rpc_memory_is_due(struct rpc_memory *memory, uint64_t resident_bytes, uint64_t now_us)
{
    bool is_even = resident_bytes < memory->last_bytes + EVEN_BYTES;
    bool is_large = resident_bytes > memory->least_bytes + GROWTH_BYTES;
    if (memory->least_bytes == 0 || resident_bytes < memory->least_bytes)
        memory->least_bytes = resident_bytes;
    memory->last_bytes = resident_bytes;
    return memory->least_bytes != resident_bytes && is_even && is_large &&
           now_us >= memory->next_us;
}

void rpc_memory_note(struct rpc_memory *memory, uint64_t resident_bytes, uint64_t now_us)
{
    bool is_useful = resident_bytes + EVEN_BYTES < memory->last_bytes;
    memory->pause_us = is_useful || memory->pause_us == 0 ? PAUSE_US : memory->pause_us * 2;
    if (memory->pause_us > PAUSE_MAX_US)
        memory->pause_us = PAUSE_MAX_US;
    memory->next_us = now_us + memory->pause_us;
    memory->last_bytes = resident_bytes;
}

void rpc_memory_look(struct rpc_memory *memory, uint64_t resident_bytes, uint64_t now_us)
{
    if (resident_bytes == 0 || !rpc_memory_is_due(memory, resident_bytes, now_us))
        return;
    (void)malloc_trim(0);
    uint64_t now_bytes = rpc_guard_memory_bytes();
    rpc_memory_note(memory, now_bytes, now_us);
    log_info("memory given back before_mib=%llu after_mib=%llu",
        (unsigned long long)(resident_bytes / MIB), (unsigned long long)(now_bytes / MIB));
}
