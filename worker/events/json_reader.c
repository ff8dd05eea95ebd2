#include "worker/events/json_reader.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistr.h>

#define REPLACEMENT     0xfffd
#define ESCAPE_DIGITS   4
#define INT32_TEXT_MAX  11 /* "-2147483648" */
#define FIRST_HIGH      0xd800
#define FIRST_LOW       0xdc00
#define BEHIND_LOW      0xe000
#define SURROGATE_BITS  10
#define FIRST_BEYOND_U4 0x10000

static const char not_json[] = "value is not JSON";
static const char too_deep[] = "value is nested too deeply";

struct scan {
    const char *at;
    const char *end;
    struct json_member *members;
    size_t member_count;
    struct json_member *current; /* of the outermost object; NULL: nobody asked for this one */
    size_t depth;
    uint8_t is_object[JSON_READER_DEPTH / CHAR_BIT]; /* a bit for each level */
};

/* ---- characters ---- */

/* '\0' at the end: no character that is asked for is one. */
static char next_character(const struct scan *scan)
{
    if (scan->at == scan->end)
        return '\0';
    return *scan->at;
}

static bool take(struct scan *scan, char character)
{
    if (scan->at == scan->end || *scan->at != character)
        return false;
    scan->at++;
    return true;
}

static void skip_space(struct scan *scan)
{
    while (scan->at < scan->end &&
           (*scan->at == ' ' || *scan->at == '\t' || *scan->at == '\n' || *scan->at == '\r'))
        scan->at++;
}

static bool is_digit(char character)
{
    return character >= '0' && character <= '9';
}

/* Digits from here on, at least one. */
static bool take_digits(struct scan *scan)
{
    const char *first = scan->at;
    while (is_digit(next_character(scan)))
        scan->at++;
    return scan->at > first;
}

