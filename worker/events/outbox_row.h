/* The rows that the relay holds: read from the database, kept in the window, sent to eventd. */
#ifndef USERD_WORKER_EVENTS_OUTBOX_ROW_H
#define USERD_WORKER_EVENTS_OUTBOX_ROW_H

#include "common/attributes.h"
#include "worker/events/event_peer.h"
#include "worker/events/outbox_window.h"
#include "worker/store/outbox_store.h"

#include "ipc.pb-c.h"

struct outbox_row {
    struct outbox_entry entry;
    Userd__Ipc__OutboxRow *message; /* owned */
    char *parked_because;           /* owned; NULL: it goes because it was delivered */
};

struct outbox_row *outbox_row_of(struct outbox_entry *entry);
/* Puts a copy of a stored row into the window, which must not know it. */
MUST_CHECK int outbox_row_add(struct outbox_window *window, const struct outbox_store_row *stored);
/* Out of the window and gone. */
void outbox_row_free(struct outbox_window *window, struct outbox_entry *entry);
/* Sends all rows that may be sent, as far as the channel takes them without queueing too much. */
void outbox_row_send_all(struct outbox_window *window, struct event_peer *peer, uint64_t now_us);

#endif
