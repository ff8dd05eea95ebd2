/* What a client may do to a worker, and the end of a connection that does more.
 *
 * The C core has no bound for some of it: frames that never become a call, calls that are taken
 * back as fast as they are made, more streams than we allow for those who never acknowledge our
 * settings, answers that are not read. A connection is judged from outside: by what the kernel
 * counts for its socket and by what its calls hold. Unix sockets have no such counters; the rules
 * about calls hold there, the one about bytes does not. Who looks, and when: rpc_watch.h.
 */
#ifndef USERD_WORKER_RPC_RPC_GUARD_H
#define USERD_WORKER_RPC_RPC_GUARD_H

#include <stdbool.h>
#include <stdint.h>

#include "common/attributes.h"
#include "common/settings.h"
#include "worker/rpc/rpc_peer.h"

struct rpc_guard_rules {
    uint64_t one_way_bytes; /* 0: any number */
    uint64_t message_bytes;
    uint64_t cancels_per_second; /* likewise */
    uint64_t cancel_burst;
    uint64_t calls; /* that wait or are unsent at a time */
    uint64_t unread_timeout_us;
};

/* What can be seen of a connection at a time. */
struct rpc_guard_sample {
    uint64_t now_us;
    uint64_t received;     /* bytes; both 0 where the kernel does not count */
    uint64_t acknowledged; /* of ours, by the client */
    uint64_t arrived;      /* calls, so far */
    uint64_t cancelled;
    uint64_t finished;
    uint64_t memory;  /* of the worker, in bytes */
    uint64_t waiting; /* calls, now */
    uint64_t unsent;
};

/* What is remembered of a connection. Zeroed at first. */
struct rpc_guard {
    struct rpc_guard_sample last;
    uint64_t byte_level;   /* leaking buckets */
    uint64_t memory_then;  /* when byte_level was last 0 */
    uint64_t cancel_level; /* in millionths */
    uint64_t stuck_since_us;
};

enum rpc_guard_verdict {
    RPC_GUARD_FINE,
    RPC_GUARD_ONE_WAY,
    RPC_GUARD_CANCELS,
    RPC_GUARD_CALLS,
    RPC_GUARD_UNREAD,
};

struct rpc_guard_rules rpc_guard_rules_of(const struct settings *settings);
/* `peer` is the connection behind `fd`, `memory_bytes` what rpc_guard_memory_bytes() said. */
struct rpc_guard_sample rpc_guard_look(int fd, const struct rpc_peer *peer, uint64_t memory_bytes);
/* What this process has in memory; 0: not known. */
uint64_t rpc_guard_memory_bytes(void);
/* Nothing has come since the last look, and nothing is under way. */
bool rpc_guard_is_quiet(const struct rpc_guard *guard, const struct rpc_guard_sample *sample);
/* To be asked once for each sample, which it remembers. */
MUST_CHECK enum rpc_guard_verdict rpc_guard_judge(struct rpc_guard *guard,
    const struct rpc_guard_rules *rules, const struct rpc_guard_sample *sample);
/* For the log. */
const char *rpc_guard_verdict_name(enum rpc_guard_verdict verdict);
/* Ends the connection behind `fd` for all that have it, with what waits in either direction. */
void rpc_guard_reset_connection(int fd);

#endif
