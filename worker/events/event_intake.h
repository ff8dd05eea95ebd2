/* Consumed records on their way into the database: DeliverBatch, decode, user_service,
 * DeliverResult.
 *
 * A record that cannot be applied becomes a dead letter in the same transaction as the position:
 * nothing is lost and nothing is stuck. Where PostgreSQL refuses a batch for what is in it, the
 * batch is taken apart until the record is found. Every request is answered exactly once, while its
 * channel lives. Loop thread only.
 */
#ifndef USERD_WORKER_EVENTS_EVENT_INTAKE_H
#define USERD_WORKER_EVENTS_EVENT_INTAKE_H

#include <stdbool.h>

#include "common/attributes.h"
#include "worker/events/event_peer.h"

#include "ipc.pb-c.h"

struct event_intake;

MUST_CHECK int event_intake_new(const struct event_peer_options *options, struct event_peer *peer,
    struct event_intake **ret_intake);
/* What is in flight ends by itself, unanswered. */
struct event_intake *event_intake_free(struct event_intake *intake);

/* Negative errno: the frame makes no sense, the channel ends. */
MUST_CHECK int event_intake_on_batch(
    struct event_intake *intake, uint64_t channel_serial, const Userd__Ipc__DeliverBatch *batch);
MUST_CHECK int event_intake_on_positions(struct event_intake *intake, uint64_t channel_serial,
    const Userd__Ipc__PositionRequest *request);
bool event_intake_is_idle(const struct event_intake *intake);

#endif
