/* Where the reading of a partition starts, given what PostgreSQL, the group and the broker say
 * about it.
 *
 * A position that the broker no longer has, or does not have yet, is an alarm in the log, and the
 * partition is read again from its earliest record: effects are idempotent, silence would lose
 * records.
 */
#ifndef USERD_EVENTD_CONSUMER_START_H
#define USERD_EVENTD_CONSUMER_START_H

#include <librdkafka/rdkafka.h>

#include "common/attributes.h"
#include "eventd/consumer_group.h"
#include "eventd/kafka_asker.h"

/* `partition->offset` is PostgreSQL's position or -1. The result points at the partition's topic.
 */
struct consumer_start consumer_start_choose(
    const rd_kafka_topic_partition_t *partition, const struct kafka_partition_offsets *offsets);

/* Fills the partitions into the frame's PositionRequest and sends it. */
MUST_CHECK int consumer_start_send_request(struct worker_peer *peer, Userd__Ipc__Frame *frame,
    const rd_kafka_topic_partition_list_t *partitions);

#endif
