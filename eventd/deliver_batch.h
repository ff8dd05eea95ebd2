/* Records of one partition as librdkafka gives them, and the DeliverBatch that is made of them.
 *
 * Holds librdkafka's events, so that nothing is copied before the frame is packed.
 */
#ifndef USERD_EVENTD_DELIVER_BATCH_H
#define USERD_EVENTD_DELIVER_BATCH_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/attributes.h"
#include "eventd/worker_peers.h"

struct held_record {
    rd_kafka_event_t *event;           /* owned: keeps the message alive */
    const rd_kafka_message_t *message; /* of the event */
};

/* What all records of the batch have in common. */
struct deliver_batch {
    Userd__Ipc__DeliverBatch *header;  /* filled in, but for the records */
    const struct held_record *records; /* in offset order */
    size_t count;
    size_t event_bytes_max; /* a larger value is refused */
    unsigned int attempts;  /* before this one */
    const char *refusal;    /* NULL: none; else of every record */
};

/* 0 or negative errno: then nothing was sent. */
MUST_CHECK int deliver_batch_send(struct worker_peer *peer, const struct deliver_batch *batch);

/* Bytes that a record takes in a frame, about. */
size_t deliver_batch_record_size(const rd_kafka_message_t *message);

#endif
