/* When a child counts as hung. */
#include <criterion/criterion.h>

#include "master/liveness_policy.h"

#define TIMEOUT_US UINT64_C(10000000)
#define LOOK_US    LIVENESS_LOOK_US

Test(liveness_policy, a_child_that_beats_is_never_hung)
{
    struct liveness_pulse pulse = {0};
    for (uint64_t beat = 1; beat < 100; beat++)
        cr_assert(!liveness_policy_is_hung(&pulse, beat, LOOK_US, TIMEOUT_US));
}

Test(liveness_policy, a_silent_child_is_hung_after_the_timeout_and_not_before)
{
    struct liveness_pulse pulse = {0};
    cr_assert(!liveness_policy_is_hung(&pulse, 5, LOOK_US, TIMEOUT_US));
    for (int look = 0; look < 9; look++)
        cr_assert(!liveness_policy_is_hung(&pulse, 5, LOOK_US, TIMEOUT_US), "look %d", look);
    cr_assert(liveness_policy_is_hung(&pulse, 5, LOOK_US, TIMEOUT_US));
}

Test(liveness_policy, one_beat_starts_the_silence_anew)
{
    struct liveness_pulse pulse = {0};
    for (int look = 0; look < 9; look++)
        (void)liveness_policy_is_hung(&pulse, 5, LOOK_US, TIMEOUT_US);
    cr_assert(!liveness_policy_is_hung(&pulse, 6, LOOK_US, TIMEOUT_US));
    for (int look = 0; look < 9; look++)
        cr_assert(!liveness_policy_is_hung(&pulse, 6, LOOK_US, TIMEOUT_US));
}

Test(liveness_policy, one_that_has_never_beaten_is_hung_too)
{
    struct liveness_pulse pulse = {0};
    bool is_hung = false;
    for (int look = 0; look < 10; look++)
        is_hung = liveness_policy_is_hung(&pulse, 0, LOOK_US, TIMEOUT_US);
    cr_assert(is_hung);
}

Test(liveness_policy, an_hour_in_which_the_master_stood_still_kills_nobody)
{
    const uint64_t hour_us = UINT64_C(3600000000);
    struct liveness_pulse pulse = {0};
    (void)liveness_policy_is_hung(&pulse, 5, LOOK_US, TIMEOUT_US);
    uint64_t watched_us = liveness_policy_watched_us(LOOK_US, LOOK_US + hour_us);
    cr_assert_leq(watched_us, LIVENESS_LOOK_MAX_US);
    cr_assert(!liveness_policy_is_hung(&pulse, 5, watched_us, TIMEOUT_US));
    cr_assert(!liveness_policy_is_hung(&pulse, 6, LOOK_US, TIMEOUT_US));
}

Test(liveness_policy, looks_count_in_full_and_a_clock_that_goes_back_counts_nothing)
{
    cr_assert_eq(liveness_policy_watched_us(5, 5 + LOOK_US), LOOK_US);
    cr_assert_eq(liveness_policy_watched_us(5, 4), 0);
}

Test(liveness_policy, tells_a_thread_that_stopped_as_well_from_one_that_lives)
{
    struct liveness_pulse hung = {0};
    struct liveness_pulse stopped_as_well = {0};
    struct liveness_pulse living = {0};
    bool is_hung = liveness_policy_is_hung(&hung, 1, LOOK_US, TIMEOUT_US);
    for (uint64_t look = 0; !is_hung; look++) {
        is_hung = liveness_policy_is_hung(&hung, 1, LOOK_US, TIMEOUT_US);
        /* its last beat came after the first look */
        cr_assert(
            !liveness_policy_is_hung(&stopped_as_well, look == 0 ? 1 : 2, LOOK_US, TIMEOUT_US));
        cr_assert(!liveness_policy_is_hung(&living, look, LOOK_US, TIMEOUT_US));
    }
    cr_assert(liveness_policy_is_silent_too(&hung, TIMEOUT_US));
    cr_assert(liveness_policy_is_silent_too(&stopped_as_well, TIMEOUT_US));
    cr_assert(!liveness_policy_is_silent_too(&living, TIMEOUT_US));
}
