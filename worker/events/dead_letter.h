/* A record that cannot be applied, as the dead letter that goes out again: key, value and headers
 * as they were, and headers that say where it was read and why it is here.
 */
#ifndef USERD_WORKER_EVENTS_DEAD_LETTER_H
#define USERD_WORKER_EVENTS_DEAD_LETTER_H

#include <stddef.h>

#include "common/attributes.h"
#include "worker/store/user_store.h"

#include "ipc.pb-c.h"

#define DEAD_LETTER_HEADERS 8 /* at most: one of them only where headers were dropped */
#define DEAD_LETTER_TEXT    320

/* The outbox row's event id: each repeat of the letter has the same. The relay adds it. */
#define DEAD_LETTER_EVENT_ID "dlq-event-id"

struct dead_letter {
    struct event_header *headers; /* owned */
    char **names;                 /* owned, as are its members: names that had to be mended */
    size_t name_count;
    char numbers[5][24];
    char error[DEAD_LETTER_TEXT];
};

/* `category` and `error` go into dlq-reason and dlq-error. Everything in *ret_letter points into
 * `record`, `batch` and `memory`, which dead_letter_cleanup() frees. */
MUST_CHECK int dead_letter_fill(struct dead_letter *memory, const Userd__Ipc__DeliverBatch *batch,
    const Userd__Ipc__Record *record, const char *const reason[2],
    struct user_dead_letter *ret_letter);
void dead_letter_cleanup(struct dead_letter *memory);

#endif
