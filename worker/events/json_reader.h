/* One JSON object, and chosen members of it, as Python's json module reads them. Pure.
 *
 * The text is UTF-8 in RFC 8259's grammar, with what the legacy service takes beside it: NaN,
 * Infinity and -Infinity, numbers of any size, U+0000 and lone surrogates as \u escapes, and equal
 * keys, of which the last counts. Nothing is allocated while it is scanned, and nesting is bounded:
 * a value costs what its bytes cost. No library of Debian's takes just this: jansson refuses NaN
 * and lone surrogates, json-c takes comments and single quotes.
 */
#ifndef USERD_WORKER_EVENTS_JSON_READER_H
#define USERD_WORKER_EVENTS_JSON_READER_H

#include <stddef.h>
#include <stdint.h>

#include "common/attributes.h"

#define JSON_READER_DEPTH 2048 /* arrays and objects in each other */

enum json_kind {
    JSON_ABSENT,
    JSON_LITERAL, /* null, true, false */
    JSON_INTEGER,
    JSON_REAL, /* a fraction or an exponent, or NaN, Infinity, -Infinity */
    JSON_TEXT,
    JSON_ARRAY,
    JSON_OBJECT,
};

struct json_member {
    const char *name; /* set by the caller: ASCII */
    enum json_kind kind;
    /* JSON_INTEGER: its characters. JSON_TEXT: what stands between the quotes. Points into the
     * text. */
    const char *text;
    size_t length;
};

/* Finds the members in the text, which is one object. NULL, or static text that says what is wrong;
 * then the members are undefined. */
MUST_CHECK const char *json_reader_scan(
    const char *text, size_t length, struct json_member *members, size_t member_count);

/* Of a JSON_INTEGER. -ERANGE: it is none of int32. */
MUST_CHECK int json_reader_int32(const struct json_member *member, int32_t *ret_number);
/* Of a JSON_TEXT: UTF-8, malloc'ed, and a NUL behind it. U+0000 and lone surrogates, which
 * PostgreSQL cannot hold, become U+FFFD. -ENOMEM. */
MUST_CHECK int json_reader_text(
    const struct json_member *member, char **ret_text, size_t *ret_length);

#endif
