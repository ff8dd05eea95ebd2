/* A line of the log can be taken apart, whatever is in its values. */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/attributes.h"
#include "common/log_format.h"
#include "common/printable.h"

static char line[512];

PRINTF_LIKE(1, 2) static const char *format(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    size_t length = log_format(line, sizeof(line), format, arguments);
    va_end(arguments);
    cr_assert_eq(length, strlen(line));
    return line;
}

Test(log_format, a_quote_in_a_value_ends_no_value)
{
    cr_expect_str_eq(format("lost error=\"%s\" n=%d", "x\" level=\"y", 1),
        "lost error=\"x\\\" level=\\\"y\" n=1");
    cr_expect_str_eq(format("error=\"%s\"", "a\\"), "error=\"a\\\\\"");
    cr_expect_str_eq(format("tried=\"%s and more\"", "\""), "tried=\"\\\" and more\"");
}

Test(log_format, a_value_without_quotes_gets_them_where_it_needs_them)
{
    cr_expect_str_eq(format("reading file=%s line=%d", "/etc/userd.conf", 7),
        "reading file=/etc/userd.conf line=7");
    cr_expect_str_eq(format("file=%s pid=%d", "/tmp/a pid=1", 7), "file=\"/tmp/a pid=1\" pid=7");
    cr_expect_str_eq(format("file=%s.", ""), "file=\"\".");
    cr_expect_str_eq(format("name=%s", "a\"b"), "name=\"a\\\"b\"");
    cr_expect_str_eq(format("pid=%d%s", 7, " pooled=yes"), "pid=7 pooled=yes");
    cr_expect_str_eq(format("address=%s", "[::]:50053"), "address=[::]:50053");
}

Test(log_format, free_text_stays_as_it_is)
{
    cr_expect_str_eq(format("%s", "a.conf:1: \"x\" is wrong"), "a.conf:1: \"x\" is wrong");
    cr_expect_str_eq(format("%.*s|", 3, "abcdef"), "abc|");
    cr_expect_str_eq(format("%.2s|", "abcdef"), "ab|");
    cr_expect_str_eq(format("%s cannot be started", "a worker"), "a worker cannot be started");
}

Test(log_format, numbers_are_as_printf_has_them)
{
    char expected[512];
    (void)snprintf(expected, sizeof(expected),
        "%d %5u %-4dx %04x %" PRIu64 " %lld %zu %hhu %c %.2f", -1, 7U, 3, 255U, UINT64_MAX,
        -9000000000LL, sizeof(int), (unsigned char)200, 'x', 1.5);
    cr_expect_str_eq(format("%d %5u %-4dx %04x %" PRIu64 " %lld %zu %hhu %c %.2f", -1, 7U, 3, 255U,
                         UINT64_MAX, -9000000000LL, sizeof(int), (unsigned char)200, 'x', 1.5),
        expected);
    cr_expect_str_eq(format("100%% %*d|", 4, 7), "100%    7|");
    cr_expect_str_eq(format("%ld %lu %jd", -5L, 5UL, (intmax_t)-6), "-5 5 -6");
}

Test(log_format, a_long_line_is_cut_off)
{
    char text[2048];
    memset(text, 'a', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    cr_expect_eq(strlen(format("x=%s", text)), sizeof(line) - 1);
}

static const char *printable(const char *text)
{
    (void)printable_copy(text, line, sizeof(line));
    return line;
}

Test(printable, nothing_reaches_a_terminal_as_a_command)
{
    cr_expect_str_eq(printable("a\033[31mb\r\n\t\177"), "a\\x1b[31mb\\x0d\\x0a\\x09\\x7f");
    cr_expect_str_eq(printable("\xc2\x9b"
                               "31m"),
        "\\xc2\\x9b31m"); /* U+009B: CSI in one character */
    cr_expect_str_eq(printable("\xe2\x80\xae\xe2\x80\xa8"), "\\xe2\\x80\\xae\\xe2\\x80\\xa8");
    cr_expect_str_eq(printable("\xd8\x9c\xd8\xa7"),
        "\\xd8\\x9c\xd8\xa7"); /* the Arabic letter mark and a letter */
}

Test(printable, text_in_utf_8_stays_and_nothing_else_does)
{
    cr_expect_str_eq(printable("n\xc3\xa4me \xe6\xbc\xa2 \xf0\x9f\x98\x80"),
        "n\xc3\xa4me \xe6\xbc\xa2 \xf0\x9f\x98\x80");
    cr_expect_str_eq(printable("\xff\xc3"), "\\xff\\xc3");
    cr_expect_str_eq(printable("\xc0\x80\xed\xa0\x80\xf4\x90\x80\x80"),
        "\\xc0\\x80\\xed\\xa0\\x80\\xf4\\x90\\x80\\x80");
    char small[8];
    cr_expect_eq(printable_copy("abc\033def", small, sizeof(small)), 7);
    cr_expect_str_eq(small, "abc\\x1b");
}
