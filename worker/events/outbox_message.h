/* An outbox row as the message that eventd publishes: value untouched, headers completed.
 *
 * A `delete` gets the attributes of CloudEvents in binary mode; a dead letter has all of its
 * headers already.
 */
#ifndef USERD_WORKER_EVENTS_OUTBOX_MESSAGE_H
#define USERD_WORKER_EVENTS_OUTBOX_MESSAGE_H

#include "common/attributes.h"
#include "worker/store/outbox_store.h"

#include "ipc.pb-c.h"

/* A copy of its own: free with outbox_message_free(). -EPROTO for a row that is none of ours,
 * -ENOMEM. */
MUST_CHECK int outbox_message_new(
    const struct outbox_store_row *row, Userd__Ipc__OutboxRow **ret_message);
Userd__Ipc__OutboxRow *outbox_message_free(Userd__Ipc__OutboxRow *message);
size_t outbox_message_size(const Userd__Ipc__OutboxRow *message);

#endif
