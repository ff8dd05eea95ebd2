#include "eventd/kafka_logs.h"

#include <stdlib.h>
#include <string.h>

#define METADATA_TIMEOUT_MS  3000
#define COMMITTED_TIMEOUT_MS 5000
#define EXTENT_TIMEOUT_MS    2000
#define LEADER_UNKNOWN       (-1)
/* What ListOffsets understands in the place of a timestamp. */
#define ASK_EARLIEST (-2)
#define ASK_END      (-1)

struct kafka_log *kafka_logs_new(const rd_kafka_topic_partition_list_t *partitions)
{
    size_t count = (size_t)partitions->cnt;
    struct kafka_log *logs = calloc(count + 1, sizeof(*logs));
    for (size_t i = 0; logs != NULL && i < count; i++) {
        struct kafka_log *log = &logs[i];
        log->topic = strdup(partitions->elems[i].topic);
        log->partition = partitions->elems[i].partition;
        for (size_t look = 0; look < KAFKA_LOG_LOOKS; look++)
            log->looks_at[look] = -1;
        if (log->topic == NULL) {
            kafka_logs_free(logs, i);
            return NULL;
        }
    }
    return logs;
}

void kafka_logs_free(struct kafka_log *logs, size_t count)
{
    for (size_t i = 0; logs != NULL && i < count; i++)
        free(logs[i].topic);
    free(logs);
}

static void fail_all(struct kafka_log *logs, size_t count, rd_kafka_resp_err_t error)
{
    for (size_t i = 0; i < count; i++)
        logs[i].error = error;
}

static void set_commit(struct kafka_log *log, const rd_kafka_topic_partition_t *commit)
{
    log->error = commit->err;
    log->committed = commit->offset < 0 ? -1 : commit->offset;
    if (commit->metadata == NULL)
        return;
    log->note_length =
        commit->metadata_size < COMMIT_NOTE_SIZE ? commit->metadata_size : COMMIT_NOTE_SIZE - 1;
    memcpy(log->note, commit->metadata, log->note_length);
}

static void ask_commits(rd_kafka_t *client, struct kafka_log *logs, size_t count)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)count);
    for (size_t i = 0; i < count; i++)
        (void)rd_kafka_topic_partition_list_add(list, logs[i].topic, logs[i].partition);
    rd_kafka_resp_err_t error = rd_kafka_committed(client, list, COMMITTED_TIMEOUT_MS);
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
        fail_all(logs, count, error);
    for (size_t i = 0; i < count && error == RD_KAFKA_RESP_ERR_NO_ERROR; i++)
        set_commit(&logs[i], &list->elems[i]);
    rd_kafka_topic_partition_list_destroy(list);
}

static void set_leader(struct kafka_log *log, const struct rd_kafka_metadata_topic *topic)
{
    log->error = topic->err;
    if (topic->err != RD_KAFKA_RESP_ERR_NO_ERROR)
        return;
    log->error = RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    for (int i = 0; i < topic->partition_cnt; i++) {
        if (topic->partitions[i].id != log->partition)
            continue;
        log->leader = topic->partitions[i].leader;
        log->error =
            log->leader < 0 ? RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE : RD_KAFKA_RESP_ERR_NO_ERROR;
    }
}

/* Of one topic that we have partitions of, and which therefore is not made by naming it. */
static void ask_leaders_of(
    rd_kafka_t *client, const char *topic_name, struct kafka_log *logs, size_t count)
{
    const struct rd_kafka_metadata *metadata = NULL;
    rd_kafka_topic_t *topic = rd_kafka_topic_new(client, topic_name, NULL);
    rd_kafka_resp_err_t error =
        topic == NULL ? RD_KAFKA_RESP_ERR__FAIL
                      : rd_kafka_metadata(client, 0, topic, &metadata, METADATA_TIMEOUT_MS);
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR && metadata->topic_cnt == 0)
        error = RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    for (size_t i = 0; i < count; i++) {
        if (logs[i].error != RD_KAFKA_RESP_ERR_NO_ERROR || logs[i].leader != LEADER_UNKNOWN ||
            strcmp(logs[i].topic, topic_name) != 0)
            continue;
        if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
            set_leader(&logs[i], &metadata->topics[0]);
        else
            logs[i].error = error;
    }
    if (metadata != NULL)
        rd_kafka_metadata_destroy(metadata);
    if (topic != NULL)
        rd_kafka_topic_destroy(topic);
}

