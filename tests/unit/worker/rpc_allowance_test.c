/* What may be taken back, beside what is answered, and what a platform's gateway needs of it. */
#include <criterion/criterion.h>

#include "common/settings.h"
#include "worker/rpc/rpc_allowance.h"

#define SECOND  UINT64_C(1000000)
#define LOOK_US 10000
#define RATE    1000
#define ANY_DAY (100000 * SECOND)

static const struct rpc_allowance_rules rules = {.per_second = RATE, .burst = 2 * RATE};

/* So much a second, looked at as the watch does. Returns after how many seconds it was too much, or
 * `seconds`. */
static unsigned int run(
    const struct rpc_allowance_rules *of, unsigned int seconds, uint64_t wasted, uint64_t useful)
{
    struct rpc_allowance budget = {0};
    uint64_t wasted_before = 0;
    uint64_t useful_before = 0;
    for (uint64_t now_us = LOOK_US; now_us <= seconds * SECOND; now_us += LOOK_US) {
        uint64_t wasted_now = wasted * now_us / SECOND;
        uint64_t useful_now = useful * now_us / SECOND;
        if (rpc_allowance_is_exceeded(&budget, of, ANY_DAY + now_us, wasted_now - wasted_before,
                useful_now - useful_before))
            return (unsigned int)(now_us / SECOND);
        wasted_before = wasted_now;
        useful_before = useful_now;
    }
    return seconds;
}

Test(rpc_allowance, lets_the_rate_pass_for_ever)
{
    cr_assert_eq(run(&rules, 1000, RATE, 0), 1000);
    cr_assert_lt(run(&rules, 1000, RATE + RATE / 10, 0), 100);
}

Test(rpc_allowance, lets_a_burst_pass_and_then_no_more)
{
    struct rpc_allowance budget = {0};
    cr_assert_not(rpc_allowance_is_exceeded(&budget, &rules, ANY_DAY, 2 * RATE, 0));
    cr_assert(rpc_allowance_is_exceeded(&budget, &rules, ANY_DAY, 1, 0));
    cr_assert_not(rpc_allowance_is_exceeded(&budget, &rules, ANY_DAY + SECOND, 0, 0));
}

Test(rpc_allowance, counts_time_that_is_shorter_than_one_takes)
{
    struct rpc_allowance budget = {0};
    cr_assert_not(rpc_allowance_is_exceeded(&budget, &rules, ANY_DAY, 2 * RATE, 0));
    for (uint64_t passed_us = 100; passed_us <= SECOND; passed_us += 100)
        cr_assert_not(rpc_allowance_is_exceeded(&budget, &rules, ANY_DAY + passed_us, 0, 0));
    cr_assert_eq(budget.level, RATE);
}

Test(rpc_allowance, grows_with_what_is_of_use)
{
    cr_assert_eq(run(&rules, 100, 10 * RATE, 40 * RATE), 100);
    cr_assert_lt(run(&rules, 100, 10 * RATE, 30 * RATE), 10);
}

Test(rpc_allowance, is_even_again_after_any_pause)
{
    struct rpc_allowance budget = {0};
    cr_assert(rpc_allowance_is_exceeded(&budget, &rules, ANY_DAY, 100 * RATE, 0));
    cr_assert_not(rpc_allowance_is_exceeded(&budget, &rules, UINT64_MAX / 2, 0, 0));
    cr_assert_eq(budget.level, 0);
}

Test(rpc_allowance, of_a_rate_of_0_is_without_end)
{
    const struct rpc_allowance_rules none = {.per_second = 0, .burst = 0};
    cr_assert_eq(run(&none, 10, 1000000, 0), 10);
}

/* All calls of a platform may come from one address: 100,000 a second, of which one in ten is taken
 * back, on one worker. The default is two and a half times away from that. */
