#include "worker/rpc/rpc_open_limit.h"

/* A unit is about what a call without its message takes, and no message of the largest size is more
 * than an eighth of the worker's units. */
#define UNIT_BYTES_MIN    8192
#define UNITS_FOR_MESSAGE 512
/* Some are the server's to end (a deadline has passed), which the reader does not see. */
#define FOR_STREAM 2
/* A connection goes when it has at least half of what those that have some have on average. */
#define PART_OF_AVERAGE 2

struct rpc_open_limits rpc_open_limits_of(const struct settings *settings)
{
    return (struct rpc_open_limits){
        .units = (uint64_t)settings->limits.open_requests,
        .unit_bytes = UNIT_BYTES_MIN + (uint64_t)settings->limits.message_bytes / UNITS_FOR_MESSAGE,
        .of_connection = (uint32_t)settings->limits.streams_per_connection * FOR_STREAM,
        .timeout_ms = (uint32_t)settings->limits.request_timeout_ms,
    };
}

uint32_t rpc_open_units(const struct rpc_open_limits *limits, uint32_t requests, uint64_t bytes)
{
    uint64_t units = requests + bytes / limits->unit_bytes;
    return units < UINT32_MAX ? (uint32_t)units : UINT32_MAX;
}

static bool has_no_small_part(uint64_t units, const struct rpc_open_totals *totals)
{
    return units * totals->connections * PART_OF_AVERAGE >= totals->units;
}

enum rpc_open_verdict rpc_open_judge(const struct rpc_open_limits *limits, uint32_t units,
    uint32_t age_ms, const struct rpc_open_totals *address, const struct rpc_open_totals *worker)
{
    if (units == 0)
        return RPC_OPEN_FINE;
    if (worker->units > limits->units && has_no_small_part(units, worker))
        return RPC_OPEN_OF_WORKER;
    if (address != NULL && address->units >= RPC_OPEN_LIMIT_FEW &&
        address->units + worker->units > limits->units && has_no_small_part(units, address))
        return RPC_OPEN_OF_ADDRESS;
    if (limits->timeout_ms == 0 || age_ms <= limits->timeout_ms)
        return RPC_OPEN_FINE;
    return age_ms - limits->timeout_ms > RPC_OPEN_LIMIT_GRACE_MS ? RPC_OPEN_TOO_LATE
                                                                 : RPC_OPEN_LATE;
}

void rpc_open_totals_change(struct rpc_open_totals *totals, uint32_t before, uint32_t now)
{
    totals->units += now;
    totals->units -= before;
    totals->connections += now > 0 ? 1 : 0;
    totals->connections -= before > 0 ? 1 : 0;
}

const char *rpc_open_verdict_name(enum rpc_open_verdict verdict)
{
    static const char *const names[] = {
        [RPC_OPEN_FINE] = "none",
        [RPC_OPEN_OF_ADDRESS] = "open_requests_of_address",
        [RPC_OPEN_OF_WORKER] = "open_requests_of_worker",
        [RPC_OPEN_LATE] = "request_timeout",
        [RPC_OPEN_TOO_LATE] = "request_timeout",
    };
    return names[verdict];
}
