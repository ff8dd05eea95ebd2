/* What a connection is cut off for, and what it is not. */
#include <criterion/criterion.h>

#include "worker/rpc/rpc_guard.h"

#define TICK_US  10000
#define MEGABYTE ((uint64_t)1024 * 1024)

static const struct rpc_guard_rules rules = {
    .one_way_bytes = 262144,
    .message_bytes = 4 * MEGABYTE,
    .cancels_per_second = 5000,
    .cancel_burst = 2000,
    .calls = 4000,
    .unread_timeout_us = 1000000,
};

/* What each tick adds. */
struct tick {
    uint64_t received;
    uint64_t acknowledged;
    uint64_t memory;
    uint64_t arrived;
    uint64_t cancelled;
    uint64_t finished;
};

/* The first verdict that is not RPC_GUARD_FINE in so many ticks, or that. */
static enum rpc_guard_verdict run(
    const struct tick *tick, int ticks, uint64_t waiting, uint64_t unsent)
{
    struct rpc_guard guard = {0};
    struct rpc_guard_sample sample = {
        .now_us = 1000000, .memory = 30 * MEGABYTE, .waiting = waiting, .unsent = unsent};
    for (int i = 0; i < ticks; i++) {
        enum rpc_guard_verdict verdict = rpc_guard_judge(&guard, &rules, &sample);
        if (verdict != RPC_GUARD_FINE)
            return verdict;
        sample.now_us += TICK_US;
        sample.received += tick->received;
        sample.acknowledged += tick->acknowledged;
        sample.memory += tick->memory;
        sample.arrived += tick->arrived;
        sample.cancelled += tick->cancelled;
        sample.finished += tick->finished;
    }
    return RPC_GUARD_FINE;
}

Test(rpc_guard, lets_calls_that_are_answered_be_as_many_as_they_like)
{
    const struct tick busy = {
        .received = 100000, .acknowledged = 50000, .arrived = 1000, .finished = 1000};
    cr_assert_eq(run(&busy, 1000, 1000, 100), RPC_GUARD_FINE);
}

Test(rpc_guard, lets_calls_with_large_headers_wait_for_the_database)
{
    const struct tick waiting = {.received = 400000, .memory = MEGABYTE, .arrived = 100};
    cr_assert_eq(run(&waiting, 100, 1000, 0), RPC_GUARD_FINE);
}

Test(rpc_guard, lets_a_large_message_come)
{
    const struct tick upload = {.received = 100000, .acknowledged = 0, .memory = 100000};
    cr_assert_eq(run(&upload, 43, 0, 0), RPC_GUARD_FINE);
}

Test(rpc_guard, ends_what_brings_nothing_and_takes_memory)
{
    const struct tick flood = {.received = 50000, .memory = 4 * MEGABYTE};
    cr_assert_eq(run(&flood, 10, 0, 0), RPC_GUARD_ONE_WAY);
}

Test(rpc_guard, ends_what_brings_nothing_at_all)
{
    const struct tick flood = {.received = 500000};
    cr_assert_eq(run(&flood, 30, 0, 0), RPC_GUARD_ONE_WAY);
}

Test(rpc_guard, lets_all_calls_be_taken_back_at_once_but_not_for_ever)
{
    const struct tick rapid = {
        .received = 20000, .arrived = 300, .cancelled = 300, .finished = 300};
    cr_assert_eq(run(&rapid, 5, 300, 0), RPC_GUARD_FINE);
    cr_assert_eq(run(&rapid, 50, 300, 0), RPC_GUARD_CANCELS);
}

Test(rpc_guard, ends_streams_without_number)
{
    const struct tick nothing = {0};
    cr_assert_eq(run(&nothing, 3, 3000, 1001), RPC_GUARD_CALLS);
    cr_assert_eq(run(&nothing, 3, 1000, 0), RPC_GUARD_FINE);
}

