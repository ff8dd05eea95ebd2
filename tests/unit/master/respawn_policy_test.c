/* When a dead child is started again, and when the master gives up. */
#include <criterion/criterion.h>

#include "master/respawn_policy.h"

#define NO_JITTER (UINT32_MAX / 2 + 1)

static struct respawn_decision die(struct respawn_record *record, int64_t ready_life_us)
{
    struct respawn_role role = {.was_ever_ready = true};
    return respawn_policy_on_death(record, &role, ready_life_us, NO_JITTER);
}

Test(respawn_policy, doubles_the_delay_from_the_least_to_the_most)
{
    const unsigned int expected_ms[] = {
        100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000, 10000, 10000};
    struct respawn_record record = {0};
    for (size_t i = 0; i < sizeof(expected_ms) / sizeof(expected_ms[0]); i++)
        cr_assert_eq(die(&record, RESPAWN_LIFE_NEVER_READY).delay_ms, expected_ms[i],
            "death number %zu", i + 1);
}

Test(respawn_policy, starts_from_the_least_delay_after_a_stable_life)
{
    struct respawn_record record = {.failures = 6};
    cr_assert_eq(die(&record, RESPAWN_STABLE_US).delay_ms, RESPAWN_DELAY_MIN_MS);
    cr_assert_eq(record.failures, 1);
}

Test(respawn_policy, goes_on_doubling_when_the_life_was_short)
{
    struct respawn_record record = {.failures = 2};
    cr_assert_eq(die(&record, RESPAWN_STABLE_US - 1).delay_ms, 400);
}

Test(respawn_policy, spreads_the_delay_by_a_quarter_either_way)
{
    struct respawn_role role = {.was_ever_ready = true};
    struct respawn_record least = {.failures = 3};
    struct respawn_record most = {.failures = 3};
    cr_assert_eq(respawn_policy_on_death(&least, &role, RESPAWN_LIFE_NEVER_READY, 0).delay_ms, 600);
    cr_assert_eq(
        respawn_policy_on_death(&most, &role, RESPAWN_LIFE_NEVER_READY, UINT32_MAX).delay_ms, 1000);
}

Test(respawn_policy, gives_up_a_role_that_was_never_ready_at_its_tenth_death)
{
    struct respawn_role role = {0};
    struct respawn_record records[2] = {0};
    for (unsigned int i = 1; i < RESPAWN_GIVE_UP_DEATHS; i++)
        cr_assert_not(
            respawn_policy_on_death(&records[i % 2], &role, RESPAWN_LIFE_NEVER_READY, NO_JITTER)
                .gives_up);
    cr_assert(
        respawn_policy_on_death(&records[0], &role, RESPAWN_LIFE_NEVER_READY, NO_JITTER).gives_up);
}

Test(respawn_policy, never_gives_up_a_role_that_was_ready_once)
{
    struct respawn_role role = {.early_deaths = RESPAWN_GIVE_UP_DEATHS - 1};
    struct respawn_record record = {0};
    respawn_policy_on_ready(&role);
    for (unsigned int i = 0; i < 1000; i++) {
        struct respawn_decision decision =
            respawn_policy_on_death(&record, &role, RESPAWN_LIFE_NEVER_READY, UINT32_MAX);
        cr_assert_not(decision.gives_up);
        cr_assert_leq(decision.delay_ms, RESPAWN_DELAY_MAX_MS * 5 / 4);
    }
}

Test(respawn_policy, stays_at_the_most_when_failures_cannot_be_counted_higher)
{
    struct respawn_record record = {.failures = UINT32_MAX};
    cr_assert_eq(die(&record, RESPAWN_LIFE_NEVER_READY).delay_ms, RESPAWN_DELAY_MAX_MS);
    cr_assert_eq(record.failures, UINT32_MAX);
}
