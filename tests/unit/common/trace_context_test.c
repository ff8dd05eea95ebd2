#include <criterion/criterion.h>
#include <string.h>

#include "common/attributes.h"
#include "common/trace_context.h"

#define GOOD "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

static char read_into[TRACE_CONTEXT_SIZE];

static bool when_read(const char *text)
{
    return trace_context_read(text, strlen(text), read_into);
}

Test(trace_context, is_kept_as_it_came)
{
    cr_assert(when_read(GOOD));
    cr_expect_str_eq(read_into, GOOD);
}

Test(trace_context, of_a_later_version_is_taken_as_the_first)
{
    cr_assert(when_read("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes"));
    cr_expect_str_eq(read_into, GOOD);
    cr_assert(when_read("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
    cr_expect_str_eq(read_into, GOOD);
}

Test(trace_context, that_breaks_the_grammar_is_none)
{
    static const char *const bad[] = {"", "00", "x", GOOD "0", GOOD "-", GOOD " ",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "0g-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7_01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0\n",
        "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.what"};
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++)
        cr_expect(!when_read(bad[i]), "%s", bad[i]);
}
