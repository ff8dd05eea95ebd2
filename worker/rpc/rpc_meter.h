/* What the scoreboard says of each unary method: answers by status, and how long they took. Rpc
 * thread alone, which is the one writer: no locked instruction, no lock.
 */
#ifndef USERD_WORKER_RPC_RPC_METER_H
#define USERD_WORKER_RPC_RPC_METER_H

#include <grpc/status.h>

#include "common/scoreboard.h"

/* The row of the method ("package.Service/Method"): the one that it has on another listener, or a
 * new one. NULL: there is no row left, or the name is too long; then it is not counted. Before the
 * first call. */
struct scoreboard_method *rpc_meter_open(struct scoreboard_slot *slot, const char *name);

/* `row` may be NULL. */
static inline void rpc_meter_add(
    struct scoreboard_method *row, grpc_status_code status, uint64_t duration_us)
{
    if (row == NULL)
        return;
    unsigned int code = (unsigned int)status;
    scoreboard_add(&row->statuses[code < SCOREBOARD_STATUSES ? code : GRPC_STATUS_UNKNOWN], 1);
    scoreboard_add(&row->latency[latency_histogram_bucket(duration_us)], 1);
    scoreboard_add(&row->latency_sum_us, duration_us);
}

#endif
