#include "eventd/publish_flow.h"

#include <errno.h>
#include <inttypes.h>
#include <librdkafka/rdkafka.h>
#include <stdlib.h>
#include <string.h>

#include "common/failpoint.h"
#include "common/log.h"
#include "eventd/kafka_client.h"
#include "eventd/kafka_statistics.h"
#include "eventd/publish_answer.h"
#include "eventd/publish_producer.h"

#define ERROR_LINES_PER_SECOND 2
#define PRODUCER_RETRY_US      UINT64_C(1000000)

/* One row that librdkafka has. */
struct published_row {
    struct publish_ticket ticket;
    uint64_t peer_serial;
    uint64_t epoch;
    int64_t id;
};

struct publish_flow {
    sd_event *event;
    const struct settings *settings;
    struct worker_peers *peers;
    struct scoreboard_slot *slot;
    struct publish_producer batches;
    struct publish_producer singles; /* not open until a batch was refused */
    sd_event_source *sender;         /* owned: sends the collected answers at the end of a turn */
    sd_event_source *recovery; /* owned: replaces fatal producers, off the producers' own queues */
    struct publish_answers *answers; /* owned */
    struct log_limit error_limit;
    struct log_limit refusal_limit;
    bool has_topic[2]; /* delete, dead letter */
    bool is_draining;
    bool is_waiting_to_send;
};

static void answer_row(
    struct publish_flow *flow, const struct published_row *row, rd_kafka_resp_err_t error)
{
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
        scoreboard_add(&flow->slot->kafka_produced, 1);
    else
        scoreboard_add(&flow->slot->kafka_produce_errors, 1);
    if (!publish_answers_add(flow->answers, row->peer_serial, row->epoch, row->id, error)) {
        /* Full: this turn's answers go out now. */
        publish_answers_send(flow->answers, flow->peers);
        (void)publish_answers_add(flow->answers, row->peer_serial, row->epoch, row->id, error);
    }
    if (flow->is_waiting_to_send)
        return;
    flow->is_waiting_to_send = true;
    (void)sd_event_source_set_enabled(flow->sender, SD_EVENT_ONESHOT);
}

static int on_turn_end(sd_event_source *source, void *userdata)
{
    (void)source;
    struct publish_flow *flow = userdata;
    flow->is_waiting_to_send = false;
    publish_answers_send(flow->answers, flow->peers);
    return 0;
}

static void log_failure(
    struct publish_flow *flow, const struct published_row *row, rd_kafka_resp_err_t error)
{
    unsigned int suppressed = 0;
    if (!log_limit_allows(&flow->error_limit, ERROR_LINES_PER_SECOND, &suppressed))
        return;
    bool is_permanent = publish_answer_is_permanent(error);
    log_write(is_permanent ? LOG_LEVEL_ERROR : LOG_LEVEL_WARN,
        "row not published outbox_id=%" PRIi64 " reason=%s permanent=%d suppressed=%u", row->id,
        rd_kafka_err2name(error), is_permanent, suppressed);
}

/* The broker refuses a batch as a whole, for its size or for one record in it: only what it refuses
 * alone can never be published. True when the row is on its way again. */
static bool send_singly(struct publish_flow *flow, const rd_kafka_message_t *message)
{
    unsigned int suppressed = 0;
    if (log_limit_allows(&flow->refusal_limit, ERROR_LINES_PER_SECOND, &suppressed))
        log_info("kafka refused a batch reason=%s suppressed=%u: sending its rows one by one",
            rd_kafka_err2name(message->err), suppressed);
    if (flow->singles.client == NULL && publish_producer_open(&flow->singles) < 0)
        return false;
    return publish_producer_resend(&flow->singles, message) == RD_KAFKA_RESP_ERR_NO_ERROR;
}

static struct published_row *row_of(struct publish_ticket *ticket)
{
    return CONTAINER_OF(ticket, struct published_row, ticket);
}

