/* One producer of the publish flow: librdkafka's client, its queue on our loop, and the list of
 * the messages that the client has taken and not reported.
 *
 * Owns client and queue. Knows nothing of rows: the ticket of a message stands for its row. A
 * producer that has become fatal is closed and opened again; closing it accounts for every message
 * that it still had. Never waits for a thread of librdkafka: that may be looking up a host name.
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

/* What a message stands for; embedded in the owner's own record, whose memory is the owner's. In
 * the producer's list from a successful send until its report. */
struct publish_ticket {
    struct publish_ticket *next;
    struct publish_ticket **place; /* what points to it */
};

/* None of them may close the producer. */
struct publish_producer_handlers {
    /* A delivery report; the ticket is in no list any more and may be sent again. */
    void (*on_report)(struct publish_producer *producer, struct publish_ticket *ticket,
        const rd_kafka_message_t *message);
    /* The producer was closed, and librdkafka did not report this message in time: it is not known
     * whether it is in the log. No report follows. */
    void (*on_unreported)(struct publish_producer *producer, struct publish_ticket *ticket);
    /* Errors, logs and statistics. */
    void (*on_event)(struct publish_producer *producer, rd_kafka_event_t *event);
};

struct publish_producer {
    sd_event *event;
    const struct settings *settings;
    const struct publish_producer_handlers *handlers;
    void *owner;       /* the handlers' business */
    bool sends_singly; /* a batch of this one never holds two messages */
    bool is_fatal;     /* the owner's note: to be replaced */
    /* Set by open and close. */
    rd_kafka_t *client;        /* owned; NULL: not open */
    struct kafka_queue *queue; /* owned */
    struct publish_ticket *unreported;
};

struct publish_message {
    const char *topic;
    const void *key; /* NULL: none */
    size_t key_length;
    const void *value; /* NULL: none; an empty one is not */
    size_t value_length;
    rd_kafka_headers_t *headers; /* taken when it is sent, freed when it is not */
    struct publish_ticket *ticket;
};

/* -EINVAL, logged, when librdkafka refuses the configuration. */
MUST_CHECK int publish_producer_open(struct publish_producer *producer);
/* Takes back every message that is not delivered: each comes to on_report or on_unreported before
 * this returns. Takes a second at most, measured 0.5 ms; the client itself ends in a thread of its
 * own, since that waits for librdkafka's threads. */
void publish_producer_close(struct publish_producer *producer);
/* __FATAL while it is not open. */
MUST_CHECK rd_kafka_resp_err_t publish_producer_send(
    struct publish_producer *producer, const struct publish_message *message);
/* The same message again, as a delivery report brings it. */
MUST_CHECK rd_kafka_resp_err_t publish_producer_resend(
    struct publish_producer *producer, const rd_kafka_message_t *message);

#endif