static rd_kafka_resp_err_t list_offsets(
    rd_kafka_t *client, rd_kafka_topic_partition_list_t *list, int64_t what)
{
    for (int i = 0; i < list->cnt; i++)
        list->elems[i].offset = what;
    return rd_kafka_offsets_for_times(client, list, EXTENT_TIMEOUT_MS);
}

/* Of those that one broker leads: a broker that does not answer holds up only those. */
static void ask_extents_of(rd_kafka_t *client, int32_t leader, struct kafka_log *logs, size_t count)
{
    rd_kafka_topic_partition_list_t *earliest = rd_kafka_topic_partition_list_new((int)count);
    for (size_t i = 0; i < count; i++) {
        if (logs[i].error == RD_KAFKA_RESP_ERR_NO_ERROR && logs[i].leader == leader)
            (void)rd_kafka_topic_partition_list_add(earliest, logs[i].topic, logs[i].partition);
    }
    rd_kafka_topic_partition_list_t *end = rd_kafka_topic_partition_list_copy(earliest);
    rd_kafka_resp_err_t error = list_offsets(client, earliest, ASK_EARLIEST);
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
        error = list_offsets(client, end, ASK_END);
    for (size_t i = 0; i < count; i++) {
        if (logs[i].error != RD_KAFKA_RESP_ERR_NO_ERROR || logs[i].leader != leader)
            continue;
        const rd_kafka_topic_partition_t *low =
            rd_kafka_topic_partition_list_find(earliest, logs[i].topic, logs[i].partition);
        const rd_kafka_topic_partition_t *high =
            rd_kafka_topic_partition_list_find(end, logs[i].topic, logs[i].partition);
        logs[i].extent.low = low->offset;
        logs[i].extent.high = high->offset;
        logs[i].error = error;
        if (error == RD_KAFKA_RESP_ERR_NO_ERROR && (low->offset < 0 || high->offset < low->offset))
            logs[i].error = RD_KAFKA_RESP_ERR__BAD_MSG;
    }
    rd_kafka_topic_partition_list_destroy(earliest);
    rd_kafka_topic_partition_list_destroy(end);
}

static void ask_leaders(rd_kafka_t *client, struct kafka_log *logs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (logs[i].error == RD_KAFKA_RESP_ERR_NO_ERROR && logs[i].leader == LEADER_UNKNOWN)
            ask_leaders_of(client, logs[i].topic, logs, count);
    }
}

static void ask_extents(rd_kafka_t *client, struct kafka_log *logs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        bool is_asked = logs[i].error != RD_KAFKA_RESP_ERR_NO_ERROR;
        for (size_t j = 0; j < i; j++)
            is_asked = is_asked || logs[j].leader == logs[i].leader;
        if (!is_asked)
            ask_extents_of(client, logs[i].leader, logs, count);
    }
}

void kafka_logs_ask(rd_kafka_t *client, struct log_probe *probe, bool with_commits,
    struct kafka_log *logs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        logs[i].error = RD_KAFKA_RESP_ERR_NO_ERROR;
        logs[i].leader = LEADER_UNKNOWN;
        logs[i].committed = -1;
        logs[i].note_length = 0;
        logs[i].extent = (struct log_extent){.earliest = LOG_MARK_NONE};
        for (size_t look = 0; look < KAFKA_LOG_LOOKS; look++)
            logs[i].found[look] = LOG_MARK_NONE;
    }
    if (with_commits)
        ask_commits(client, logs, count);
    ask_leaders(client, logs, count);
    ask_extents(client, logs, count);
    if (probe != NULL)
        log_probe_look(probe, logs, count);
}
