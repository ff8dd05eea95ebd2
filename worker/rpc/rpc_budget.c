#include "worker/rpc/rpc_budget.h"

#include "common/monotonic_clock.h"
#include "worker/rpc/rpc_allowance.h"

/* A hundred thousand calls a second on one connection: more than a worker can answer. */
#define HEADERS_IN_WINDOW 10000
/* A client may have all of its calls under way and have taken back as many. */
#define CALLS_FOR_STREAM  2
#define WINDOWS_OF_SECOND (MONOTONIC_CLOCK_US_PER_S / RPC_BUDGET_WINDOW_US)
/* A tool that asks reflection for all there is needs some tens. */
#define MESSAGES_PER_SECOND 1000

#define MILLIONTHS UINT64_C(1000000)

struct rpc_budget_limits rpc_budget_limits_of(const struct settings *settings)
{
    uint64_t streams = (uint64_t)settings->limits.streams_per_connection;
    uint64_t cancels = (uint64_t)settings->limits.cancels_per_second;
    return (struct rpc_budget_limits){
        .headers = HEADERS_IN_WINDOW,
        .calls_per_second = cancels,
        .calls_burst = streams * CALLS_FOR_STREAM + cancels / WINDOWS_OF_SECOND,
        .messages_per_second = MESSAGES_PER_SECOND,
        .messages_burst = streams + MESSAGES_PER_SECOND,
    };
}

/* The counters are other threads': one may be behind for a moment, or a newer connection's. */
static uint64_t growth(uint64_t now, uint64_t before)
{
    return now > before ? now - before : 0;
}

/* Fills with `in`, empties by `out` and by what has leaked. */
static void fill(
    uint64_t *level, uint64_t in, uint64_t out_millionths, uint64_t per_second, uint64_t passed_us)
{
    uint64_t gone = out_millionths + per_second * passed_us;
    *level = growth(*level + in * MILLIONTHS, gone);
}

enum rpc_budget_verdict rpc_budget_judge(struct rpc_budget *budget,
    const struct rpc_budget_limits *limits, const struct rpc_budget_sample *sample)
{
    uint64_t headers = growth(sample->headers, budget->headers);
    uint64_t messages = growth(sample->messages, budget->messages);
    uint64_t answered = growth(sample->answered, budget->answered);
    uint64_t passed_us = budget->then_us == 0 ? 0 : growth(sample->now_us, budget->then_us);
    if (sample->now_us - budget->window_us >= RPC_BUDGET_WINDOW_US) {
        budget->window_us = sample->now_us;
        budget->window_headers = 0;
    }
    budget->window_headers += headers;
    uint64_t paid = answered * MILLIONTHS + answered * MILLIONTHS / RPC_ALLOWANCE_USEFUL_FOR_ONE;
    fill(&budget->calls_level, headers, paid, limits->calls_per_second, passed_us);
    fill(&budget->messages_level, messages, headers * MILLIONTHS, limits->messages_per_second,
        passed_us);
    budget->then_us = sample->now_us;
    budget->headers = sample->headers;
    budget->messages = sample->messages;
    budget->answered = sample->answered;
    if (budget->window_headers > limits->headers)
        return RPC_BUDGET_HEADERS;
    if (limits->calls_per_second > 0 && budget->calls_level > limits->calls_burst * MILLIONTHS)
        return RPC_BUDGET_CALLS;
    if (budget->messages_level > limits->messages_burst * MILLIONTHS)
        return RPC_BUDGET_MESSAGES;
    return RPC_BUDGET_FINE;
}

const char *rpc_budget_verdict_name(enum rpc_budget_verdict verdict)
{
    static const char *const names[] = {
        [RPC_BUDGET_FINE] = "none",
        [RPC_BUDGET_HEADERS] = "headers",
        [RPC_BUDGET_CALLS] = "unanswered_calls",
        [RPC_BUDGET_MESSAGES] = "messages",
    };
    return names[verdict];
}
