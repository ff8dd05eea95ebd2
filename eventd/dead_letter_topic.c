#include "eventd/dead_letter_topic.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/monotonic_clock.h"
#include "eventd/kafka_client.h"

#define GROUP_SUFFIX   ".dead_letters"
#define ASK_TIMEOUT_MS 2000 /* one try */
#define ASK_TRIES      5
#define POLL_MS        100
#define SILENCE_MS     15000 /* without a record, or an end, the broker has gone */
#define COMMIT_TRIES   100

/* One more try, the end of all tries, or the end of the command. */
static int judge(const struct dead_letter_topic *topic, rd_kafka_resp_err_t error,
    unsigned int tries, const char *what)
{
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
        return 0;
    if (topic->is_over(topic->userdata))
        return -ECANCELED;
    if (tries < ASK_TRIES)
        return -EAGAIN;
    log_error("kafka does not answer what=%s reason=%s error=\"%s\"", what,
        rd_kafka_err2name(error), rd_kafka_err2str(error));
    return -ETIMEDOUT;
}

/* ---- what there is ---- */

static int allocate_partitions(
    struct dead_letter_topic *topic, const struct rd_kafka_metadata_topic *metadata)
{
    topic->partitions = calloc((size_t)metadata->partition_cnt + 1, sizeof(*topic->partitions));
    if (topic->partitions == NULL)
        return -ENOMEM;
    topic->partition_count = (size_t)metadata->partition_cnt;
    for (int i = 0; i < metadata->partition_cnt; i++)
        topic->partitions[i].number = metadata->partitions[i].id;
    return 0;
}

/* All topics: naming one could make it. */
static int find_partitions(struct dead_letter_topic *topic)
{
    const struct rd_kafka_metadata *metadata = NULL;
    int result = -EAGAIN;
    for (unsigned int tries = 1; result == -EAGAIN; tries++)
        result =
            judge(topic, rd_kafka_metadata(topic->consumer, 1, NULL, &metadata, ASK_TIMEOUT_MS),
                tries, "topics");
    if (result < 0)
        return result;
    result = -ENOENT;
    for (int i = 0; i < metadata->topic_cnt && result == -ENOENT; i++) {
        if (strcmp(metadata->topics[i].topic, topic->name) == 0 &&
            metadata->topics[i].partition_cnt > 0)
            result = allocate_partitions(topic, &metadata->topics[i]);
    }
    rd_kafka_metadata_destroy(metadata);
    if (result == -ENOENT)
        log_error(
            "%s: there is no such topic, or it is closed to us: expected kafka.dead_letter_topic "
            "to name the topic that userd writes dead letters to",
            topic->name);
    return result;
}

static int find_ends(struct dead_letter_topic *topic, struct dead_letter_partition *partition)
{
    int result = -EAGAIN;
    for (unsigned int tries = 1; result == -EAGAIN; tries++)
        result = judge(topic,
            rd_kafka_query_watermark_offsets(topic->consumer, topic->name, partition->number,
                &partition->low, &partition->high, ASK_TIMEOUT_MS),
            tries, "offsets");
    return result;
}

static rd_kafka_topic_partition_list_t *list_partitions(const struct dead_letter_topic *topic)
{
    rd_kafka_topic_partition_list_t *list =
        rd_kafka_topic_partition_list_new((int)topic->partition_count + 1);
    for (size_t i = 0; i < topic->partition_count; i++)
        (void)rd_kafka_topic_partition_list_add(list, topic->name, topic->partitions[i].number);
    return list;
}

static rd_kafka_resp_err_t ask_committed(
    const struct dead_letter_topic *topic, rd_kafka_topic_partition_list_t *list)
{
    rd_kafka_resp_err_t error = rd_kafka_committed(topic->consumer, list, ASK_TIMEOUT_MS);
    for (int i = 0; i < list->cnt && error == RD_KAFKA_RESP_ERR_NO_ERROR; i++)
        error = list->elems[i].err;
    return error;
}