static int hexadecimal_digit(char character)
{
    if (is_digit(character))
        return character - '0';
    char lower = (char)(character | ' ');
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* ---- what a text says ---- */

/* The four digits at `text`, which were found to be some. */
static ucs4_t read_escape(const char *text)
{
    ucs4_t unit = 0;
    for (size_t i = 0; i < ESCAPE_DIGITS; i++)
        unit = unit << 4 | (ucs4_t)hexadecimal_digit(text[i]);
    return unit;
}

static bool is_within(ucs4_t unit, ucs4_t first, ucs4_t behind)
{
    return unit >= first && unit < behind;
}

/* Behind "\u": the code point, of two escapes where they are a pair; *text goes behind them. */
static ucs4_t read_escapes(const char **text, const char *end)
{
    ucs4_t unit = read_escape(*text);
    *text += ESCAPE_DIGITS;
    if (!is_within(unit, FIRST_HIGH, FIRST_LOW) || end - *text < ESCAPE_DIGITS + 2 ||
        (*text)[0] != '\\' || (*text)[1] != 'u')
        return unit;
    ucs4_t low = read_escape(*text + 2);
    if (!is_within(low, FIRST_LOW, BEHIND_LOW))
        return unit;
    *text += ESCAPE_DIGITS + 2;
    return FIRST_BEYOND_U4 + ((unit - FIRST_HIGH) << SURROGATE_BITS) + (low - FIRST_LOW);
}

/* The next code point of a scanned text, a lone surrogate as itself; *text goes behind it. */
static ucs4_t read_code_point(const char **text, const char *end)
{
    static const char escapes[] = "b\bf\fn\nr\rt\t"; /* each beside what it stands for */
    if (**text != '\\') {
        ucs4_t code_point = 0;
        *text += u8_mbtouc(&code_point, (const uint8_t *)*text, (size_t)(end - *text));
        return code_point;
    }
    char escape = (*text)[1];
    *text += 2;
    if (escape == 'u')
        return read_escapes(text, end);
    for (size_t i = 0; i + 1 < sizeof(escapes); i += 2) {
        if (escapes[i] == escape)
            return (ucs4_t)escapes[i + 1];
    }
    return (ucs4_t)escape;
}

static bool is_named(const struct json_member *member, const char *text, const char *end)
{
    const char *name = member->name;
    while (text < end) {
        /* What is no character of a name ends it as well: '\0' is in none. */
        if (*name == '\0' || read_code_point(&text, end) != (ucs4_t)*name)
            return false;
        name++;
    }
    return *name == '\0';
}

/* ---- the scan: each goes behind what it takes; false: it is none ---- */

static bool take_escape(struct scan *scan)
{
    char escape = next_character(scan);
    if (escape == '\0' || strchr("\"\\/bfnrtu", escape) == NULL)
        return false;
    scan->at++;
    if (escape != 'u')
        return true;
    for (size_t i = 0; i < ESCAPE_DIGITS; i++) {
        if (hexadecimal_digit(next_character(scan)) < 0)
            return false;
        scan->at++;
    }
    return true;
}

static bool take_text(struct scan *scan, const char **ret_text, size_t *ret_length)
{
    if (!take(scan, '"'))
        return false;
    const char *first = scan->at;
    while (scan->at < scan->end) {
        char character = *scan->at;
        if ((unsigned char)character < ' ')
            return false;
        scan->at++;
        if (character == '"') {
            *ret_text = first;
            *ret_length = (size_t)(scan->at - 1 - first);
            return true;
        }
        if (character == '\\' && !take_escape(scan))
            return false;
    }
    return false;
}

static bool take_word(struct scan *scan, const char *word)
{
    size_t length = strlen(word);
    if ((size_t)(scan->end - scan->at) < length || memcmp(scan->at, word, length) != 0)
        return false;
    scan->at += length;
    return true;
}

static bool take_number(struct scan *scan, enum json_kind *ret_kind)
{
    *ret_kind = JSON_REAL;
    if (take_word(scan, "-Infinity"))
        return true;
    (void)take(scan, '-');
    if (!take(scan, '0') && !take_digits(scan))
        return false;
    *ret_kind = JSON_INTEGER;
    if (take(scan, '.')) {
        *ret_kind = JSON_REAL;
        if (!take_digits(scan))
            return false;
    }
    if (take(scan, 'e') || take(scan, 'E')) {
        *ret_kind = JSON_REAL;
        if (!take(scan, '+'))
            (void)take(scan, '-');
        return take_digits(scan);
    }
    return true;
}

static void note(struct scan *scan, enum json_kind kind, const char *text, size_t length)
{
    if (scan->depth != 1 || scan->current == NULL)
        return;
    scan->current->kind = kind;
    scan->current->text = text;
    scan->current->length = length;
}

/* A value that holds no others. */
static bool take_scalar(struct scan *scan)
{
    static const char *const literals[] = {"null", "true", "false"};
    static const char *const reals[] = {"NaN", "Infinity"};
    const char *text = scan->at;
    size_t length = 0;
    enum json_kind kind = JSON_ABSENT;
    if (next_character(scan) == '"') {
        if (!take_text(scan, &text, &length))
            return false;
        kind = JSON_TEXT;
    }
    for (size_t i = 0; i < ARRAY_LENGTH(literals) && kind == JSON_ABSENT; i++)
        kind = take_word(scan, literals[i]) ? JSON_LITERAL : JSON_ABSENT;
    for (size_t i = 0; i < ARRAY_LENGTH(reals) && kind == JSON_ABSENT; i++)
        kind = take_word(scan, reals[i]) ? JSON_REAL : JSON_ABSENT;
    if (kind == JSON_ABSENT) {
        if (!take_number(scan, &kind))
            return false;
        length = (size_t)(scan->at - text);
    }
    note(scan, kind, text, length);
    return true;
}

/* A member's name and its colon. */
static bool take_key(struct scan *scan)
{
    const char *text = NULL;
    size_t length = 0;
    skip_space(scan);
    if (!take_text(scan, &text, &length))
        return false;
    skip_space(scan);
    if (!take(scan, ':'))
        return false;
    if (scan->depth > 1)
        return true;
    scan->current = NULL;
    for (size_t i = 0; i < scan->member_count; i++) {
        if (is_named(&scan->members[i], text, text + length))
            scan->current = &scan->members[i];
    }
    return true;
}

static bool is_in_object(const struct scan *scan)
{
    size_t level = scan->depth - 1;
    return (scan->is_object[level / CHAR_BIT] >> level % CHAR_BIT & 1) != 0;
}

static void enter(struct scan *scan, bool is_object)
{
    size_t level = scan->depth++;
    uint8_t bit = (uint8_t)(1U << level % CHAR_BIT);
    if (is_object)
        scan->is_object[level / CHAR_BIT] |= bit;
    else
        scan->is_object[level / CHAR_BIT] &= (uint8_t)~bit;
}

/* Behind a value: leaves what ends here, up to the place of the next value, or to the end of it
 * all. */
static bool take_ends(struct scan *scan)
{
    while (scan->depth > 0) {
        skip_space(scan);
        if (take(scan, ','))
            return !is_in_object(scan) || take_key(scan);
        if (!take(scan, is_in_object(scan) ? '}' : ']'))
            return false;
        scan->depth--;
    }
    return true;
}

/* One value with all that is in it. NULL, or what is wrong. */
static const char *scan_value(struct scan *scan)
{
    do {
        skip_space(scan);
        bool is_object = next_character(scan) == '{';
        if (!is_object && next_character(scan) != '[') {
            if (!take_scalar(scan) || !take_ends(scan))
                return not_json;
            continue;
        }
        if (scan->depth == JSON_READER_DEPTH)
            return too_deep;
        note(scan, is_object ? JSON_OBJECT : JSON_ARRAY, scan->at, 0);
        scan->at++;
        enter(scan, is_object);
        skip_space(scan);
        bool is_empty = next_character(scan) == (is_object ? '}' : ']');
        if (is_empty ? !take_ends(scan) : is_object && !take_key(scan))
            return not_json;
    } while (scan->depth > 0);
    return NULL;
}

const char *json_reader_scan(
    const char *text, size_t length, struct json_member *members, size_t member_count)
{
    if (u8_check((const uint8_t *)text, length) != NULL)
        return "value is not valid UTF-8";
    struct scan scan = {
        .at = text, .end = text + length, .members = members, .member_count = member_count};
    for (size_t i = 0; i < member_count; i++)
        members[i].kind = JSON_ABSENT;
    skip_space(&scan);
    bool is_object = next_character(&scan) == '{';
    const char *reason = scan_value(&scan);
    if (reason != NULL)
        return reason;
    skip_space(&scan);
    if (scan.at < scan.end)
        return is_object ? "value has bytes behind the object" : not_json;
    return is_object ? NULL : "value is not an object";
}

int json_reader_int32(const struct json_member *member, int32_t *ret_number)
{
    assert(member->kind == JSON_INTEGER);
    char digits[INT32_TEXT_MAX + 1] = "";
    /* There are no leading zeros. */
    if (member->length > INT32_TEXT_MAX)
        return -ERANGE;
    memcpy(digits, member->text, member->length);
    long long number = strtoll(digits, NULL, 10);
    if (number < INT32_MIN || number > INT32_MAX)
        return -ERANGE;
    *ret_number = (int32_t)number;
    return 0;
}

int json_reader_text(const struct json_member *member, char **ret_text, size_t *ret_length)
{
    assert(member->kind == JSON_TEXT);
    /* No escape is shorter than what it stands for. */
    uint8_t *text = malloc(member->length + 1);
    if (text == NULL)
        return -ENOMEM;
    const char *at = member->text;
    const char *end = at + member->length;
    size_t length = 0;
    while (at < end) {
        ucs4_t code_point = read_code_point(&at, end);
        if (code_point == 0 || is_within(code_point, FIRST_HIGH, BEHIND_LOW))
            code_point = REPLACEMENT;
        length += (size_t)u8_uctomb(text + length, code_point, (int)(member->length - length));
    }
    text[length] = '\0';
    *ret_text = (char *)text;
    *ret_length = length;
    return 0;
}
