/* One producer of the publish flow: librdkafka's client, its queue on our loop, and the count of
 * what it has taken and not reported.
 *
 * Owns client and queue. Knows nothing of rows: what a message stands for is its opaque. A producer
 * that has become fatal is closed and opened anew; closing it reports all that it still had.
 */
#ifndef USERD_EVENTD_PUBLISH_PRODUCER_H
#define USERD_EVENTD_PUBLISH_PRODUCER_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stddef.h>
#include <systemd/sd-event.h>

#include "common/attributes.h"
#include "common/settings.h"

struct kafka_queue;
struct publish_producer;

/* Delivery reports, errors, logs and statistics. The handler must not close the producer. */
typedef void publish_producer_handler(struct publish_producer *producer, rd_kafka_event_t *event);

struct publish_producer {
    sd_event *event;
    const struct settings *settings;
    publish_producer_handler *handler;
    void *owner;       /* the handler's business */
    bool sends_singly; /* a batch of this one never holds two messages */
    bool is_fatal;     /* the owner's note: to be replaced */
    /* Set by open and close. */
    rd_kafka_t *client;        /* owned; NULL: not open */
    struct kafka_queue *queue; /* owned */
    size_t unacknowledged;
};

struct publish_message {
    const char *topic;
    const void *key; /* NULL: none */
    size_t key_length;
    const void *value; /* NULL: none; an empty one is not */
    size_t value_length;
    rd_kafka_headers_t *headers; /* taken when it is sent, freed when it is not */
    void *opaque;
};

/* -EINVAL, logged, when librdkafka refuses the configuration. */
MUST_CHECK int publish_producer_open(struct publish_producer *producer);
/* Takes back everything that is not delivered: it is reported to the handler before this returns.
 * Takes a second at the very most, measured 0.5 ms. */
void publish_producer_close(struct publish_producer *producer);
/* __FATAL while it is not open. */
MUST_CHECK rd_kafka_resp_err_t publish_producer_send(
    struct publish_producer *producer, const struct publish_message *message);
/* The same message again, as a delivery report brings it. */
MUST_CHECK rd_kafka_resp_err_t publish_producer_resend(
    struct publish_producer *producer, const rd_kafka_message_t *message);

#endif