Test(rpc_allowance, of_the_default_is_far_from_what_a_gateway_does)
{
    struct settings settings;
    cr_assert_eq(settings_init(&settings), 0);
    uint64_t rate = (uint64_t)settings.limits.cancel_rate_per_address;
    settings_cleanup(&settings);
    const struct rpc_allowance_rules standard = {.per_second = rate, .burst = 2 * rate};
    cr_assert_eq(run(&standard, 1000, 10000, 90000), 1000);
    cr_assert_eq(run(&standard, 1000, 20000, 80000), 1000); /* one in five */
    cr_assert_lt(run(&standard, 1000, 40000, 0), 10); /* eight connections, nothing but resets */
}

Test(rpc_allowance, remembers_what_was_done_lately)
{
    struct rpc_recent recent = {.then_us = ANY_DAY};
    cr_assert_eq(rpc_recent_add(&recent, ANY_DAY, 800), 800);
    cr_assert_eq(rpc_recent_add(&recent, ANY_DAY + SECOND / 2, 0), 800);
    cr_assert_eq(rpc_recent_add(&recent, ANY_DAY + SECOND, 0), 400);
    cr_assert_eq(rpc_recent_add(&recent, ANY_DAY + 3 * SECOND, 0), 100);
    cr_assert_eq(rpc_recent_add(&recent, ANY_DAY + 1000 * SECOND, 5), 5);
}

/* ---- what is seen from outside ---- */

/* Calls that have been read and are not with the rpc thread yet: none of them came to nothing. */
Test(rpc_settled, counts_nothing_that_is_on_its_way)
{
    struct rpc_settled settled = {0};
    for (uint64_t burst = 0; burst < 10; burst++) {
        cr_assert_eq(rpc_settled_grow(&settled, 0, 90), 0);
        cr_assert_eq(rpc_settled_grow(&settled, 0, 0), 0);
    }
}

Test(rpc_settled, counts_once_what_stays)
{
    struct rpc_settled settled = {0};
    cr_assert_eq(rpc_settled_grow(&settled, 0, 50), 0);
    cr_assert_eq(rpc_settled_grow(&settled, 0, 90), 50);
    cr_assert_eq(rpc_settled_grow(&settled, 0, 90), 40);
    cr_assert_eq(rpc_settled_grow(&settled, 0, 90), 0);
    cr_assert_eq(rpc_settled_grow(&settled, 0, 20), 0);
    cr_assert_eq(rpc_settled_grow(&settled, 0, 20), 0, "it never goes back");
}

Test(rpc_settled, counts_at_once_what_is_known)
{
    struct rpc_settled settled = {0};
    cr_assert_eq(rpc_settled_grow(&settled, 30, 100), 30);
    cr_assert_eq(rpc_settled_grow(&settled, 30, 30), 0);
    cr_assert_eq(rpc_settled_grow(&settled, 31, 0), 1, "where the other figure is not known");
}

/* ---- deadlines ---- */

/* The gRPC core library's client gives 3.001 s, tells 3.01 s, and ends the call after 3.001 s. */
Test(rpc_deadline, has_passed_for_who_gives_up_at_his_own)
{
    const int64_t begun_us = (int64_t)ANY_DAY;
    const int64_t told_us = begun_us + 3010000;
    cr_assert(rpc_deadline_has_passed(told_us, begun_us, begun_us + 3001000));
    cr_assert(rpc_deadline_has_passed(told_us, begun_us, told_us));
    cr_assert(rpc_deadline_has_passed(begun_us + 50000, begun_us, begun_us + 49000));
    cr_assert(rpc_deadline_has_passed(begun_us - 1, begun_us, begun_us), "it came too late");
}

Test(rpc_deadline, has_not_passed_for_who_takes_a_call_back)
{
    const int64_t begun_us = (int64_t)ANY_DAY;
    cr_assert_not(rpc_deadline_has_passed(begun_us + 3010000, begun_us, begun_us + 2900000));
    cr_assert_not(rpc_deadline_has_passed(begun_us + 50000, begun_us, begun_us + 20000));
    cr_assert_not(rpc_deadline_has_passed(INT64_MAX, begun_us, begun_us + 1), "it has none");
}
