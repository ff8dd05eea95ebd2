/* What a client may do that is of no use to anyone: so much a second, in bursts, and more for
 * whoever also does what is of use. A leaky bucket; pure.
 */
#ifndef USERD_WORKER_RPC_RPC_ALLOWANCE_H
#define USERD_WORKER_RPC_RPC_ALLOWANCE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/attributes.h"

/* So many calls that are answered pay for one that is taken back. */
#define RPC_ALLOWANCE_USEFUL_FOR_ONE 4

struct rpc_allowance_rules {
    uint64_t per_second; /* 0: any number */
    uint64_t burst;
};

/* Zeroed at first. */
struct rpc_allowance {
    uint64_t level;
    uint64_t then_us; /* up to when the level has leaked */
    uint64_t useful;  /* that have not paid for one yet */
};

/* `wasted` more were taken back, and `useful` more answered, up to now. True: it is too much. */
MUST_CHECK bool rpc_allowance_is_exceeded(struct rpc_allowance *budget,
    const struct rpc_allowance_rules *rules, uint64_t now_us, uint64_t wasted, uint64_t useful);

/* How much somebody has done lately: halves each second. Zeroed at first. */
struct rpc_recent {
    uint64_t amount;
    uint64_t then_us;
};

/* Returns the amount with `more`. */
uint64_t rpc_recent_add(struct rpc_recent *recent, uint64_t now_us, uint64_t more);

/* A count that can only be seen from outside: it lies between two figures, of which the higher one
 * also holds what is on its way for a moment. What two looks agree on has come to stay. Zeroed at
 * first. */
struct rpc_settled {
    uint64_t last; /* the higher figure of the look before */
    uint64_t amount;
};

/* Returns by how much it has grown for certain. */
uint64_t rpc_settled_grow(struct rpc_settled *settled, uint64_t low, uint64_t high);

/* Whether a call that began and has ended at these times, or is still there, ended for its
 * deadline. The C core reports that as a cancellation, and most clients do cancel at theirs, which
 * is over before the one that they have told. */
bool rpc_deadline_has_passed(int64_t deadline_us, int64_t begun_us, int64_t now_us);

#endif
