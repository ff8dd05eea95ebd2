/* What a connection may send, whatever becomes of it: HEADERS frames, and messages of streams.
 *
 * Three rules. (1) No connection sends more HEADERS in a tenth of a second than any client has
 * calls. (2) Of the calls that it opens, those that are answered cost it nothing, and each four of
 * them pay for one that is not (rpc_allowance.h). All others (taken
 * back, expired, refused by the C core, ended for an error, without a message) go into a leaking
 * bucket. (3) So do the messages beyond one for each call.
 *
 * Pure: knows neither sockets nor clocks.
 */
#ifndef USERD_WORKER_RPC_RPC_BUDGET_H
#define USERD_WORKER_RPC_RPC_BUDGET_H

#include <stdint.h>

#include "common/attributes.h"
#include "common/settings.h"

struct rpc_budget_limits {
    uint64_t headers;          /* in RPC_BUDGET_WINDOW_US */
    uint64_t calls_per_second; /* without an answer; 0: any number */
    uint64_t calls_burst;
    uint64_t messages_per_second; /* beyond one for each call */
    uint64_t messages_burst;
};

#define RPC_BUDGET_WINDOW_US 100000

/* What is remembered of a connection. Zeroed at first. */
struct rpc_budget {
    uint64_t then_us; /* of the last judgement, as the next three */
    uint64_t headers;
    uint64_t messages;
    uint64_t answered;
    uint64_t window_us; /* when it began */
    uint64_t window_headers;
    uint64_t calls_level; /* leaking buckets, in millionths */
    uint64_t messages_level;
};

/* So far, of one connection. */
struct rpc_budget_sample {
    uint64_t now_us;
    uint64_t headers;
    uint64_t messages;
    uint64_t answered; /* calls and streams that ended otherwise than by their client */
};

enum rpc_budget_verdict {
    RPC_BUDGET_FINE,
    RPC_BUDGET_HEADERS,
    RPC_BUDGET_CALLS,
    RPC_BUDGET_MESSAGES,
};

struct rpc_budget_limits rpc_budget_limits_of(const struct settings *settings);
MUST_CHECK enum rpc_budget_verdict rpc_budget_judge(struct rpc_budget *budget,
    const struct rpc_budget_limits *limits, const struct rpc_budget_sample *sample);
/* For the log. */
const char *rpc_budget_verdict_name(enum rpc_budget_verdict verdict);

#endif
