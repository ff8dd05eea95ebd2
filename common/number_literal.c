#include "common/number_literal.h"

#include <ctype.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define DIGITS     "0123456789"
#define HEX_DIGITS DIGITS "abcdefABCDEF"
#define SIGNS      "+-"

static bool is_one_of(char character, const char *set)
{
    return character != '\0' && strchr(set, character) != NULL;
}

bool number_literal_begins(const char *text)
{
    if (is_one_of(*text, SIGNS))
        text++;
    if (*text == '.')
        text++;
    return isdigit((unsigned char)*text) != 0;
}

/* The length of what follows the digits where it makes a number with a fraction of it; 0: it is a
 * whole number. */
static size_t fraction_length(const char *text)
{
    size_t length = 0;
    if (text[length] == '.')
        length += 1 + strspn(text + 1, DIGITS);
    if (!is_one_of(text[length], "eE"))
        return length;
    size_t exponent = length + 1;
    if (is_one_of(text[exponent], SIGNS))
        exponent++;
    size_t digits = strspn(text + exponent, DIGITS);
    return digits > 0 ? exponent + digits : length;
}

/* Two Ls at most, as in C. */
static size_t suffix_length(const char *text)
{
    if (*text != 'L')
        return 0;
    return text[1] == 'L' ? 2 : 1;
}

static enum number_literal judge_decimal(const char *text, bool has_mark)
{
    errno = 0;
    long long value = strtoll(text, NULL, 10);
    if (errno == ERANGE)
        return NUMBER_LITERAL_TOO_LARGE;
    return has_mark || (value >= INT32_MIN && value <= INT32_MAX) ? NUMBER_LITERAL_FITS
                                                                  : NUMBER_LITERAL_NEEDS_MARK;
}

static enum number_literal judge_hexadecimal(const char *text, bool has_mark)
{
    errno = 0;
    unsigned long long value = strtoull(text, NULL, 16);
    if (errno == ERANGE || value > INT64_MAX)
        return NUMBER_LITERAL_TOO_LARGE;
    return has_mark || value <= INT32_MAX ? NUMBER_LITERAL_FITS : NUMBER_LITERAL_NEEDS_MARK;
}

enum number_literal number_literal_scan(const char *text, size_t *ret_length)
{
    bool is_hexadecimal =
        text[0] == '0' && is_one_of(text[1], "xX") && isxdigit((unsigned char)text[2]);
    size_t length = 0;
    if (is_hexadecimal) {
        length = 2 + strspn(text + 2, HEX_DIGITS);
    } else {
        length = is_one_of(text[0], SIGNS) ? 1 : 0;
        length += strspn(text + length, DIGITS);
        size_t fraction = fraction_length(text + length);
        if (fraction > 0) {
            *ret_length = length + fraction;
            return NUMBER_LITERAL_FITS;
        }
    }
    size_t suffix = suffix_length(text + length);
    *ret_length = length + suffix;
    return is_hexadecimal ? judge_hexadecimal(text, suffix > 0) : judge_decimal(text, suffix > 0);
}
