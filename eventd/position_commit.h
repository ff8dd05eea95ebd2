/* Tells Kafka how far partitions are applied: for lag tools, and for a member of the legacy service
 * that takes over.
 *
 * One commit at a time; its result comes on the loop. One that fails is counted and logged, and the
 * next one waits for a while. Owns the queue of the results. Never waits.
 */
#ifndef USERD_EVENTD_POSITION_COMMIT_H
#define USERD_EVENTD_POSITION_COMMIT_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <systemd/sd-event.h>

#include "common/attributes.h"
#include "common/scoreboard.h"

struct position_commit;

struct position_commit_options {
    sd_event *event;
    rd_kafka_t *consumer;         /* must outlive it */
    struct scoreboard_slot *slot; /* likewise */
    /* Kafka has this offset of the partition. */
    void (*on_committed)(const rd_kafka_topic_partition_t *partition, void *userdata);
    void *userdata;
};

MUST_CHECK int position_commit_new(
    const struct position_commit_options *options, struct position_commit **ret_commit);

/* No result is being waited for, and the last failure is long enough ago. */
bool position_commit_is_ready(const struct position_commit *commit);
/* Appends a partition with the note of this database to what is to be committed. */
void position_commit_add(rd_kafka_topic_partition_list_t *list, const char *topic,
    int32_t partition, int64_t position, const char *database);
/* Sends it, ready or not; the list stays the caller's. */
void position_commit_send(
    struct position_commit *commit, const rd_kafka_topic_partition_list_t *list);

#endif
