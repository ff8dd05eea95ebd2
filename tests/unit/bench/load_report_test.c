/* Percentiles are known to three per cent, from a microsecond to minutes. */
#include <criterion/criterion.h>
#include <string.h>

#include "tests/bench/load_report.h"

static struct load_counts counts;

static void then_near(uint64_t value, uint64_t expected)
{
    cr_assert(value <= expected && expected - value <= expected / 32, "%llu, expected %llu",
        (unsigned long long)value, (unsigned long long)expected);
}

Test(load_report, knows_a_percentile_to_three_per_cent)
{
    for (uint64_t i = 1; i <= 1000; i++)
        load_report_add_latency(&counts, i * 100);
    then_near(load_report_percentile(&counts, 0.50), 50000);
    then_near(load_report_percentile(&counts, 0.99), 99000);
    then_near(load_report_percentile(&counts, 0.999), 99900);
    then_near(load_report_percentile(&counts, 1.0), 100000);
}

Test(load_report, knows_the_least_and_the_greatest)
{
    cr_assert_eq(load_report_percentile(&counts, 0.5), 0, "nothing was counted");
    load_report_add_latency(&counts, 3);
    cr_assert_eq(load_report_percentile(&counts, 0.5), 3);
    load_report_add_latency(&counts, UINT64_C(3600) * 1000000);
    then_near(load_report_percentile(&counts, 1.0), UINT64_C(3600) * 1000000);
    load_report_add_latency(&counts, UINT64_MAX);
    cr_assert_gt(load_report_percentile(&counts, 1.0), UINT64_C(3600) * 1000000);
}

Test(load_report, does_not_count_what_comes_after_the_time_as_throughput)
{
    static struct load_report report;
    report.all.by_status[0] = 90;
    report.all.by_status[8] = 10;
    load_report_end_time(&report, 2.0);
    report.all.by_status[0] = 500;
    cr_assert_eq(report.ok_in_time, 90);
    cr_assert_eq(report.answered_in_time, 100);
}
