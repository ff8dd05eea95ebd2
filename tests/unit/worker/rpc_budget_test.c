/* What a connection may send, whatever becomes of it. */
#include <criterion/criterion.h>

#include "worker/rpc/rpc_budget.h"

#define TICK_US 100 /* reads follow one another closely */

static const struct rpc_budget_limits limits = {
    .headers = 10000,
    .calls_per_second = 5000,
    .calls_burst = 700,
    .messages_per_second = 1000,
    .messages_burst = 1100,
};

/* What each tick adds, in thousandths. */
struct tick {
    uint64_t headers;
    uint64_t messages;
    uint64_t answered;
};

/* The first verdict that is not RPC_BUDGET_FINE within so many seconds, or that. */
static enum rpc_budget_verdict run(const struct tick *tick, unsigned int seconds)
{
    struct rpc_budget budget = {0};
    for (uint64_t i = 1; i <= (uint64_t)seconds * 1000000 / TICK_US; i++) {
        const struct rpc_budget_sample sample = {
            .now_us = 77000000 + i * TICK_US,
            .headers = i * tick->headers / 1000,
            .messages = i * tick->messages / 1000,
            .answered = i * tick->answered / 1000,
        };
        enum rpc_budget_verdict verdict = rpc_budget_judge(&budget, &limits, &sample);
        if (verdict != RPC_BUDGET_FINE)
            return verdict;
    }
    return RPC_BUDGET_FINE;
}

/* A tick is a ten-thousandth of a second: thousandths of it are tens a second. */
#define PER_SECOND(number) ((number) / 10)

Test(rpc_budget, lets_a_busy_connection_be)
{
    const struct tick gateway = {
        .headers = PER_SECOND(50000), .messages = PER_SECOND(50000), .answered = PER_SECOND(45500)};
    cr_assert_eq(run(&gateway, 20), RPC_BUDGET_FINE);
}

/* All calls of a platform on one connection, one in ten taken back, and nearly one in five. */
Test(rpc_budget, lets_answered_calls_pay_for_those_that_are_taken_back)
{
    const struct tick gateway = {
        .headers = PER_SECOND(99000), .messages = PER_SECOND(99000), .answered = PER_SECOND(89000)};
    const struct tick hasty = {
        .headers = PER_SECOND(99000), .messages = PER_SECOND(99000), .answered = PER_SECOND(80000)};
    const struct tick hostile = {
        .headers = PER_SECOND(99000), .messages = PER_SECOND(99000), .answered = PER_SECOND(70000)};
    cr_assert_eq(run(&gateway, 20), RPC_BUDGET_FINE);
    cr_assert_eq(run(&hasty, 20), RPC_BUDGET_FINE);
    cr_assert_eq(run(&hostile, 20), RPC_BUDGET_CALLS);
}

Test(rpc_budget, ends_more_calls_than_anybody_has)
{
    const struct tick flood = {.headers = PER_SECOND(101000),
        .messages = PER_SECOND(101000),
        .answered = PER_SECOND(101000)};
    cr_assert_eq(run(&flood, 2), RPC_BUDGET_HEADERS);
}

Test(rpc_budget, ends_calls_that_come_to_nothing)
{
    const struct tick flood = {.headers = PER_SECOND(6000), .messages = PER_SECOND(6000)};
    const struct tick fewer = {.headers = PER_SECOND(4900), .messages = PER_SECOND(4900)};
    cr_assert_eq(run(&flood, 2), RPC_BUDGET_CALLS);
    cr_assert_eq(run(&fewer, 20), RPC_BUDGET_FINE);
}

Test(rpc_budget, ends_messages_beyond_those_of_calls)
{
    const struct tick flood = {.headers = PER_SECOND(100), .messages = PER_SECOND(1600)};
    const struct tick fewer = {.headers = PER_SECOND(100), .messages = PER_SECOND(1050)};
    cr_assert_eq(run(&flood, 5), RPC_BUDGET_MESSAGES);
    cr_assert_eq(run(&fewer, 20), RPC_BUDGET_FINE);
}

/* A worker that stood still finds all that came meanwhile in one read. */
Test(rpc_budget, lets_all_calls_come_at_once)
{
    struct rpc_budget budget = {0};
    struct rpc_budget_sample sample = {.now_us = 77000000};
    for (int i = 0; i < 50; i++) {
        sample.headers += 100;
        sample.messages += 100;
        cr_assert_eq(rpc_budget_judge(&budget, &limits, &sample), RPC_BUDGET_FINE);
        sample.answered += 100;
        sample.now_us += 10;
    }
}

/* They belong to another connection by then. */
Test(rpc_budget, bears_counters_that_go_back)
{
    struct rpc_budget budget = {0};
    struct rpc_budget_sample sample = {.now_us = 77000000, .headers = 10, .answered = 10};
    cr_assert_eq(rpc_budget_judge(&budget, &limits, &sample), RPC_BUDGET_FINE);
    sample.answered = 0;
    sample.headers = 20;
    cr_assert_eq(rpc_budget_judge(&budget, &limits, &sample), RPC_BUDGET_FINE);
}

Test(rpc_budget, knows_no_bound_of_unanswered_calls_where_there_is_none)
{
    const struct settings settings = {.limits.streams_per_connection = 10};
    struct rpc_budget_limits boundless = rpc_budget_limits_of(&settings);
    struct rpc_budget budget = {0};
    const struct rpc_budget_sample sample = {.now_us = 77000000, .headers = 9000, .messages = 9000};
    cr_assert_eq(rpc_budget_judge(&budget, &boundless, &sample), RPC_BUDGET_FINE);
}
