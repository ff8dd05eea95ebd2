#include "eventd/handled_offsets.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void handled_offsets_init(struct handled_offsets *handled, int64_t position)
{
    handled->position = position < 0 ? 0 : position;
    handled->count = 0;
}

/* The first stretch that ends at `offset` or behind it. */
static size_t find_stretch(const struct handled_offsets *handled, int64_t offset)
{
    size_t low = 0;
    size_t high = handled->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (handled->stretches[middle].end < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool handled_offsets_contain(const struct handled_offsets *handled, int64_t offset)
{
    if (offset < handled->position)
        return true;
    size_t index = find_stretch(handled, offset + 1);
    return index < handled->count && handled->stretches[index].first <= offset;
}

static void remove_stretches(struct handled_offsets *handled, size_t index, size_t count)
{
    memmove(&handled->stretches[index], &handled->stretches[index + count],
        (handled->count - index - count) * sizeof(handled->stretches[0]));
    handled->count -= count;
}

void handled_offsets_skip_to(struct handled_offsets *handled, int64_t position)
{
    if (position > handled->position)
        handled->position = position;
    size_t swallowed = 0;
    while (swallowed < handled->count && handled->stretches[swallowed].first <= handled->position) {
        if (handled->stretches[swallowed].end > handled->position)
            handled->position = handled->stretches[swallowed].end;
        swallowed++;
    }
    remove_stretches(handled, 0, swallowed);
}

int handled_offsets_add(struct handled_offsets *handled, int64_t first, int64_t end)
{
    if (end <= handled->position || end <= first)
        return 0;
    if (first <= handled->position) {
        handled_offsets_skip_to(handled, end);
        return 0;
    }
    /* What it touches becomes one with it. */
    size_t index = find_stretch(handled, first);
    size_t touched = 0;
    while (index + touched < handled->count && handled->stretches[index + touched].first <= end)
        touched++;
    if (touched == 0 && handled->count == HANDLED_OFFSETS_STRETCHES)
        return -ENOSPC;
    if (touched == 0) {
        memmove(&handled->stretches[index + 1], &handled->stretches[index],
            (handled->count - index) * sizeof(handled->stretches[0]));
        handled->stretches[index] = (struct handled_stretch){.first = first, .end = end};
        handled->count++;
        return 0;
    }
    struct handled_stretch *stretch = &handled->stretches[index];
    int64_t last_end = handled->stretches[index + touched - 1].end;
    stretch->first = stretch->first < first ? stretch->first : first;
    stretch->end = last_end > end ? last_end : end;
    remove_stretches(handled, index + 1, touched - 1);
    return 0;
}

int handled_offsets_merge(struct handled_offsets *handled, const struct handled_offsets *other)
{
    handled_offsets_skip_to(handled, other->position);
    int result = 0;
    for (size_t i = 0; i < other->count && result == 0; i++)
        result = handled_offsets_add(handled, other->stretches[i].first, other->stretches[i].end);
    return result;
}

bool handled_offsets_format(
    const struct handled_offsets *handled, char ret_text[HANDLED_OFFSETS_TEXT])
{
    size_t length = 0;
    ret_text[0] = '\0';
    for (size_t i = 0; i < handled->count; i++) {
        const struct handled_stretch *stretch = &handled->stretches[i];
        char piece[48];
        int size = 0;
        if (stretch->end == stretch->first + 1)
            size = snprintf(piece, sizeof(piece), "%s%" PRIi64, i == 0 ? "" : ",", stretch->first);
        else
            size = snprintf(piece, sizeof(piece), "%s%" PRIi64 "-%" PRIi64, i == 0 ? "" : ",",
                stretch->first, stretch->end - 1);
        if (length + (size_t)size >= HANDLED_OFFSETS_TEXT)
            return false;
        memcpy(ret_text + length, piece, (size_t)size + 1);
        length += (size_t)size;
    }
    return true;
}

/* A number without sign, or -1. *rest goes behind it. */
static int64_t take_number(const char **rest)
{
    char *end = NULL;
    if (!isdigit((unsigned char)**rest))
        return -1;
    errno = 0;
    long long number = strtoll(*rest, &end, 10);
    *rest = end;
    return errno == 0 && number < INT64_MAX ? number : -1;
}

int handled_offsets_parse(struct handled_offsets *handled, const char *text)
{
    const char *rest = text;
    while (*rest != '\0') {
        int64_t first = take_number(&rest);
        int64_t last = first;
        if (first >= 0 && *rest == '-') {
            rest++;
            last = take_number(&rest);
        }
        if (first < 0 || last < first || (*rest != ',' && *rest != '\0'))
            return -EINVAL;
        int result = handled_offsets_add(handled, first, last + 1);
        if (result < 0)
            return result;
        if (*rest == ',')
            rest++;
    }
    return 0;
}
