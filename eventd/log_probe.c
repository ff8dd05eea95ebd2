#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/monotonic_clock.h"
#include "eventd/kafka_client.h"
#include "eventd/kafka_logs.h"

#define ROUND_TIMEOUT_US UINT64_C(3000000)
#define US_PER_MS        UINT64_C(1000)

struct log_probe {
    rd_kafka_t *consumer; /* owned */
};

/* A record that is wanted: the one at `offset`, or the first one from there on. */
struct wanted {
    struct kafka_log *log;
    int64_t offset;
    bool is_first;
    bool is_done;
    struct log_mark *found;
};

static struct wanted *find_wanted(
    struct wanted *wanted, size_t count, const char *topic, int32_t partition)
{
    for (size_t i = 0; i < count; i++) {
        if (!wanted[i].is_done && wanted[i].log->partition == partition &&
            strcmp(wanted[i].log->topic, topic) == 0)
            return &wanted[i];
    }
    return NULL;
}

static void on_message(struct wanted *wanted, const rd_kafka_message_t *message)
{
    switch ((int)message->err) {
    case RD_KAFKA_RESP_ERR_NO_ERROR:
        if (message->offset < wanted->offset)
            return;
        if (wanted->is_first || message->offset == wanted->offset)
            *wanted->found = log_mark_of(message);
        break;
    case RD_KAFKA_RESP_ERR__PARTITION_EOF:
        /* Nothing but markers up to the end; or a transaction that is not over, and then nobody
         * knows yet. */
        if (message->offset < wanted->log->extent.high)
            wanted->log->error = RD_KAFKA_RESP_ERR__PARTITION_EOF;
        break;
    default:
        wanted->log->error = message->err;
        break;
    }
    wanted->is_done = true;
}

/* Reads one record of each; what is not there in time has an error then. */
static void look_once(struct log_probe *probe, struct wanted *wanted, size_t count)
{
    if (count == 0)
        return;
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)count);
    for (size_t i = 0; i < count; i++)
        rd_kafka_topic_partition_list_add(list, wanted[i].log->topic, wanted[i].log->partition)
            ->offset = wanted[i].offset;
    rd_kafka_resp_err_t error = rd_kafka_assign(probe->consumer, list);
    rd_kafka_topic_partition_list_destroy(list);
    uint64_t deadline_us = monotonic_clock_us() + ROUND_TIMEOUT_US;
    size_t pending = error == RD_KAFKA_RESP_ERR_NO_ERROR ? count : 0;
    uint64_t now_us = monotonic_clock_us();
    while (pending > 0 && now_us < deadline_us) {
        rd_kafka_message_t *message =
            rd_kafka_consumer_poll(probe->consumer, (int)((deadline_us - now_us) / US_PER_MS) + 1);
        /* Errors of no partition are those of connections, which are made again. */
        struct wanted *one =
            message == NULL || message->rkt == NULL
                ? NULL
                : find_wanted(wanted, count, rd_kafka_topic_name(message->rkt), message->partition);
        if (one != NULL)
            on_message(one, message);
        if (one != NULL && one->is_done)
            pending--;
        if (message != NULL)
            rd_kafka_message_destroy(message);
        now_us = monotonic_clock_us();
    }
    for (size_t i = 0; i < count; i++) {
        if (!wanted[i].is_done)
            wanted[i].log->error =
                error == RD_KAFKA_RESP_ERR_NO_ERROR ? RD_KAFKA_RESP_ERR__TIMED_OUT : error;
    }
    (void)rd_kafka_assign(probe->consumer, NULL);
}

static bool is_in(const struct log_extent *extent, int64_t offset)
{
    return offset >= extent->low && offset < extent->high;
}

/* Something that was looked for is not there, though there are offsets before and behind it. */
static bool has_gap(const struct kafka_log *log)
{
    for (size_t i = 0; i < KAFKA_LOG_LOOKS; i++) {
        if (log->looks_at[i] >= 0 && is_in(&log->extent, log->looks_at[i]) &&
            log->found[i].offset < 0)
            return true;
    }
    return false;
}

void log_probe_look(struct log_probe *probe, struct kafka_log *logs, size_t count)
{
    struct wanted *wanted = calloc(count + 1, sizeof(*wanted));
    for (size_t look = 0; look < KAFKA_LOG_LOOKS && wanted != NULL; look++) {
        size_t wanted_count = 0;
        for (size_t i = 0; i < count; i++) {
            int64_t offset = logs[i].looks_at[look];
            if (logs[i].error == RD_KAFKA_RESP_ERR_NO_ERROR && is_in(&logs[i].extent, offset))
                wanted[wanted_count++] = (struct wanted){
                    .log = &logs[i], .offset = offset, .found = &logs[i].found[look]};
        }
        look_once(probe, wanted, wanted_count);
    }
    size_t wanted_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (wanted == NULL)
            logs[i].error = RD_KAFKA_RESP_ERR__FAIL;
        else if (logs[i].error == RD_KAFKA_RESP_ERR_NO_ERROR && has_gap(&logs[i]))
            wanted[wanted_count++] = (struct wanted){.log = &logs[i],
                .offset = logs[i].extent.low,
                .is_first = true,
                .found = &logs[i].extent.earliest};
    }
    look_once(probe, wanted, wanted_count);
    free(wanted);
}

int log_probe_new(const struct settings *settings, struct log_probe **ret_probe)
{
    struct log_probe *probe = calloc(1, sizeof(*probe));
    if (probe == NULL)
        return -ENOMEM;
    int result = kafka_client_new_prober(settings, &probe->consumer);
    if (result < 0) {
        free(probe);
        return result;
    }
    *ret_probe = probe;
    return 0;
}
