/* The keys of a load: in their range, all alike or by Zipf's law. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "tests/bench/load_keys.h"

#define COUNT 1000
#define DRAWS 400000

static uint32_t drawn[COUNT + 1];

static void draw_many(double exponent)
{
    struct load_keys keys = {.count = COUNT, .exponent = exponent};
    struct load_random random = {.state = 7};
    load_keys_init(&keys);
    for (size_t i = 0; i < DRAWS; i++) {
        uint32_t id = load_keys_draw(&keys, &random);
        cr_assert(id >= 1 && id <= COUNT, "id %u is not in 1 to %d", id, COUNT);
        drawn[id]++;
    }
}

static int compare_descending(const void *left, const void *right)
{
    uint32_t one = *(const uint32_t *)left;
    uint32_t other = *(const uint32_t *)right;
    return (one < other) - (one > other);
}

Test(load_keys, draws_all_ids_alike)
{
    draw_many(0);
    for (size_t id = 1; id <= COUNT; id++)
        cr_assert(
            abs((int)drawn[id] - DRAWS / COUNT) < 120, "id %zu was drawn %u times", id, drawn[id]);
}

Test(load_keys, draws_the_hottest_ids_by_zipfs_law_and_scatters_them)
{
    double sum = 0;
    for (int rank = 1; rank <= COUNT; rank++)
        sum += pow(rank, -0.99);
    draw_many(0.99);
    uint32_t hottest = 1;
    for (uint32_t id = 2; id <= COUNT; id++)
        hottest = drawn[id] > drawn[hottest] ? id : hottest;
    cr_assert_neq(hottest, 1, "the hottest id is not the first one");
    qsort(drawn + 1, COUNT, sizeof(drawn[0]), compare_descending);
    for (int rank = 1; rank <= 10; rank++) {
        double expected = DRAWS * pow(rank, -0.99) / sum;
        cr_assert(fabs(drawn[rank] - expected) < expected / 10, "rank %d: %u, expected %.0f", rank,
            drawn[rank], expected);
    }
    cr_assert(drawn[COUNT] < DRAWS / COUNT, "the coldest is cold");
}

Test(load_keys, draws_by_exponent_one_too)
{
    draw_many(1.0);
    qsort(drawn + 1, COUNT, sizeof(drawn[0]), compare_descending);
    cr_assert_float_eq((double)drawn[1] / drawn[2], 2.0, 0.15);
}
