/* Connections without a call: when one is told to go, and how.
 *
 * As in nginx, an idle connection is left alone for long while there is room for others, and goes
 * soon when there is not. It goes politely: GOAWAY makes a gRPC client connect anew when it has its
 * next call, and a call that is on its way at that moment is still served here. Who stays all the
 * same is cut off after a grace period.
 */
#ifndef USERD_WORKER_RPC_RPC_IDLE_H
#define USERD_WORKER_RPC_RPC_IDLE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/attributes.h"
#include "common/settings.h"

#define RPC_IDLE_GRACE_US UINT64_C(5000000)

struct rpc_idle_rules {
    uint64_t timeout_us; /* 0: never */
    uint64_t shortage_timeout_us;
};

/* What is remembered of a connection. */
struct rpc_idle {
    uint64_t used_us; /* CLOCK_MONOTONIC: it had a call, or began */
    uint64_t told_us; /* when it was told to go; 0: it was not */
};

enum rpc_idle_verdict { RPC_IDLE_STAY, RPC_IDLE_TELL, RPC_IDLE_CLOSE };

struct rpc_idle_rules rpc_idle_rules_of(const struct settings *settings);
/* A connection that has no call and no stream now. The caller notes in *idle what it then does. */
MUST_CHECK enum rpc_idle_verdict rpc_idle_judge(const struct rpc_idle *idle,
    const struct rpc_idle_rules *rules, bool is_short, uint64_t now_us);
/* Sends GOAWAY on a connection that nobody else is sending on. False: it cannot be sent whole. */
MUST_CHECK bool rpc_idle_send_goaway(int fd);

#endif
