/* How many requests may be open, whose they are, and for how long. */
#include <criterion/criterion.h>

#include "worker/rpc/rpc_open_limit.h"

static const struct rpc_open_limits limits = {
    .units = 4000, .unit_bytes = 16384, .of_connection = 200, .timeout_ms = 30000};

static enum rpc_open_verdict judge(
    uint32_t own, struct rpc_open_totals address, struct rpc_open_totals worker)
{
    return rpc_open_judge(&limits, own, 0, &address, &worker);
}

#define TOTALS(number, of)                     \
    (struct rpc_open_totals)                   \
    {                                          \
        .units = (number), .connections = (of) \
    }

Test(rpc_open_limit, gives_an_address_as_many_as_are_free)
{
    cr_assert_eq(judge(100, TOTALS(2000, 20), TOTALS(2000, 20)), RPC_OPEN_FINE);
    cr_assert_eq(judge(100, TOTALS(2100, 21), TOTALS(2100, 21)), RPC_OPEN_OF_ADDRESS);
    /* Two that flood have a third each. */
    cr_assert_eq(judge(100, TOTALS(1300, 13), TOTALS(2600, 26)), RPC_OPEN_FINE);
    cr_assert_eq(judge(100, TOTALS(1400, 14), TOTALS(2700, 27)), RPC_OPEN_OF_ADDRESS);
}

Test(rpc_open_limit, leaves_those_alone_that_have_few)
{
    cr_assert_eq(judge(1, TOTALS(2100, 22), TOTALS(2100, 22)), RPC_OPEN_FINE);
    cr_assert_eq(judge(15, TOTALS(15, 1), TOTALS(4000, 200)), RPC_OPEN_FINE);
    cr_assert_eq(judge(0, TOTALS(9000, 90), TOTALS(9000, 90)), RPC_OPEN_FINE);
}

/* Many addresses, each with a little: above the limit those go that have more than others. */
Test(rpc_open_limit, has_one_for_the_worker)
{
    cr_assert_eq(judge(4, TOTALS(4, 1), TOTALS(4000, 1000)), RPC_OPEN_FINE);
    cr_assert_eq(judge(4, TOTALS(4, 1), TOTALS(4001, 1000)), RPC_OPEN_OF_WORKER);
    cr_assert_eq(judge(1, TOTALS(1, 1), TOTALS(4001, 1000)), RPC_OPEN_FINE);
    const struct rpc_open_totals worker = TOTALS(4001, 1000);
    cr_assert_eq(rpc_open_judge(&limits, 4, 0, NULL, &worker), RPC_OPEN_OF_WORKER);
}

Test(rpc_open_limit, binds_no_address_that_has_no_limit)
{
    const struct rpc_open_totals worker = TOTALS(3900, 39);
    cr_assert_eq(rpc_open_judge(&limits, 100, 0, NULL, &worker), RPC_OPEN_FINE);
}

Test(rpc_open_limit, tells_whom_takes_too_long_and_then_ends_it)
{
    const struct rpc_open_totals one = TOTALS(1, 1);
    cr_assert_eq(rpc_open_judge(&limits, 1, 30000, &one, &one), RPC_OPEN_FINE);
    cr_assert_eq(rpc_open_judge(&limits, 1, 30001, &one, &one), RPC_OPEN_LATE);
    cr_assert_eq(rpc_open_judge(&limits, 1, 35000, &one, &one), RPC_OPEN_LATE);
    cr_assert_eq(rpc_open_judge(&limits, 1, 35001, &one, &one), RPC_OPEN_TOO_LATE);
    struct rpc_open_limits patient = limits;
    patient.timeout_ms = 0;
    cr_assert_eq(rpc_open_judge(&patient, 1, UINT32_MAX, &one, &one), RPC_OPEN_FINE);
}

Test(rpc_open_limit, counts_what_has_come_of_messages)
{
    cr_assert_eq(rpc_open_units(&limits, 100, 0), 100);
    cr_assert_eq(rpc_open_units(&limits, 100, 100 * 65536), 500);
    struct settings settings;
    cr_assert_eq(settings_init(&settings), 0);
    struct rpc_open_limits standard = rpc_open_limits_of(&settings);
    /* Eight messages of the largest size at a time are what an address may send. */
    uint32_t units = rpc_open_units(&standard, 8, 8 * (uint64_t)settings.limits.message_bytes);
    cr_assert_lt(units, standard.units * 6 / 10, "%u", units);
    settings.limits.message_bytes = 64 * 1024 * 1024;
    standard = rpc_open_limits_of(&settings);
    units = rpc_open_units(&standard, 2, 2 * (uint64_t)settings.limits.message_bytes);
    cr_assert_lt(units, standard.units / 2, "%u", units);
    settings_cleanup(&settings);
}

Test(rpc_open_limit, keeps_totals)
{
    struct rpc_open_totals totals = {0};
    rpc_open_totals_change(&totals, 0, 10);
    rpc_open_totals_change(&totals, 0, 5);
    rpc_open_totals_change(&totals, 10, 3);
    cr_assert_eq(totals.units, 8);
    cr_assert_eq(totals.connections, 2);
    rpc_open_totals_change(&totals, 3, 0);
    rpc_open_totals_change(&totals, 5, 0);
    cr_assert_eq(totals.units, 0);
    cr_assert_eq(totals.connections, 0);
}
