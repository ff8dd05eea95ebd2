/* Gives memory back to the kernel when a load is over. malloc keeps what many threads have freed,
 * for ever if nobody asks: after a flood a worker would stay as large as it was at its worst. Watch
 * thread. */
#ifndef USERD_WORKER_RPC_RPC_MEMORY_H
#define USERD_WORKER_RPC_RPC_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

/* Zeroed at first. */
struct rpc_memory {
    uint64_t least_bytes; /* ever */
    uint64_t last_bytes;
    uint64_t next_us; /* not before */
    uint64_t pause_us;
};

/* Whether it is time: the process is much larger than it was, and has stopped growing. */
bool rpc_memory_is_due(struct rpc_memory *memory, uint64_t resident_bytes, uint64_t now_us);
/* It was given back: so much is left. */
void rpc_memory_note(struct rpc_memory *memory, uint64_t resident_bytes, uint64_t now_us);
/* Once a second: gives memory back when it is time, and logs what came of it. */
void rpc_memory_look(struct rpc_memory *memory, uint64_t resident_bytes, uint64_t now_us);

#endif
