/* Finds out where the reading of partitions starts: asks a worker for PostgreSQL's positions, then
 * Kafka for the logs and what the group has committed; again and again until both have answered.
 *
 * A partition of which Kafka says nothing (no leader, a topic that is closed to us) is left out and
 * marked as missing in the audit; the others start. One learning at a time; a new one ends the one
 * before it.
 */
#ifndef USERD_EVENTD_POSITION_LEARNING_H
#define USERD_EVENTD_POSITION_LEARNING_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <systemd/sd-event.h>

#include "common/attributes.h"
#include "common/scoreboard.h"
#include "eventd/consumer_start.h"
#include "eventd/kafka_asker.h"
#include "eventd/log_audit.h"
#include "eventd/worker_peers.h"

struct position_learning;

struct position_learning_options {
    sd_event *event;
    rd_kafka_t *consumer;
    struct kafka_asker *asker;
    struct worker_peers *peers;
    struct log_audit *audit;
    struct scoreboard_slot *slot;
    /* The end of a learning. `starts` is valid during the call. */
    void (*on_learned)(const struct consumer_start *starts, size_t count, void *userdata);
    void *userdata;
};

/* Everything in the options must outlive it. */
MUST_CHECK int position_learning_new(
    const struct position_learning_options *options, struct position_learning **ret_learning);

/* Copies what it is given. */
void position_learning_begin(struct position_learning *learning, const char *cluster,
    const rd_kafka_topic_partition_list_t *partitions, uint64_t delay_us);
void position_learning_cancel(struct position_learning *learning);
void position_learning_on_positions(
    struct position_learning *learning, const Userd__Ipc__PositionResult *result);
void position_learning_on_worker_available(struct position_learning *learning);
/* The identity of the database that answered last; "" before that. */
const char *position_learning_database(const struct position_learning *learning);

#endif
