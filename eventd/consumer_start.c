#include "eventd/consumer_start.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "common/log.h"

static int64_t choose_offset(
    const rd_kafka_topic_partition_t *partition, const struct kafka_partition_offsets *offsets)
{
    int64_t stored = partition->offset;
    if (stored < 0) {
        bool has_committed =
            offsets->committed >= offsets->low && offsets->committed <= offsets->high;
        log_info("no position stored topic=%s partition=%" PRIi32 " start=%s", partition->topic,
            partition->partition, has_committed ? "committed" : "earliest");
        return has_committed ? offsets->committed : offsets->low;
    }
    if (stored > offsets->high) {
        log_error("position is above the end of the partition topic=%s partition=%" PRIi32
                  " position=%" PRIi64 " end=%" PRIi64
                  ": was the topic made anew? reading it from the start",
            partition->topic, partition->partition, stored, offsets->high);
        return offsets->low;
    }
    if (stored < offsets->low) {
        log_error("records have expired unread topic=%s partition=%" PRIi32 " position=%" PRIi64
                  " earliest=%" PRIi64 ": reading from the earliest",
            partition->topic, partition->partition, stored, offsets->low);
        return offsets->low;
    }
    return stored;
}

struct consumer_start consumer_start_choose(
    const rd_kafka_topic_partition_t *partition, const struct kafka_partition_offsets *offsets)
{
    return (struct consumer_start){
        .topic = partition->topic,
        .partition = partition->partition,
        .stored = partition->offset < 0 ? -1 : partition->offset,
        .offset = choose_offset(partition, offsets),
    };
}

int consumer_start_send_request(struct worker_peer *peer, Userd__Ipc__Frame *frame,
    const rd_kafka_topic_partition_list_t *partitions)
{
    size_t count = (size_t)partitions->cnt;
    Userd__Ipc__TopicPartition *asked = calloc(count + 1, sizeof(*asked));
    Userd__Ipc__TopicPartition **pointers = calloc(count + 1, sizeof(Userd__Ipc__TopicPartition *));
    int result = -ENOMEM;
    if (asked != NULL && pointers != NULL) {
        for (size_t i = 0; i < count; i++) {
            userd__ipc__topic_partition__init(&asked[i]);
            asked[i].topic = partitions->elems[i].topic;
            asked[i].partition = partitions->elems[i].partition;
            pointers[i] = &asked[i];
        }
        frame->position_request->n_partitions = count;
        frame->position_request->partitions = pointers;
        result = worker_peers_send(peer, frame);
    }
    free(asked);
    free(pointers);
    return result;
}
