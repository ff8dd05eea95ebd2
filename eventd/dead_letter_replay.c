#include "eventd/dead_letter_replay.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eventd/dead_letter_view.h"
#include "eventd/kafka_client.h"

#define IN_FLIGHT_MAX 1000
#define NAME_SIZE     256
#define REDRIVES_MAX  1000000

struct dead_letter_replay {
    const struct settings *settings;
    rd_kafka_t *producer;    /* ends with the process */
    rd_kafka_queue_t *queue; /* its main queue */
    dead_letter_done *on_done;
    void *userdata;
    size_t in_flight;
    const void *value; /* the caller's; NULL: each letter's own */
    size_t value_length;
};

/* A message's opaque. */
struct sent_letter {
    int32_t partition;
    int64_t offset;
};

const char *dead_letter_replay_refusal(
    const struct dead_letter_replay *replay, const rd_kafka_message_t *letter)
{
    char topic[NAME_SIZE];
    char reason[NAME_SIZE];
    if (!dead_letter_view_header(letter, DEAD_LETTER_TOPIC, topic, sizeof(topic)))
        return "it does not say which topic it was read from";
    /* A letter is no order to write wherever it likes. */
    if (strcmp(topic, replay->settings->kafka.registration_topic) != 0 &&
        strcmp(topic, replay->settings->kafka.admin_delete_topic) != 0)
        return "the topic that it was read from is none that userd reads now";
    (void)dead_letter_view_header(letter, DEAD_LETTER_REASON, reason, sizeof(reason));
    if (replay->value == NULL && letter->payload == NULL && strcmp(reason, "refused") == 0)
        return "its value was too large to be kept: it stands in the topic that it was read from";
    return NULL;
}

/* How many times it has come back before. */
static unsigned long count_redrives(const rd_kafka_message_t *letter)
{
    char text[NAME_SIZE];
    (void)dead_letter_view_header(letter, DEAD_LETTER_REDRIVE, text, sizeof(text));
    unsigned long count = strtoul(text, NULL, 10);
    return count > REDRIVES_MAX ? REDRIVES_MAX : count;
}

/* NULL without memory. */
static rd_kafka_headers_t *make_headers(const rd_kafka_message_t *letter)
{
    rd_kafka_headers_t *from = NULL;
    rd_kafka_headers_t *headers = rd_kafka_headers_new(16);
    rd_kafka_resp_err_t error = RD_KAFKA_RESP_ERR_NO_ERROR;
    bool has_headers = rd_kafka_message_headers(letter, &from) == RD_KAFKA_RESP_ERR_NO_ERROR;
    for (size_t i = 0; has_headers && error == RD_KAFKA_RESP_ERR_NO_ERROR; i++) {
        const char *name = NULL;
        const void *value = NULL;
        size_t length = 0;
        if (rd_kafka_header_get_all(from, i, &name, &value, &length) != RD_KAFKA_RESP_ERR_NO_ERROR)
            break;
        if (strncmp(name, DEAD_LETTER_PREFIX, strlen(DEAD_LETTER_PREFIX)) != 0)
            error = rd_kafka_header_add(headers, name, -1, value, (ssize_t)length);
    }
    char number[24];
    int length = snprintf(number, sizeof(number), "%lu", count_redrives(letter) + 1);
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
        error = rd_kafka_header_add(headers, DEAD_LETTER_REDRIVE, -1, number, length);
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
        return headers;
    rd_kafka_headers_destroy(headers);
    return NULL;
}

int dead_letter_replay_send(struct dead_letter_replay *replay, const rd_kafka_message_t *letter)
{
    if (replay->in_flight >= IN_FLIGHT_MAX)
        return -EAGAIN;
    char topic[NAME_SIZE];
    (void)dead_letter_view_header(letter, DEAD_LETTER_TOPIC, topic, sizeof(topic));
    struct sent_letter *sent = malloc(sizeof(*sent));
    rd_kafka_headers_t *headers = sent == NULL ? NULL : make_headers(letter);
    if (headers == NULL) {
        free(sent);
        return -ENOMEM;
    }
    *sent = (struct sent_letter){.partition = letter->partition, .offset = letter->offset};
    bool is_mended = replay->value != NULL;
    /* Not to the partition that it came from: there may be fewer now, and its key decides. */
    rd_kafka_resp_err_t error = rd_kafka_producev(replay->producer, RD_KAFKA_V_TOPIC(topic),
        RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_KEY(letter->key, letter->key_len),
        RD_KAFKA_V_VALUE(is_mended ? borrow_const(replay->value) : letter->payload,
            is_mended ? replay->value_length : letter->len),
        RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_OPAQUE(sent), RD_KAFKA_V_END);
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR) {
        replay->in_flight++;
        return 0;
    }
    rd_kafka_headers_destroy(headers);
    if (error != RD_KAFKA_RESP_ERR__QUEUE_FULL)
        replay->on_done(sent->partition, sent->offset, error, replay->userdata);
    free(sent);
    return error == RD_KAFKA_RESP_ERR__QUEUE_FULL ? -EAGAIN : 0;
}

void dead_letter_replay_mend(struct dead_letter_replay *replay, const void *value, size_t length)
{
    replay->value = value;
    replay->value_length = length;
}

static void on_reports(struct dead_letter_replay *replay, rd_kafka_event_t *event)
{
    const rd_kafka_message_t *message = rd_kafka_event_message_next(event);
    for (; message != NULL; message = rd_kafka_event_message_next(event)) {
        struct sent_letter *sent = message->_private;
        replay->in_flight--;
        replay->on_done(sent->partition, sent->offset, message->err, replay->userdata);
        free(sent);
    }
}

void dead_letter_replay_poll(struct dead_letter_replay *replay, int timeout_ms)
{
    rd_kafka_event_t *event = rd_kafka_queue_poll(replay->queue, timeout_ms);
    while (event != NULL) {
        if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_DR)
            on_reports(replay, event);
        else if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_LOG)
            kafka_client_log(event);
        rd_kafka_event_destroy(event);
        event = rd_kafka_queue_poll(replay->queue, 0);
    }
}

size_t dead_letter_replay_in_flight(const struct dead_letter_replay *replay)
{
    return replay->in_flight;
}

int dead_letter_replay_open(const struct settings *settings, dead_letter_done *on_done,
    void *userdata, struct dead_letter_replay **ret_replay)
{
    struct dead_letter_replay *replay = calloc(1, sizeof(*replay));
    if (replay == NULL)
        return -ENOMEM;
    *replay =
        (struct dead_letter_replay){.settings = settings, .on_done = on_done, .userdata = userdata};
    int result = kafka_client_new_producer(settings, false, &replay->producer);
    if (result < 0) {
        free(replay);
        return result;
    }
    replay->queue = rd_kafka_queue_get_main(replay->producer);
    *ret_replay = replay;
    return 0;
}