static int take_note(
    struct dead_letter_partition *partition, const rd_kafka_topic_partition_t *committed)
{
    partition->is_noted = committed->offset >= 0;
    handled_offsets_skip_to(&partition->handled, committed->offset);
    if (committed->metadata_size == 0)
        return 0;
    char *text = strndup(committed->metadata, committed->metadata_size);
    if (text == NULL)
        return -ENOMEM;
    int result = handled_offsets_parse(&partition->handled, text);
    free(text);
    if (result == -EINVAL)
        log_warn("note of handled dead letters cannot be read partition=%" PRIi32
                 ": letters above offset %" PRIi64 " count as not handled",
            partition->number, partition->handled.position);
    return result == -EINVAL ? 0 : result;
}

/* Adds what the group has noted to what we know. */
static int read_notes(struct dead_letter_topic *topic)
{
    rd_kafka_topic_partition_list_t *list = list_partitions(topic);
    int result = -EAGAIN;
    for (unsigned int tries = 1; result == -EAGAIN; tries++)
        result = judge(topic, ask_committed(topic, list), tries, "group");
    for (int i = 0; i < list->cnt && result == 0; i++)
        result = take_note(&topic->partitions[i], &list->elems[i]);
    rd_kafka_topic_partition_list_destroy(list);
    return result;
}

int dead_letter_topic_open(struct dead_letter_topic *topic, const struct settings *settings)
{
    char *group = NULL;
    if (asprintf(&group, "%s" GROUP_SUFFIX, settings->kafka.group) < 0)
        return -ENOMEM;
    int result = kafka_client_new_reader(settings, group, &topic->consumer);
    free(group);
    if (result == 0)
        result = find_partitions(topic);
    for (size_t i = 0; i < topic->partition_count && result == 0; i++) {
        result = find_ends(topic, &topic->partitions[i]);
        handled_offsets_init(&topic->partitions[i].handled, topic->partitions[i].low);
    }
    if (result == 0)
        result = read_notes(topic);
    return result;
}

struct dead_letter_partition *dead_letter_topic_find(
    struct dead_letter_topic *topic, int32_t number)
{
    for (size_t i = 0; i < topic->partition_count; i++) {
        if (topic->partitions[i].number == number)
            return &topic->partitions[i];
    }
    return NULL;
}

/* ---- the letters ---- */

static int assign(struct dead_letter_topic *topic, int32_t partition, int64_t offset)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, topic->name, partition)->offset = offset;
    rd_kafka_resp_err_t error = rd_kafka_assign(topic->consumer, list);
    rd_kafka_topic_partition_list_destroy(list);
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
        return 0;
    log_error("dead letters cannot be read partition=%" PRIi32 " reason=%s", partition,
        rd_kafka_err2name(error));
    return -ETIMEDOUT;
}

/* One scan under way. */
struct scan {
    struct dead_letter_partition *partition;
    int64_t end;
    dead_letter_handler *handler;
    void *userdata;
    int64_t deadline_ms;
    bool is_at_end;
};

/* What the message means for the scan; what its handler says. */
static int take_message(struct scan *scan, const rd_kafka_message_t *message)
{
    /* What comes of the partition that was read before is late. */
    if (message->rkt == NULL || message->partition != scan->partition->number)
        return 0;
    if (message->err == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET) {
        log_error(
            "dead letters expired while they were read partition=%" PRIi32, message->partition);
        return -ETIMEDOUT;
    }
    if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
        scan->is_at_end = true;
    /* Lost connections mend themselves, or end in silence. */
    if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR)
        return 0;
    scan->is_at_end = message->offset + 1 >= scan->end;
    if (message->offset >= scan->end)
        return 0;
    int result = scan->handler(scan->partition, message, scan->userdata);
    scan->deadline_ms = monotonic_clock_ms() + SILENCE_MS;
    return result;
}

static int take_next(struct dead_letter_topic *topic, struct scan *scan)
{
    if (topic->is_over(topic->userdata))
        return -ECANCELED;
    rd_kafka_message_t *message = rd_kafka_consumer_poll(topic->consumer, POLL_MS);
    if (message != NULL) {
        int result = take_message(scan, message);
        rd_kafka_message_destroy(message);
        return result;
    }
    if (monotonic_clock_ms() <= scan->deadline_ms)
        return 0;
    log_error("kafka does not answer what=letters partition=%" PRIi32, scan->partition->number);
    return -ETIMEDOUT;
}

