#include "eventd/publish_producer.h"

#include <errno.h>

#include "common/log.h"
#include "eventd/kafka_client.h"
#include "eventd/kafka_queue.h"

#define PURGE_DRAIN_ROUNDS  100
#define PURGE_DRAIN_STEP_MS 10

static void on_event(rd_kafka_event_t *event, void *userdata)
{
    struct publish_producer *producer = userdata;
    if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_DR)
        producer->unacknowledged -= rd_kafka_event_message_count(event);
    producer->handler(producer, event);
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

void publish_producer_close(struct publish_producer *producer)
{
    if (producer->client == NULL)
        return;
    (void)rd_kafka_purge(producer->client, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
    for (int i = 0; i < PURGE_DRAIN_ROUNDS && producer->unacknowledged > 0; i++) {
        rd_kafka_event_t *event =
            rd_kafka_queue_poll(kafka_queue_handle(producer->queue), PURGE_DRAIN_STEP_MS);
        if (event == NULL)
            continue;
        on_event(event, producer);
        rd_kafka_event_destroy(event);
    }
    if (producer->unacknowledged > 0)
        log_error(
            "kafka producer kept rows rows=%zu: their channel is ended", producer->unacknowledged);
    producer->queue = kafka_queue_free(producer->queue);
    rd_kafka_destroy(producer->client);
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
            RD_KAFKA_V_HEADERS(message->headers), RD_KAFKA_V_OPAQUE(message->opaque),
            RD_KAFKA_V_END);
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
        producer->unacknowledged++;
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
        .opaque = message->_private,
    };
    return publish_producer_send(producer, &again);
}
