/* Outbox rows on their way into Kafka: PublishBatch from a relay, produce, delivery report,
 * PublishResult.
 *
 * Owns two producers: one that batches, and one that sends what came in a batch that the broker has
 * refused, each row alone. A row is answered as delivered only after the broker's acknowledgement.
 * There is no queue of our own: what librdkafka does not take goes back at once as "not permanent",
 * and the relay sends it again later. A producer that has become fatal is replaced, and everything
 * unacknowledged goes back the same way.
 */
#ifndef USERD_EVENTD_PUBLISH_FLOW_H
#define USERD_EVENTD_PUBLISH_FLOW_H

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "common/attributes.h"
#include "common/scoreboard.h"
#include "common/settings.h"
#include "eventd/worker_peers.h"

struct publish_flow;

/* `settings`, `peers` and `slot` must outlive it. */
MUST_CHECK int publish_flow_new(sd_event *event, const struct settings *settings,
    struct worker_peers *peers, struct scoreboard_slot *slot, struct publish_flow **ret_flow);

/* Until a topic is known to exist its rows go back at once: producing would make it, or wait where
 * nobody sees it. */
void publish_flow_set_topics(struct publish_flow *flow, bool has_delete, bool has_dead_letter);
MUST_CHECK int publish_flow_on_batch(
    struct publish_flow *flow, struct worker_peer *peer, const Userd__Ipc__PublishBatch *batch);
/* Takes no new rows: they go unanswered until the channel ends. */
void publish_flow_drain(struct publish_flow *flow);
/* Nothing that Kafka has not answered, and nothing that the workers have not been told. */
bool publish_flow_is_idle(const struct publish_flow *flow);

#endif
