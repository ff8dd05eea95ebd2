#include "eventd/position_commit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/monotonic_clock.h"
#include "eventd/commit_note.h"
#include "eventd/kafka_queue.h"
#include "eventd/partition_window.h"

/* A result that has not come by then is not waited for any longer. */
#define RESULT_TIMEOUT_US   UINT64_C(30000000)
#define WARNINGS_PER_SECOND 1

struct position_commit {
    struct position_commit_options options;
    struct kafka_queue *queue; /* owned: of the results */
    uint64_t sent_us;          /* 0: no result is waited for */
    unsigned int pending;
    unsigned int failures; /* in a row */
    uint64_t not_before_us;
    struct log_limit warning_limit;
};

static void on_failure(struct position_commit *commit, rd_kafka_resp_err_t error)
{
    commit->failures++;
    commit->not_before_us =
        monotonic_clock_us() + partition_window_delay_us(commit->failures, arc4random());
    scoreboard_add(&commit->options.slot->kafka_commit_errors, 1);
    unsigned int suppressed = 0;
    /* The first one may be a rebalance that is just going on. */
    if (commit->failures > 1 &&
        log_limit_allows(&commit->warning_limit, WARNINGS_PER_SECOND, &suppressed))
        log_warn("kafka commit failed reason=%s failures=%u suppressed=%u: committing again",
            rd_kafka_err2name(error), commit->failures, suppressed);
}

static void on_event(rd_kafka_event_t *event, void *userdata)
{
    struct position_commit *commit = userdata;
    if (rd_kafka_event_type(event) != RD_KAFKA_EVENT_OFFSET_COMMIT)
        return;
    commit->pending -= commit->pending > 0 ? 1 : 0;
    if (commit->pending == 0)
        commit->sent_us = 0;
    rd_kafka_resp_err_t error = rd_kafka_event_error(event);
    const rd_kafka_topic_partition_list_t *list = rd_kafka_event_topic_partition_list(event);
    for (int i = 0; list != NULL && i < list->cnt; i++) {
        if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
            error = list->elems[i].err;
        if (rd_kafka_event_error(event) == RD_KAFKA_RESP_ERR_NO_ERROR &&
            list->elems[i].err == RD_KAFKA_RESP_ERR_NO_ERROR)
            commit->options.on_committed(&list->elems[i], commit->options.userdata);
    }
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR) {
        on_failure(commit, error);
        return;
    }
    if (commit->failures > 1)
        log_info("kafka takes commits again failures=%u", commit->failures);
    commit->failures = 0;
    commit->not_before_us = 0;
}

bool position_commit_is_ready(const struct position_commit *commit)
{
    uint64_t now_us = monotonic_clock_us();
    if (commit->sent_us != 0 && now_us < commit->sent_us + RESULT_TIMEOUT_US)
        return false;
    return now_us >= commit->not_before_us;
}

void position_commit_add(rd_kafka_topic_partition_list_t *list, const char *topic,
    int32_t partition, int64_t position, const char *database)
{
    char note[COMMIT_NOTE_SIZE];
    size_t length = commit_note_format(database, position, note);
    rd_kafka_topic_partition_t *added = rd_kafka_topic_partition_list_add(list, topic, partition);
    added->offset = position;
    /* The list frees it. */
    added->metadata = strdup(note);
    added->metadata_size = added->metadata == NULL ? 0 : length;
}

void position_commit_send(
    struct position_commit *commit, const rd_kafka_topic_partition_list_t *list)
{
    rd_kafka_resp_err_t error = rd_kafka_commit_queue(
        commit->options.consumer, list, kafka_queue_handle(commit->queue), NULL, NULL);
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR) {
        on_failure(commit, error);
        return;
    }
    commit->pending++;
    commit->sent_us = monotonic_clock_us();
}

int position_commit_new(
    const struct position_commit_options *options, struct position_commit **ret_commit)
{
    /* Lives as long as the process. */
    struct position_commit *commit = calloc(1, sizeof(*commit));
    if (commit == NULL)
        return -ENOMEM;
    commit->options = *options;
    /* Without a callback librdkafka 2.0.2 says nothing of commits on the consumer's own queue. */
    int result = kafka_queue_new(
        options->event, rd_kafka_queue_new(options->consumer), on_event, commit, &commit->queue);
    if (result < 0) {
        free(commit);
        return result;
    }
    *ret_commit = commit;
    return 0;
}
