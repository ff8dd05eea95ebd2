/* Sums over workers, differences in time and quantiles of what is counted for each method. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "master/status_methods.h"

static struct scoreboard_slot one;
static struct scoreboard_slot other;
static struct status_methods methods;

static struct scoreboard_method *given_row(
    struct scoreboard_slot *slot, size_t number, const char *name)
{
    struct scoreboard_method *row = &slot->methods[number];
    (void)snprintf(row->name, sizeof(row->name), "%s", name);
    row->is_named = 1;
    return row;
}

static void given_calls(struct scoreboard_method *row, uint64_t count, uint64_t duration_us)
{
    row->statuses[0] += count;
    row->latency[latency_histogram_bucket(duration_us)] += count;
    row->latency_sum_us += count * duration_us;
}

Test(status_methods, sums_by_name_wherever_the_row_is)
{
    given_calls(given_row(&one, 0, "a.A/Get"), 10, 100);
    given_calls(given_row(&one, 1, "a.A/Set"), 1, 100);
    given_calls(given_row(&other, 0, "a.A/Set"), 2, 100);
    other.methods[0].statuses[5] = 3;
    status_methods_add(&methods, &one);
    status_methods_add(&methods, &other);
    cr_assert_eq(methods.count, 2);
    cr_assert_str_eq(methods.rows[1].name, "a.A/Set");
    cr_assert_eq(methods.rows[1].calls, 6);
    cr_assert_eq(methods.rows[1].statuses[0], 3);
    cr_assert_eq(methods.rows[1].statuses[5], 3);
    cr_assert_eq(methods.rows[1].latency_sum_us, 300);
}

Test(status_methods, a_name_without_an_end_is_cut)
{
    memset(one.methods[0].name, 'x', SCOREBOARD_NAME_SIZE);
    one.methods[0].is_named = 1;
    status_methods_add(&methods, &one);
    cr_assert_eq(strlen(methods.rows[0].name), SCOREBOARD_NAME_SIZE - 1);
}

Test(status_methods, more_names_than_there_is_room_for_are_left_out)
{
    for (size_t i = 0; i < SCOREBOARD_METHODS; i++) {
        char name[8] = {'a', '/', (char)('A' + i)};
        (void)given_row(&one, i, name);
        name[0] = 'b';
        (void)given_row(&other, i, name);
    }
    status_methods_add(&methods, &one);
    status_methods_add(&methods, &other);
    cr_assert_eq(methods.count, SCOREBOARD_METHODS);
    cr_assert_str_eq(methods.rows[SCOREBOARD_METHODS - 1].name, "a/P");
}

Test(status_methods, quantiles_are_known_to_an_eighth)
{
    struct scoreboard_method *row = given_row(&one, 0, "a.A/Get");
    given_calls(row, 98, 200);
    given_calls(row, 1, 5000);
    given_calls(row, 1, 70000);
    status_methods_add(&methods, &one);
    const uint64_t *latency = methods.rows[0].latency;
    uint64_t median_us = status_methods_quantile_us(latency, 0.5);
    cr_assert(median_us >= 200 && median_us < 225, "%llu", (unsigned long long)median_us);
    uint64_t slow_us = status_methods_quantile_us(latency, 0.99);
    cr_assert(slow_us >= 5000 && slow_us < 5625, "%llu", (unsigned long long)slow_us);
    cr_assert_geq(status_methods_quantile_us(latency, 1), 70000);
}

Test(status_methods, without_calls_there_is_no_quantile)
{
    (void)given_row(&one, 0, "a.A/Get");
    status_methods_add(&methods, &one);
    cr_assert_eq(status_methods_quantile_us(methods.rows[0].latency, 0.99), 0);
}

Test(status_methods, a_worker_that_has_gone_leaves_no_negative_number)
{
    static struct status_methods earlier;
    given_calls(given_row(&one, 0, "a.A/Get"), 100, 100);
    given_calls(given_row(&other, 0, "a.A/Get"), 50, 100);
    status_methods_add(&earlier, &one);
    status_methods_add(&earlier, &other);
    given_calls(&other.methods[0], 10, 100);
    status_methods_add(&methods, &other);
    status_methods_set_rates(&methods, &earlier, 2);
    cr_assert_float_eq(methods.rows[0].per_second, 0, 0.01);
    status_methods_subtract(&methods, &earlier);
    cr_assert_eq(methods.rows[0].calls, 0);
    cr_assert_eq(methods.rows[0].latency_sum_us, 0);
}

Test(status_methods, rates_are_calls_by_time)
{
    static struct status_methods earlier;
    struct scoreboard_method *row = given_row(&one, 0, "a.A/Get");
    given_calls(row, 100, 100);
    status_methods_add(&earlier, &one);
    given_calls(row, 30, 100);
    status_methods_add(&methods, &one);
    status_methods_set_rates(&methods, &earlier, 2);
    cr_assert_float_eq(methods.rows[0].per_second, 15, 0.01);
    status_methods_subtract(&methods, &earlier);
    cr_assert_eq(methods.rows[0].calls, 30);
}
