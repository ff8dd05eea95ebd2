#include "common/log_format.h"

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define SPEC_SIZE   48
#define NUMBER_SIZE 512 /* the longest is a double by %f */

/* Where a value stands in its line. */
enum place { PLACE_FREE, PLACE_BARE, PLACE_QUOTED };

struct writer {
    char *target;
    size_t size;
    size_t used;
    enum place place;
    bool is_after_equals; /* the value begins its field */
};

enum length { LENGTH_INT, LENGTH_LONG, LENGTH_LONG_LONG, LENGTH_SIZE, LENGTH_MAX };

/* A conversion of the format: what stands between % and its letter. */
struct conversion {
    char spec[SPEC_SIZE]; /* for snprintf(), with the numbers that were given by * in it */
    size_t length;
    enum length argument;
    bool has_precision;
    size_t precision;
    char letter;
};

static void put(struct writer *writer, char character)
{
    if (writer->used + 1 < writer->size)
        writer->target[writer->used++] = character;
}

/* Text of the format itself: it says where the next value stands. */
static void put_literal(struct writer *writer, char character)
{
    put(writer, character);
    bool is_quote = character == '"';
    if (writer->place == PLACE_QUOTED)
        writer->place = is_quote ? PLACE_FREE : PLACE_QUOTED;
    else if (is_quote)
        writer->place = PLACE_QUOTED;
    else if (character == '=')
        writer->place = PLACE_BARE;
    else if (character == ' ')
        writer->place = PLACE_FREE;
    writer->is_after_equals = character == '=' && writer->place == PLACE_BARE;
}

/* ---- values ---- */

static bool needs_quotes(const char *value, size_t length)
{
    static const char marks[] = " \"=\\\t\r\n";
    for (size_t i = 0; i < length; i++)
        if (strchr(marks, value[i]) != NULL)
            return true;
    return length == 0;
}

static void put_text(struct writer *writer, const char *value, size_t length)
{
    bool is_quoted =
        writer->place == PLACE_BARE && writer->is_after_equals && needs_quotes(value, length);
    if (is_quoted)
        put(writer, '"');
    for (size_t i = 0; i < length; i++) {
        bool is_mark = value[i] == '"' || value[i] == '\\';
        if (is_mark && (is_quoted || writer->place == PLACE_QUOTED))
            put(writer, '\\');
        put(writer, value[i]);
    }
    if (is_quoted)
        put(writer, '"');
    writer->is_after_equals = false;
}

static void put_number(struct writer *writer, const char *number)
{
    for (; *number != '\0'; number++)
        put(writer, *number);
    writer->is_after_equals = false;
}

/* ---- conversions ---- */

static void add(struct conversion *conversion, char character)
{
    assert(conversion->length + 2 < sizeof(conversion->spec)); /* a format of ours */
    conversion->spec[conversion->length++] = character;
    conversion->spec[conversion->length] = '\0';
}

static void add_number(struct conversion *conversion, int number)
{
    char text[16];
    (void)snprintf(text, sizeof(text), "%d", number);
    for (const char *digit = text; *digit != '\0'; digit++)
        add(conversion, *digit);
}

static const char *read_length(const char *format, struct conversion *conversion)
{
    for (; *format != '\0' && strchr("hlzjt", *format) != NULL; format++) {
        if (*format == 'l')
            conversion->argument =
                conversion->argument == LENGTH_LONG ? LENGTH_LONG_LONG : LENGTH_LONG;
        else if (*format != 'h') /* what is shorter than an int is passed as one */
            conversion->argument = *format == 'j' ? LENGTH_MAX : LENGTH_SIZE;
        add(conversion, *format);
    }
    return format;
}

/* `*format` is behind the %. Returns what is behind the conversion. */
static const char *read_conversion(
    const char *format, struct conversion *conversion, va_list *arguments)
{
    add(conversion, '%');
    for (; *format != '\0' && strchr("-+ #0123456789.*'", *format) != NULL; format++) {
        bool is_digit = *format >= '0' && *format <= '9';
        if (*format == '*') {
            int number = va_arg(*arguments, int);
            if (conversion->has_precision)
                conversion->precision = number < 0 ? SIZE_MAX : (size_t)number;
            add_number(conversion, number);
            continue;
        }
        if (conversion->has_precision && is_digit)
            conversion->precision = conversion->precision * 10 + (size_t)(*format - '0');
        conversion->has_precision = conversion->has_precision || *format == '.';
        add(conversion, *format);
    }
    format = read_length(format, conversion);
    conversion->letter = *format;
    if (*format == '\0')
        return format;
    add(conversion, *format);
    return format + 1;
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored \
    "-Wformat-nonliteral" /* it is a piece of a format that was checked */

static void convert_integer(
    const struct conversion *conversion, char text[NUMBER_SIZE], va_list *arguments)
{
    /* NOLINTBEGIN(bugprone-branch-clone): they differ in the type */
    switch (conversion->argument) {
    case LENGTH_INT:
        (void)snprintf(text, NUMBER_SIZE, conversion->spec, va_arg(*arguments, int));
        break;
    case LENGTH_LONG:
        (void)snprintf(text, NUMBER_SIZE, conversion->spec, va_arg(*arguments, long));
        break;
    case LENGTH_LONG_LONG:
        (void)snprintf(text, NUMBER_SIZE, conversion->spec, va_arg(*arguments, long long));
        break;
    case LENGTH_SIZE:
        (void)snprintf(text, NUMBER_SIZE, conversion->spec, va_arg(*arguments, size_t));
        break;
    case LENGTH_MAX:
        (void)snprintf(text, NUMBER_SIZE, conversion->spec, va_arg(*arguments, intmax_t));
        break;
    }
    /* NOLINTEND(bugprone-branch-clone) */
}

static void convert(struct writer *writer, const struct conversion *conversion, va_list *arguments)
{
    char text[NUMBER_SIZE] = "";
    if (conversion->letter == 's') {
        const char *value = va_arg(*arguments, const char *);
        value = value != NULL ? value : "(null)";
        put_text(writer, value,
            conversion->has_precision ? strnlen(value, conversion->precision) : strlen(value));
        return;
    }
    if (conversion->letter == 'c') {
        const char value = (char)va_arg(*arguments, int);
        put_text(writer, &value, 1);
        return;
    }
    if (conversion->letter == 'p')
        (void)snprintf(text, sizeof(text), "%p", va_arg(*arguments, void *));
    else if (strchr("aAeEfFgG", conversion->letter) != NULL)
        (void)snprintf(text, sizeof(text), conversion->spec, va_arg(*arguments, double));
    else
        convert_integer(conversion, text, arguments);
    put_number(writer, text);
}

#pragma GCC diagnostic pop

size_t log_format(char *target, size_t size, const char *format, va_list arguments)
{
    struct writer writer = {.target = target, .size = size};
    va_list rest;
    va_copy(rest, arguments);
    while (*format != '\0') {
        if (*format != '%') {
            put_literal(&writer, *format++);
        } else if (format[1] == '%') {
            put_literal(&writer, '%');
            format += 2;
        } else {
            struct conversion conversion = {.argument = LENGTH_INT};
            format = read_conversion(format + 1, &conversion, &rest);
            convert(&writer, &conversion, &rest);
        }
    }
    va_end(rest);
    if (size > 0)
        target[writer.used] = '\0';
    return writer.used;
}
