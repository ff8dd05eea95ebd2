/* How many requests may be open, that is begun and not here: of a connection, of an address, and of
 * the worker; and for how long.
 *
 * Each costs the C core a call with its header fields, and what has come of its message. They count
 * in units: one for each, and one for each rpc_open_limits.unit_bytes of messages and fields. An
 * address may have as many as are free (as with calls, rpc_peer.h), and above the limit of the
 * worker those connections go that have more than others. Pure.
 */
#ifndef USERD_WORKER_RPC_RPC_OPEN_LIMIT_H
#define USERD_WORKER_RPC_RPC_OPEN_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/attributes.h"
#include "common/settings.h"

/* An address with fewer is let alone: a connection may always have some. */
#define RPC_OPEN_LIMIT_FEW 16
/* Who was told to go because a request took too long is reset after so much more. */
#define RPC_OPEN_LIMIT_GRACE_MS 5000

struct rpc_open_limits {
    uint64_t units; /* of the worker */
    uint64_t unit_bytes;
    uint32_t of_connection; /* requests */
    uint32_t timeout_ms;    /* for a request; 0: none */
};

/* Of the worker, or of an address. */
struct rpc_open_totals {
    uint64_t units;
    uint64_t connections; /* that have some */
};

enum rpc_open_verdict {
    RPC_OPEN_FINE,
    RPC_OPEN_OF_ADDRESS, /* the address has too many, and this connection no few of them */
    RPC_OPEN_OF_WORKER,  /* the worker has too many, likewise */
    RPC_OPEN_LATE,       /* the oldest one takes too long: the client is told to go */
    RPC_OPEN_TOO_LATE,   /* and it has not gone */
};

struct rpc_open_limits rpc_open_limits_of(const struct settings *settings);
uint32_t rpc_open_units(const struct rpc_open_limits *limits, uint32_t requests, uint64_t bytes);
/* Of a connection that has `units`, the oldest for `age_ms`. `address` NULL: no limit on addresses
 * binds it. */
MUST_CHECK enum rpc_open_verdict rpc_open_judge(const struct rpc_open_limits *limits,
    uint32_t units, uint32_t age_ms, const struct rpc_open_totals *address,
    const struct rpc_open_totals *worker);
/* A connection that had `before` has `now`. */
void rpc_open_totals_change(struct rpc_open_totals *totals, uint32_t before, uint32_t now);
/* For the log. */
const char *rpc_open_verdict_name(enum rpc_open_verdict verdict);

#endif
