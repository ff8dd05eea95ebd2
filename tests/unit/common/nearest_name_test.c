#include <criterion/criterion.h>

#include "common/nearest_name.h"

static const char *const names[] = {"workers", "database.url", "database.connections", "log.level"};

Test(nearest_name, distance_counts_replacements_insertions_removals_and_swaps_as_one)
{
    cr_expect_eq(nearest_name_distance("abc", "abc"), 0);
    cr_expect_eq(nearest_name_distance("abc", "abd"), 1);
    cr_expect_eq(nearest_name_distance("abc", "abcd"), 1);
    cr_expect_eq(nearest_name_distance("abc", "ac"), 1);
    cr_expect_eq(nearest_name_distance("abcd", "abdc"), 1);
    cr_expect_eq(nearest_name_distance("", "abc"), 3);
    cr_expect_eq(nearest_name_distance("kitten", "sitting"), 3);
}

Test(nearest_name, finds_what_was_meant)
{
    cr_expect_eq(nearest_name_find("wokrers", names, 4), 0);
    cr_expect_eq(nearest_name_find("database.conections", names, 4), 2);
}

Test(nearest_name, suggests_nothing_for_something_else_entirely)
{
    cr_expect_eq(nearest_name_find("timezone", names, 4), -1);
    cr_expect_eq(nearest_name_find("x", names, 4), -1);
}
