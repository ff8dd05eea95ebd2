/* Consumed records on their way to the workers: one batch of consecutive records per partition in
 * flight, applied in order.
 *
 * Owns the partitions' queues and the records that are held. Back-pressure is not reading: what is
 * not asked for stays in librdkafka's bounded queues. An answer to a batch of an earlier assignment
 * is ignored; the compare-and-set of the position in PostgreSQL makes that safe.
 */
#ifndef USERD_EVENTD_DELIVER_FLOW_H
#define USERD_EVENTD_DELIVER_FLOW_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <systemd/sd-event.h>

#include "common/attributes.h"
#include "common/scoreboard.h"
#include "common/settings.h"
#include "eventd/consumer_group.h"
#include "eventd/worker_peers.h"

struct deliver_flow;

struct deliver_flow_options {
    sd_event *event;
    const struct settings *settings;
    struct scoreboard_slot *slot;
    rd_kafka_t *consumer;
    struct worker_peers *peers;
    struct log_audit *audit;
};

/* Everything in the options must outlive it. */
MUST_CHECK int deliver_flow_new(
    const struct deliver_flow_options *options, struct deliver_flow **ret_flow);
/* Before the first start. */
void deliver_flow_set_group(struct deliver_flow *flow, struct consumer_group *group);

void deliver_flow_start(
    struct deliver_flow *flow, const struct consumer_start *starts, size_t count);
void deliver_flow_stop(struct deliver_flow *flow);

void deliver_flow_on_result(
    struct deliver_flow *flow, struct worker_peer *peer, const Userd__Ipc__DeliverResult *result);
void deliver_flow_on_worker_available(struct deliver_flow *flow);
void deliver_flow_on_worker_gone(struct deliver_flow *flow, uint64_t peer_serial);

/* Sends no more batches. */
void deliver_flow_drain(struct deliver_flow *flow);
bool deliver_flow_is_idle(const struct deliver_flow *flow);
/* Tells Kafka how far everything is applied, if it does not know and nothing is on its way to it.
 */
void deliver_flow_commit(struct deliver_flow *flow);
/* Kafka has said that it knows. */
bool deliver_flow_is_committed(const struct deliver_flow *flow);
/* The record below the log's position is known now: PostgreSQL gets it with the position. */
void deliver_flow_store_mark(struct deliver_flow *flow, const struct audited_log *log);

#endif
