#include "eventd/publish_producer.h"

#include <errno.h>
#include <pthread.h>

#include "common/log.h"
#include "eventd/kafka_client.h"
#include "eventd/kafka_queue.h"

#define PURGE_ROUNDS  10
#define PURGE_POLLS   10 /* of each round */
#define PURGE_POLL_MS 10
#define PURGE_EVERYTHING \
    (RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT | RD_KAFKA_PURGE_F_NON_BLOCKING)

static void link_ticket(struct publish_producer *producer, struct publish_ticket *ticket)
{
    ticket->next = producer->unreported;
    ticket->place = &producer->unreported;
    if (ticket->next != NULL)
        ticket->next->place = &ticket->next;
    producer->unreported = ticket;
}

static void unlink_ticket(struct publish_ticket *ticket)
{
    *ticket->place = ticket->next;
    if (ticket->next != NULL)
        ticket->next->place = ticket->place;
}

static void on_event(rd_kafka_event_t *event, void *userdata)
{
    struct publish_producer *producer = userdata;
    if (rd_kafka_event_type(event) != RD_KAFKA_EVENT_DR) {
        producer->handlers->on_event(producer, event);
        return;
    }
    for (;;) {
        const rd_kafka_message_t *message = rd_kafka_event_message_next(event);
        if (message == NULL)
            return;
        struct publish_ticket *ticket = message->_private;
        unlink_ticket(ticket);
        producer->handlers->on_report(producer, ticket, message);
    }
}

int publish_producer_open(struct publish_producer *producer)
{
    rd_kafka_t *client = NULL;
    int result = kafka_client_new_producer(producer->settings, producer->sends_singly, &client);
    if (result < 0)
        return result;
    result = kafka_queue_new(
        producer->event, rd_kafka_queue_get_main(client), on_event, producer, &producer->queue);
    if (result < 0) {
        rd_kafka_destroy(client);
        return result;
    }
    producer->client = client;
    return 0;
}

/* Without RD_KAFKA_PURGE_F_NON_BLOCKING the purge would wait, without a limit, for every thread of
 * librdkafka to take part, and such a thread may stand in getaddrinfo(). A message may move between
 * librdkafka's queues behind a purge's back: each round purges again. */
static void take_back_messages(struct publish_producer *producer)
{
    for (int i = 0; i < PURGE_ROUNDS * PURGE_POLLS && producer->unreported != NULL; i++) {
        if (i % PURGE_POLLS == 0)
            (void)rd_kafka_purge(producer->client, PURGE_EVERYTHING);
        rd_kafka_event_t *event =
            rd_kafka_queue_poll(kafka_queue_handle(producer->queue), PURGE_POLL_MS);
        if (event == NULL)
            continue;
        on_event(event, producer);
        rd_kafka_event_destroy(event);
    }
}

static void give_up_messages(struct publish_producer *producer)
{
    size_t count = 0;
    while (producer->unreported != NULL) {
        struct publish_ticket *ticket = producer->unreported;
        unlink_ticket(ticket);
        producer->handlers->on_unreported(producer, ticket);
        count++;
    }
    if (count > 0)
        log_warn("kafka producer did not report all of its rows rows=%zu: the relay sends them "
                 "again",
            count);
}

static void *destroy_client(void *client)
{
    rd_kafka_destroy(client);
    return NULL;
}

void publish_producer_close(struct publish_producer *producer)
{
    if (producer->client == NULL)
        return;
    take_back_messages(producer);
    give_up_messages(producer);
    producer->queue = kafka_queue_free(producer->queue);
    pthread_t thread;
    int error = pthread_create(&thread, NULL, destroy_client, producer->client);
    if (error == 0)
        (void)pthread_detach(thread);
    else
        log_error(
            "kafka producer is left open error=%d reason=\"no thread can be started\"", error);
    producer->client = NULL;
}

rd_kafka_resp_err_t publish_producer_send(
    struct publish_producer *producer, const struct publish_message *message)
{
    rd_kafka_resp_err_t error = RD_KAFKA_RESP_ERR__FATAL;
    if (producer->client != NULL)
        error = rd_kafka_producev(producer->client, RD_KAFKA_V_TOPIC(message->topic),
            RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
            RD_KAFKA_V_KEY(borrow_const(message->key), message->key_length),
            RD_KAFKA_V_VALUE(borrow_const(message->value), message->value_length),
            RD_KAFKA_V_HEADERS(message->headers), RD_KAFKA_V_OPAQUE(message->ticket),
            RD_KAFKA_V_END);
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
        link_ticket(producer, message->ticket);
    else
        rd_kafka_headers_destroy(message->headers);
    return error;
}

rd_kafka_resp_err_t publish_producer_resend(
    struct publish_producer *producer, const rd_kafka_message_t *message)
{
    rd_kafka_headers_t *headers = NULL;
    bool has_headers = rd_kafka_message_headers(message, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR;
    const struct publish_message again = {
        .topic = rd_kafka_topic_name(message->rkt),
        .key = message->key,
        .key_length = message->key_len,
        .value = message->payload,
        .value_length = message->len,
        .headers = has_headers ? rd_kafka_headers_copy(headers) : rd_kafka_headers_new(0),
        .ticket = message->_private,
    };
    return publish_producer_send(producer, &again);
}