static void on_report(struct publish_producer *producer, struct publish_ticket *ticket,
    const rd_kafka_message_t *message)
{
    FAILPOINT("publish.appended");
    struct publish_flow *flow = producer->owner;
    struct published_row *row = row_of(ticket);
    rd_kafka_resp_err_t error = message->err;
    if (publish_answer_is_permanent(error) && !producer->sends_singly) {
        if (send_singly(flow, message))
            return;
        error = RD_KAFKA_RESP_ERR__QUEUE_FULL; /* the relay sends it again */
    }
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
        log_failure(flow, row, error);
    answer_row(flow, row, error);
    free(row);
}

/* The relay sends it again. If the broker has it nevertheless, it is in the log twice, with one
 * ce_id. */
static void on_unreported(struct publish_producer *producer, struct publish_ticket *ticket)
{
    struct published_row *row = row_of(ticket);
    answer_row(producer->owner, row, RD_KAFKA_RESP_ERR__QUEUE_FULL);
    free(row);
}

static void on_error_event(
    struct publish_flow *flow, struct publish_producer *producer, rd_kafka_event_t *event)
{
    const char *reason = rd_kafka_err2name(rd_kafka_event_error(event));
    if (rd_kafka_event_error_is_fatal(event) == 0) {
        log_debug("kafka producer error reason=%s", reason);
        return;
    }
    log_error("kafka producer is fatal reason=%s: replacing it", reason);
    producer->is_fatal = true;
    (void)sd_event_source_set_enabled(flow->recovery, SD_EVENT_ONESHOT);
}

static void on_event(struct publish_producer *producer, rd_kafka_event_t *event)
{
    struct publish_flow *flow = producer->owner;
    rd_kafka_event_type_t type = rd_kafka_event_type(event);
    if (type == RD_KAFKA_EVENT_STATS)
        kafka_statistics_show(flow->slot, RD_KAFKA_PRODUCER, rd_kafka_event_stats(event),
            strlen(rd_kafka_event_stats(event)));
    else if (type == RD_KAFKA_EVENT_LOG)
        kafka_client_log(event);
    else if (type == RD_KAFKA_EVENT_ERROR)
        on_error_event(flow, producer, event);
}

static const struct publish_producer_handlers producer_handlers = {
    .on_report = on_report,
    .on_unreported = on_unreported,
    .on_event = on_event,
};

/* True when it is open afterwards. */
static bool replace_producer(struct publish_producer *producer)
{
    if (!producer->is_fatal)
        return true;
    publish_producer_close(producer);
    if (publish_producer_open(producer) < 0)
        return false;
    producer->is_fatal = false;
    log_info("kafka producer replaced");
    return true;
}

