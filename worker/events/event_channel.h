/* What the relay and the intake may do with the channel to eventd, which event_peer owns. */
#ifndef USERD_WORKER_EVENTS_EVENT_CHANNEL_H
#define USERD_WORKER_EVENTS_EVENT_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/attributes.h"
#include "worker/events/event_peer.h"

#include "ipc.pb-c.h"

/* 0: there is no eventd now. Each channel has another serial. */
uint64_t event_channel_serial(const struct event_peer *peer);
/* -EPIPE when the channel with this serial has ended; when it does not take the frame it ends, on a
 * later turn. */
MUST_CHECK int event_channel_send(
    struct event_peer *peer, uint64_t serial, const Userd__Ipc__Frame *frame);
size_t event_channel_queued_bytes(const struct event_peer *peer);

/* The database refuses events for what it is (read-only, a right or a table is missing): for a
 * while, longer each time, eventd is told that it cannot be used, and calls go on. */
void event_channel_set_unable(struct event_peer *peer);
/* Events were applied. */
void event_channel_set_able(struct event_peer *peer);

#endif