Test(rpc_guard, ends_a_connection_that_does_not_read)
{
    const struct tick nothing = {0};
    const struct tick slow = {.finished = 1};
    cr_assert_eq(run(&nothing, 99, 0, 5), RPC_GUARD_FINE);
    cr_assert_eq(run(&nothing, 110, 0, 5), RPC_GUARD_UNREAD);
    cr_assert_eq(run(&slow, 1000, 0, 5), RPC_GUARD_FINE);
    cr_assert_eq(run(&nothing, 1000, 5, 0), RPC_GUARD_FINE, "waiting is our part");
}

/* Nobody looks at a connection while it is idle: what has happened meanwhile is not its doing. */
Test(rpc_guard, lets_an_idle_connection_make_a_call)
{
    struct rpc_guard guard = {0};
    struct rpc_guard_sample sample = {
        .now_us = 1000000, .memory = 30 * MEGABYTE, .arrived = 7, .finished = 7};
    cr_assert_eq(rpc_guard_judge(&guard, &rules, &sample), RPC_GUARD_FINE);
    sample.now_us += 16 * rules.unread_timeout_us;
    sample.arrived++;
    sample.unsent = 1;
    cr_assert_eq(rpc_guard_judge(&guard, &rules, &sample), RPC_GUARD_FINE);
    sample.now_us += rules.unread_timeout_us;
    cr_assert_eq(rpc_guard_judge(&guard, &rules, &sample), RPC_GUARD_FINE);
    sample.now_us += TICK_US;
    cr_assert_eq(
        rpc_guard_judge(&guard, &rules, &sample), RPC_GUARD_UNREAD, "it counts from there");
}

/* In the pause others have made the worker grow; half a message has come before it. */
static void resume(uint64_t received_before, uint64_t growth, enum rpc_guard_verdict verdict)
{
    struct rpc_guard guard = {0};
    struct rpc_guard_sample sample = {.now_us = 1000000, .memory = 30 * MEGABYTE};
    cr_assert_eq(rpc_guard_judge(&guard, &rules, &sample), RPC_GUARD_FINE);
    sample.now_us += TICK_US;
    sample.received += received_before;
    cr_assert_eq(rpc_guard_judge(&guard, &rules, &sample), RPC_GUARD_FINE);
    sample.now_us += 60000000;
    sample.memory += 100 * MEGABYTE;
    sample.received += MEGABYTE;
    cr_assert_eq(rpc_guard_judge(&guard, &rules, &sample), RPC_GUARD_FINE);
    sample.now_us += TICK_US;
    sample.memory += growth;
    sample.received += MEGABYTE;
    cr_assert_eq(rpc_guard_judge(&guard, &rules, &sample), verdict);
}

Test(rpc_guard, does_not_lay_growth_during_a_pause_to_the_connection)
{
    resume(0, MEGABYTE, RPC_GUARD_FINE);
    resume(100000, MEGABYTE, RPC_GUARD_FINE);
    resume(0, 25 * MEGABYTE, RPC_GUARD_ONE_WAY);
    resume(100000, 25 * MEGABYTE, RPC_GUARD_ONE_WAY);
}

Test(rpc_guard, forgets_in_a_pause_what_was_taken_back_before)
{
    const struct rpc_guard_rules few = {
        .cancels_per_second = 1, .cancel_burst = 20, .calls = 40, .unread_timeout_us = 1000000};
    struct rpc_guard guard = {0};
    struct rpc_guard_sample sample = {.now_us = 1000000};
    for (int i = 0; i < 10; i++) {
        sample.arrived += 15;
        sample.cancelled += 15;
        sample.finished += 15;
        cr_assert_eq(rpc_guard_judge(&guard, &few, &sample), RPC_GUARD_FINE);
        sample.now_us += 60000000;
    }
}

Test(rpc_guard, forgets_at_a_small_rate_what_was_taken_back)
{
    const struct rpc_guard_rules few = {
        .cancels_per_second = 50, .cancel_burst = 20, .calls = 40, .unread_timeout_us = 1000000};
    struct rpc_guard guard = {0};
    struct rpc_guard_sample sample = {.now_us = 1000000};
    for (int i = 0; i < 10000; i++) {
        if (i % 4 == 0) /* 25 a second */
            sample.cancelled++;
        cr_assert_eq(rpc_guard_judge(&guard, &few, &sample), RPC_GUARD_FINE);
        sample.now_us += TICK_US;
    }
}