static int on_recovery(sd_event_source *source, uint64_t usec, void *userdata)
{
    (void)usec;
    struct publish_flow *flow = userdata;
    bool is_done = replace_producer(&flow->batches);
    if (replace_producer(&flow->singles) && is_done)
        return 0;
    (void)sd_event_source_set_time_relative(source, PRODUCER_RETRY_US);
    (void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
    return 0;
}

/* The row's headers for librdkafka, which takes them with the message. NULL without memory. */
static rd_kafka_headers_t *make_headers(const Userd__Ipc__OutboxRow *row)
{
    rd_kafka_headers_t *headers = rd_kafka_headers_new(row->n_headers);
    for (size_t i = 0; i < row->n_headers; i++) {
        const Userd__Ipc__Header *header = row->headers[i];
        const void *value = header->is_null ? NULL : (const void *)header->value.data;
        /* An empty value that is not null. */
        if (value == NULL && !header->is_null)
            value = "";
        if (rd_kafka_header_add(headers, header->name, -1, value, (ssize_t)header->value.len) !=
            RD_KAFKA_RESP_ERR_NO_ERROR) {
            rd_kafka_headers_destroy(headers);
            return NULL;
        }
    }
    return headers;
}

static rd_kafka_resp_err_t produce(struct publish_flow *flow, const char *topic,
    const Userd__Ipc__OutboxRow *row, struct published_row *published)
{
    struct publish_message message = {
        .topic = topic,
        .headers = make_headers(row),
        .ticket = &published->ticket,
    };
    if (message.headers == NULL)
        return RD_KAFKA_RESP_ERR__QUEUE_FULL;
    /* An empty key is never sent: murmur2 over nothing would put all of them into one partition. */
    if (row->has_key && row->key.len > 0) {
        message.key = row->key.data;
        message.key_length = row->key.len;
    }
    /* No value is a null; an empty one is not. */
    if (row->has_value) {
        message.value = row->value.data == NULL ? (const void *)"" : row->value.data;
        message.value_length = row->value.len;
    }
    return publish_producer_send(&flow->batches, &message);
}

static rd_kafka_resp_err_t publish_row(
    struct publish_flow *flow, const Userd__Ipc__OutboxRow *row, struct published_row *published)
{
    bool is_delete = row->destination == USERD__IPC__DESTINATION__DESTINATION_DELETE;
    if (!is_delete && row->destination != USERD__IPC__DESTINATION__DESTINATION_DEAD_LETTER)
        return RD_KAFKA_RESP_ERR_INVALID_RECORD;
    if (!flow->has_topic[is_delete ? 0 : 1])
        return RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    return produce(flow,
        is_delete ? flow->settings->kafka.delete_topic : flow->settings->kafka.dead_letter_topic,
        row, published);
}

int publish_flow_on_batch(
    struct publish_flow *flow, struct worker_peer *peer, const Userd__Ipc__PublishBatch *batch)
{
    if (flow->is_draining)
        return 0;
    for (size_t i = 0; i < batch->n_rows; i++) {
        struct published_row *row = malloc(sizeof(*row));
        if (row == NULL)
            return -ENOMEM;
        *row = (struct published_row){
            .peer_serial = peer->serial,
            .epoch = batch->epoch,
            .id = batch->rows[i]->id,
        };
        rd_kafka_resp_err_t error = publish_row(flow, batch->rows[i], row);
        if (error == RD_KAFKA_RESP_ERR_NO_ERROR) {
            FAILPOINT("publish.produced");
            continue;
        }
        log_failure(flow, row, error);
        answer_row(flow, row, error);
        free(row);
    }
    return 0;
}

void publish_flow_set_topics(struct publish_flow *flow, bool has_delete, bool has_dead_letter)
{
    flow->has_topic[0] = has_delete;
    flow->has_topic[1] = has_dead_letter;
}

void publish_flow_drain(struct publish_flow *flow)
{
    flow->is_draining = true;
}

bool publish_flow_is_idle(const struct publish_flow *flow)
{
    return flow->batches.unreported == NULL && flow->singles.unreported == NULL &&
           !flow->is_waiting_to_send;
}

int publish_flow_new(sd_event *event, const struct settings *settings, struct worker_peers *peers,
    struct scoreboard_slot *slot, struct publish_flow **ret_flow)
{
    struct publish_flow *flow = calloc(1, sizeof(*flow));
    if (flow == NULL)
        return -ENOMEM;
    flow->event = event;
    flow->settings = settings;
    flow->peers = peers;
    flow->slot = slot;
    flow->batches = (struct publish_producer){
        .event = event, .settings = settings, .handlers = &producer_handlers, .owner = flow};
    flow->singles = flow->batches;
    flow->singles.sends_singly = true;
    int result = publish_answers_new(&flow->answers);
    if (result >= 0)
        result = sd_event_add_defer(event, &flow->sender, on_turn_end, flow);
    if (result >= 0)
        result = sd_event_source_set_enabled(flow->sender, SD_EVENT_OFF);
    /* After everything else of the turn. */
    if (result >= 0)
        result = sd_event_source_set_priority(flow->sender, SD_EVENT_PRIORITY_IDLE);
    if (result >= 0)
        result = sd_event_add_time_relative(
            event, &flow->recovery, CLOCK_MONOTONIC, 0, 0, on_recovery, flow);
    if (result >= 0)
        result = sd_event_source_set_enabled(flow->recovery, SD_EVENT_OFF);
    if (result >= 0)
        result = publish_producer_open(&flow->batches);
    if (result < 0) {
        (void)sd_event_source_disable_unref(flow->sender);
        (void)sd_event_source_disable_unref(flow->recovery);
        flow->answers = publish_answers_free(flow->answers);
        free(flow);
        return result;
    }
    *ret_flow = flow;
    return 0;
}
