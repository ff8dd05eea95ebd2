/* Which destinations the relay leaves alone for a while: those of which so many rows could not be
 * published (a topic is missing, its authorisation too), or are not acknowledged (its partitions
 * have no leader), that they would leave no room for the rows of others.
 *
 * Owns no row. Of a held destination a share stays in the window and is tried again; what is over
 * it and not on its way leaves the window, newest first, and stays in the database. Rows of a user
 * keep their order: of one destination nothing is read behind what was let go (the answer of a read
 * that was on its way when a hold began is thrown away), and all of it is read again from the
 * beginning when the hold ends.
 */
#ifndef USERD_WORKER_EVENTS_OUTBOX_HOLD_H
#define USERD_WORKER_EVENTS_OUTBOX_HOLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/events/outbox_window.h"

/* What rows that have failed, or that a destination does not acknowledge, may take of the window,
 * for each destination. */
#define OUTBOX_HOLD_ROWS  1000
#define OUTBOX_HOLD_BYTES ((size_t)2 * 1024 * 1024)
/* Without any answer for so long a destination does not acknowledge. */
#define OUTBOX_HOLD_SILENCE_US UINT64_C(2000000)

struct outbox_hold {
    size_t held_count;
    int64_t held[OUTBOX_WINDOW_DESTINATIONS]; /* their numbers */
    bool has_begun; /* one has, since whoever asks for rows has set this to false */
    /* Private: the last change that was seen of each destination's answers. */
    uint64_t seen_answers[OUTBOX_WINDOW_DESTINATIONS];
    uint64_t seen_at_us[OUTBOX_WINDOW_DESTINATIONS];
};

/* Starts zeroed. Looks at the window, after answers of eventd and when outbox_hold_next_us() has
 * come; frees the rows that are let go. True when a hold has ended: then everything is to be read
 * from the beginning. */
bool outbox_hold_update(struct outbox_hold *hold, struct outbox_window *window, uint64_t now_us);
/* When to look although there is no answer; UINT64_MAX: not before the next answer. */
uint64_t outbox_hold_next_us(const struct outbox_hold *hold, const struct outbox_window *window);
/* All is forgotten, and so is the hold. */
void outbox_hold_clear(struct outbox_hold *hold, struct outbox_window *window);

#endif
