/* The outbox relay: of all workers of all instances one reads the outbox and has it published, in
 * order for each user.
 *
 * Owns its own database connection, and over it the outbox's lease (outbox_lease). A row goes when
 * eventd says that the broker has acknowledged it. Safety does not depend on the lease: two relays
 * would only publish twice. Loop thread only.
 */
#ifndef USERD_WORKER_EVENTS_OUTBOX_RELAY_H
#define USERD_WORKER_EVENTS_OUTBOX_RELAY_H

#include <stdbool.h>

#include "common/attributes.h"
#include "worker/events/event_peer.h"

#include "ipc.pb-c.h"

struct outbox_relay;

/* `peer` is what rows are sent through; see event_channel.h. The options must outlive it. */
MUST_CHECK int outbox_relay_new(const struct event_peer_options *options, struct event_peer *peer,
    struct outbox_relay **ret_relay);
struct outbox_relay *outbox_relay_free(struct outbox_relay *relay);

/* The channel to eventd began or ended: everything that was on its way is not acknowledged. */
void outbox_relay_on_channel(struct outbox_relay *relay);
void outbox_relay_on_result(struct outbox_relay *relay, const Userd__Ipc__PublishResult *result);

/* Sends nothing more, waits a moment for what is on its way, then gives up the lease. */
void outbox_relay_drain(struct outbox_relay *relay);
bool outbox_relay_is_idle(const struct outbox_relay *relay);

#endif
