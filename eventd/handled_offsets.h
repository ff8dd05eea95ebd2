/* Which records of one partition have been handled, in any order: a position below which all are,
 * and single stretches above it.
 *
 * Pure logic. The text form goes into the metadata of a committed offset, beside the position: the
 * stretches above it as "17,20-25". Brokers take about 4 KiB of it.
 */
#ifndef USERD_EVENTD_HANDLED_OFFSETS_H
#define USERD_EVENTD_HANDLED_OFFSETS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/attributes.h"

#define HANDLED_OFFSETS_STRETCHES 2048
#define HANDLED_OFFSETS_TEXT      4000

struct handled_stretch {
    int64_t first;
    int64_t end; /* the first one behind it */
};

struct handled_offsets {
    int64_t position; /* all below are handled */
    size_t count;
    struct handled_stretch stretches[HANDLED_OFFSETS_STRETCHES]; /* ascending, apart */
};

void handled_offsets_init(struct handled_offsets *handled, int64_t position);
bool handled_offsets_contain(const struct handled_offsets *handled, int64_t offset);
/* -ENOSPC: more stretches than there is room for; nothing changed. */
MUST_CHECK int handled_offsets_add(struct handled_offsets *handled, int64_t first, int64_t end);
/* Everything below is handled, or will never be seen. */
void handled_offsets_skip_to(struct handled_offsets *handled, int64_t position);
/* Adds what `other` holds. */
MUST_CHECK int handled_offsets_merge(
    struct handled_offsets *handled, const struct handled_offsets *other);

/* The stretches as text. False when not all of them fit: then the lowest are in it. */
bool handled_offsets_format(
    const struct handled_offsets *handled, char ret_text[HANDLED_OFFSETS_TEXT]);
/* Adds what the text says. -EINVAL: it is none of ours; then some of it may have been added. */
MUST_CHECK int handled_offsets_parse(struct handled_offsets *handled, const char *text);

#endif
