#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "eventd/handled_offsets.h"

static struct handled_offsets handled;

static void then_text_is(int64_t position, const char *expected)
{
    char text[HANDLED_OFFSETS_TEXT];
    cr_expect(handled_offsets_format(&handled, text));
    cr_expect_str_eq(text, expected);
    cr_expect_eq(handled.position, position, "position %lld", (long long)handled.position);
}

Test(handled_offsets, in_order_move_the_position)
{
    handled_offsets_init(&handled, 5);
    cr_assert_eq(handled_offsets_add(&handled, 5, 6), 0);
    cr_assert_eq(handled_offsets_add(&handled, 6, 9), 0);
    then_text_is(9, "");
}

Test(handled_offsets, out_of_order_stay_above_the_position_until_the_gap_closes)
{
    handled_offsets_init(&handled, 5);
    cr_assert_eq(handled_offsets_add(&handled, 9, 10), 0);
    cr_assert_eq(handled_offsets_add(&handled, 7, 8), 0);
    cr_assert_eq(handled_offsets_add(&handled, 10, 12), 0);
    then_text_is(5, "7,9-11");
    cr_assert_eq(handled_offsets_add(&handled, 8, 9), 0);
    then_text_is(5, "7-11");
    cr_assert_eq(handled_offsets_add(&handled, 5, 7), 0);
    then_text_is(12, "");
}

Test(handled_offsets, below_the_position_change_nothing)
{
    handled_offsets_init(&handled, 5);
    cr_assert_eq(handled_offsets_add(&handled, 0, 5), 0);
    cr_assert_eq(handled_offsets_add(&handled, 8, 8), 0);
    then_text_is(5, "");
}

Test(handled_offsets, survive_as_text)
{
    handled_offsets_init(&handled, 3);
    cr_assert_eq(handled_offsets_parse(&handled, "17,20-25"), 0);
    cr_expect(handled_offsets_contain(&handled, 2));
    cr_expect(!handled_offsets_contain(&handled, 3));
    cr_expect(handled_offsets_contain(&handled, 17));
    cr_expect(!handled_offsets_contain(&handled, 18));
    cr_expect(handled_offsets_contain(&handled, 25));
    cr_expect(!handled_offsets_contain(&handled, 26));
    then_text_is(3, "17,20-25");
}

Test(handled_offsets, of_a_foreign_text_are_refused)
{
    static const char *const foreign[] = {"x", "1,", "-1", "5-", "7-5", "1 2", "1;2",
        "99999999999999999999", "1-2-3", ",", "{\"a\":1}"};
    for (size_t i = 0; i < ARRAY_LENGTH(foreign); i++) {
        handled_offsets_init(&handled, 0);
        bool is_trailing_comma = strcmp(foreign[i], "1,") == 0;
        int result = handled_offsets_parse(&handled, foreign[i]);
        cr_expect_eq(result, is_trailing_comma ? 0 : -EINVAL, "%s", foreign[i]);
    }
}

Test(handled_offsets, that_do_not_fit_are_cut_at_the_end)
{
    char text[HANDLED_OFFSETS_TEXT];
    handled_offsets_init(&handled, 0);
    for (int64_t i = 1; i <= HANDLED_OFFSETS_STRETCHES; i++)
        cr_assert_eq(handled_offsets_add(&handled, 2 * i, 2 * i + 1), 0);
    cr_expect_eq(handled_offsets_add(&handled, 1000000, 1000001), -ENOSPC);
    cr_expect(!handled_offsets_format(&handled, text));
    cr_expect_eq(strncmp(text, "2,4,6,", 6), 0);
    struct handled_offsets *read = calloc(1, sizeof(*read));
    cr_assert_not_null(read);
    cr_assert_eq(handled_offsets_parse(read, text), 0);
    cr_assert_eq(handled_offsets_merge(&handled, read), 0);
    cr_expect_eq(handled.count, HANDLED_OFFSETS_STRETCHES);
    free(read);
}

/* Against the simplest thing that could be right. */
Test(handled_offsets, agree_with_a_bitmap)
{
    enum { SIZE = 300 };
    srandom(17);
    for (int round = 0; round < 200; round++) {
        bool bits[SIZE] = {false};
        handled_offsets_init(&handled, 0);
        for (int step = 0; step < 60; step++) {
            int64_t first = random() % SIZE;
            int64_t end = first + random() % 8;
            end = end > SIZE ? SIZE : end;
            cr_assert_eq(handled_offsets_add(&handled, first, end), 0);
            for (int64_t i = first; i < end; i++)
                bits[i] = true;
        }
        for (int64_t i = 0; i < SIZE; i++)
            cr_assert_eq(handled_offsets_contain(&handled, i), bits[i], "round %d offset %lld",
                round, (long long)i);
        for (size_t i = 1; i < handled.count; i++)
            cr_assert_gt(handled.stretches[i].first, handled.stretches[i - 1].end);
    }
}
