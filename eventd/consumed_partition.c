#include "eventd/consumed_partition.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/failpoint.h"
#include "eventd/kafka_queue.h"

#define BATCH_MAX_BYTES ((size_t)1024 * 1024)

void consumed_partition_let_go(
    struct consumed_partition *partition, size_t count, size_t held_before)
{
    for (size_t i = 0; i < count; i++)
        rd_kafka_event_destroy(partition->held[i].event);
    memmove(
        partition->held, partition->held + count, (held_before - count) * sizeof(*partition->held));
}

/* Takes one event off the queue; adds the bytes of what is now held. False: the queue is empty. */
static bool read_event(
    struct consumed_partition *partition, size_t *bytes, rd_kafka_resp_err_t *ret_error)
{
    rd_kafka_event_t *event = rd_kafka_queue_poll(partition->queue, 0);
    if (event == NULL)
        return false;
    const rd_kafka_message_t *message = NULL;
    rd_kafka_resp_err_t error = rd_kafka_event_error(event);
    if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_FETCH)
        message = rd_kafka_event_message_next(event);
    if (message != NULL && message->err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        error = message->err;
        message = NULL;
    }
    if (message == NULL && error != RD_KAFKA_RESP_ERR_NO_ERROR)
        *ret_error = error;
    /* What was fetched before an assignment was changed may still come. */
    if (message == NULL || message->offset < partition->next_offset) {
        rd_kafka_event_destroy(event);
        return true;
    }
    partition->held[partition->window.held] =
        (struct held_record){.event = event, .message = message};
    partition_window_hold(&partition->window, 1);
    partition->next_offset = message->offset + 1;
    FAILPOINT("deliver.fetched");
    *bytes += deliver_batch_record_size(message);
    return true;
}

size_t consumed_partition_read(
    struct consumed_partition *partition, size_t batch_records, rd_kafka_resp_err_t *ret_error)
{
    size_t bytes = 0;
    size_t held_before = partition->window.held;
    while (partition->window.held < batch_records && bytes < BATCH_MAX_BYTES) {
        if (!read_event(partition, &bytes, ret_error))
            break;
    }
    return partition->window.held - held_before;
}

uint64_t consumed_partition_next_look_us(const struct consumed_partition *partition)
{
    if (partition->window.phase == PARTITION_IN_FLIGHT)
        return partition->sent_us + CONSUMED_PARTITION_ANSWER_US;
    if (partition->window.phase == PARTITION_READY &&
        (partition->window.held > 0 || partition->window.must_move))
        return partition->window.not_before_us;
    return UINT64_MAX;
}

void consumed_partition_close(struct consumed_partition *partition)
{
    for (size_t i = 0; i < partition->window.held; i++)
        rd_kafka_event_destroy(partition->held[i].event);
    if (partition->queue != NULL) {
        rd_kafka_queue_io_event_enable(partition->queue, -1, NULL, 0);
        rd_kafka_queue_destroy(partition->queue);
    }
    free(partition->held);
    free(partition->topic);
}

int consumed_partition_open(struct consumed_partition *partition,
    const struct consumer_start *start, const struct consumed_partition_options *options)
{
    bool is_registration = strcmp(start->topic, options->registration_topic) == 0;
    partition->kind = is_registration ? USERD__IPC__EVENT_KIND__EVENT_KIND_REGISTRATION
                                      : USERD__IPC__EVENT_KIND__EVENT_KIND_ADMIN_DELETE;
    partition->number = start->partition;
    partition->next_offset = start->offset;
    partition->committed = -1;
    partition_window_init(&partition->window, start->stored, start->offset);
    partition->log = log_audit_find(options->audit, start->topic, start->partition);
    partition->topic = strdup(start->topic);
    partition->held = calloc(options->batch_records, sizeof(*partition->held));
    partition->queue =
        rd_kafka_queue_get_partition(options->consumer, start->topic, start->partition);
    if (partition->topic == NULL || partition->log == NULL || partition->held == NULL ||
        partition->queue == NULL)
        return -ENOMEM;
    /* Before the assignment: then not one record ever takes the way over the consumer's queue. */
    rd_kafka_queue_forward(partition->queue, NULL);
    kafka_queue_wake_by(partition->queue, options->wake_fd);
    return 0;
}
