/* One librdkafka queue on an sd-event loop: each event is handed to a handler on the loop's thread.
 *
 * librdkafka writes our eventfd only when the queue goes from empty to not empty, so a turn ends
 * with the queue empty or with the eventfd written by ourselves.
 */
#ifndef USERD_EVENTD_KAFKA_QUEUE_H
#define USERD_EVENTD_KAFKA_QUEUE_H

#include <librdkafka/rdkafka.h>
#include <systemd/sd-event.h>

#include "common/attributes.h"

struct kafka_queue;

/* The event is destroyed after the handler. The handler must not free the queue. */
typedef void kafka_queue_handler(rd_kafka_event_t *event, void *userdata);

/* Takes `queue`, also on failure. */
MUST_CHECK int kafka_queue_new(sd_event *event, rd_kafka_queue_t *queue,
    kafka_queue_handler *handler, void *userdata, struct kafka_queue **ret_queue);
struct kafka_queue *kafka_queue_free(struct kafka_queue *queue);

/* Handles what is there now, at most one turn's worth. */
void kafka_queue_drain(struct kafka_queue *queue);
rd_kafka_queue_t *kafka_queue_handle(struct kafka_queue *queue);

/* Makes `queue` wake the eventfd `fd` when it goes from empty to not empty. */
void kafka_queue_wake_by(rd_kafka_queue_t *queue, int fd);

#endif
