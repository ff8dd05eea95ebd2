/* The rows that the relay holds: read from the database, kept in the window, sent to eventd. */
#ifndef USERD_WORKER_EVENTS_OUTBOX_ROW_H
#define USERD_WORKER_EVENTS_OUTBOX_ROW_H

#include "common/attributes.h"
#include "common/log.h"
#include "common/scoreboard.h"
#include "worker/events/event_peer.h"
#include "worker/events/outbox_poll.h"
#include "worker/events/outbox_window.h"
#include "worker/store/outbox_store.h"

#include "ipc.pb-c.h"

struct outbox_row {
    struct outbox_entry entry;
    Userd__Ipc__OutboxRow *message; /* owned */
    char *parked_because;           /* owned; NULL: it goes because it was delivered */
    int64_t created_us;             /* CLOCK_MONOTONIC; before the machine's start it is negative */
};

struct outbox_row *outbox_row_of(struct outbox_entry *entry);
/* Puts copies of the rows that a read has brought now, and that the window does not know, into it.
 * One that makes no sense is there to be parked. Where there is no memory it ends, and the reading
 * says so. */
struct outbox_reading outbox_row_take_all(struct outbox_window *window, const PGresult *result,
    int asked_rows, uint64_t now_us, struct log_limit *limit);
/* The ids of rows that are delivered; their number. */
size_t outbox_row_collect_done(const struct outbox_window *window, int64_t *ret_ids, size_t max);
/* The first row that is to be parked; NULL: none. */
const struct outbox_row *outbox_row_to_park(const struct outbox_window *window);
/* The ids above `floor` that are in the window; their number. */
size_t outbox_row_collect_known(
    const struct outbox_window *window, int64_t floor, int64_t ret_ids[OUTBOX_WINDOW_ROWS]);
/* Counts how long the row took from COMMIT to the broker. */
void outbox_row_note_delivered(
    struct scoreboard_slot *slot, struct outbox_entry *entry, uint64_t now_us);
/* It waits for its next try, or for being parked when no try can help. */
void outbox_row_note_failed(struct outbox_window *window, uint64_t epoch,
    const Userd__Ipc__PublishFailure *failure, uint64_t now_us);
/* How many rows wait, and for how long the first of them has. `waiting_rows`: as counted in the
 * table, which counts where the window has no room for more. */
void outbox_row_show_backlog(struct scoreboard_slot *slot, const struct outbox_window *window,
    uint64_t waiting_rows, uint64_t now_us);
/* Out of the window and gone. */
void outbox_row_free(struct outbox_window *window, struct outbox_entry *entry);
/* Sends all rows that may be sent, as far as the channel takes them without queueing too much. */
void outbox_row_send_all(struct outbox_window *window, struct event_peer *peer, uint64_t now_us);

#endif
