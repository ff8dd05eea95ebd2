/* Which destinations the relay leaves alone for a while: those of which so many rows could not be
 * published (a topic is missing, its authorisation too) that they would leave no room for the rows
 * of others.
 *
 * Owns no row. Of a held destination a share stays in the window and is tried again; what is over
 * it leaves the window, newest first, and stays in the database. Rows of a user keep their order:
 * of one destination nothing is read behind what was let go, and all of it is read again from the
 * beginning when the hold ends.
 */
#ifndef USERD_WORKER_EVENTS_OUTBOX_HOLD_H
#define USERD_WORKER_EVENTS_OUTBOX_HOLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/events/outbox_window.h"

/* What rows that have failed may take of the window, for each destination. */
#define OUTBOX_HOLD_ROWS         1000
#define OUTBOX_HOLD_BYTES        ((size_t)2 * 1024 * 1024)
#define OUTBOX_HOLD_DESTINATIONS 3 /* as enum Destination of proto/ipc.proto; 0 is none */

struct outbox_hold {
    size_t held_count;
    int64_t held[OUTBOX_HOLD_DESTINATIONS]; /* their numbers */
};

/* Looks at the window after answers of eventd; frees the rows that are let go. True when a hold has
 * ended: then everything is to be read from the beginning. */
bool outbox_hold_update(struct outbox_hold *hold, struct outbox_window *window);

#endif
