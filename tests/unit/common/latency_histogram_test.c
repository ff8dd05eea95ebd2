#include <criterion/criterion.h>

#include "common/latency_histogram.h"

Test(latency_histogram, buckets_begin_where_the_one_before_ends)
{
    for (size_t i = 0; i < LATENCY_HISTOGRAM_BUCKETS; i++) {
        uint64_t least = latency_histogram_least_us(i);
        cr_assert_eq(latency_histogram_bucket(least), i, "bucket %zu", i);
        if (i > 0)
            cr_assert_eq(latency_histogram_bucket(least - 1), i - 1, "below bucket %zu", i);
    }
}

Test(latency_histogram, knows_a_duration_to_an_eighth)
{
    for (uint64_t duration = 1; duration < UINT64_C(1) << 36; duration = duration * 5 / 4 + 1) {
        uint64_t least = latency_histogram_least_us(latency_histogram_bucket(duration));
        cr_assert_leq(least, duration);
        cr_assert_leq(duration - least, duration / 8);
    }
}

Test(latency_histogram, counts_what_is_too_long_as_the_longest)
{
    cr_expect_eq(latency_histogram_bucket(UINT64_MAX), LATENCY_HISTOGRAM_BUCKETS - 1);
    cr_expect_eq(latency_histogram_bucket(UINT64_C(1) << 37), LATENCY_HISTOGRAM_BUCKETS - 1);
}