int dead_letter_topic_scan(struct dead_letter_topic *topic, struct dead_letter_partition *partition,
    const int64_t range[2], dead_letter_handler *handler, void *userdata)
{
    int64_t first = range[0] < partition->low ? partition->low : range[0];
    struct scan scan = {
        .partition = partition,
        .end = range[1] > partition->high ? partition->high : range[1],
        .handler = handler,
        .userdata = userdata,
        .deadline_ms = monotonic_clock_ms() + SILENCE_MS,
    };
    if (first >= scan.end)
        return 0;
    int result = assign(topic, partition->number, first);
    while (result == 0 && !scan.is_at_end)
        result = take_next(topic, &scan);
    return result;
}

/* ---- the note ---- */

static int await_commit(struct dead_letter_topic *topic, rd_kafka_queue_t *queue)
{
    rd_kafka_event_t *event = NULL;
    for (unsigned int tries = 0; event == NULL && tries < COMMIT_TRIES; tries++)
        event = rd_kafka_queue_poll(queue, POLL_MS);
    rd_kafka_resp_err_t error =
        event == NULL ? RD_KAFKA_RESP_ERR__TIMED_OUT : rd_kafka_event_error(event);
    if (event != NULL)
        rd_kafka_event_destroy(event);
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
        return 0;
    log_error("handled dead letters are not noted topic=%s reason=%s: they are listed again",
        topic->name, rd_kafka_err2name(error));
    return -ETIMEDOUT;
}

static int add_note(
    struct dead_letter_topic *topic, size_t index, rd_kafka_topic_partition_list_t *list)
{
    const struct dead_letter_partition *partition = &topic->partitions[index];
    char text[HANDLED_OFFSETS_TEXT];
    if (!handled_offsets_format(&partition->handled, text))
        log_warn("note of handled dead letters is full partition=%" PRIi32
                 ": some are listed again until those before them are handled",
            partition->number);
    rd_kafka_topic_partition_t *entry =
        rd_kafka_topic_partition_list_add(list, topic->name, partition->number);
    entry->offset = partition->handled.position;
    entry->metadata = strdup(text);
    if (entry->metadata == NULL)
        return -ENOMEM;
    entry->metadata_size = strlen(text);
    return 0;
}

static bool has_changes(const struct dead_letter_topic *topic)
{
    for (size_t i = 0; i < topic->partition_count; i++) {
        if (topic->partitions[i].is_changed)
            return true;
    }
    return false;
}

int dead_letter_topic_commit(struct dead_letter_topic *topic)
{
    if (!has_changes(topic))
        return 0;
    int result = read_notes(topic);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    for (size_t i = 0; i < topic->partition_count && result == 0; i++) {
        if (topic->partitions[i].is_changed)
            result = add_note(topic, i, list);
    }
    if (result == 0 && list->cnt > 0) {
        rd_kafka_queue_t *queue = rd_kafka_queue_new(topic->consumer);
        rd_kafka_resp_err_t error = rd_kafka_commit_queue(topic->consumer, list, queue, NULL, NULL);
        result = error == RD_KAFKA_RESP_ERR_NO_ERROR ? await_commit(topic, queue) : -ETIMEDOUT;
        rd_kafka_queue_destroy(queue);
    }
    for (size_t i = 0; i < topic->partition_count && result == 0; i++)
        topic->partitions[i].is_changed = false;
    rd_kafka_topic_partition_list_destroy(list);
    return result;
}

int dead_letter_topic_renew(struct dead_letter_topic *topic, size_t *ret_partitions)
{
    size_t count = 0;
    for (size_t i = 0; i < topic->partition_count; i++) {
        struct dead_letter_partition *partition = &topic->partitions[i];
        partition->is_changed = partition->is_noted;
        count += partition->is_noted ? 1 : 0;
    }
    *ret_partitions = count;
    return dead_letter_topic_commit(topic);
}

void dead_letter_topic_cleanup(struct dead_letter_topic *topic)
{
    if (topic->consumer != NULL)
        rd_kafka_destroy(topic->consumer);
    free(topic->partitions);
    topic->consumer = NULL;
    topic->partitions = NULL;
    topic->partition_count = 0;
}
