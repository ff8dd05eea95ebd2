#include "eventd/consumer_group.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/failpoint.h"
#include "common/log.h"
#include "common/monotonic_clock.h"
#include "eventd/kafka_client.h"
#include "eventd/kafka_queue.h"
#include "eventd/kafka_watch.h"
#include "eventd/position_learning.h"

#define TICK_US             UINT64_C(1000000)
#define RELEARN_INTERVAL_US UINT64_C(5000000)
/* How long no worker may be able to apply events before the partitions are left to others. */
#define UNABLE_TIMEOUT_US      UINT64_C(10000000)
#define ERROR_LINES_PER_SECOND 2
#define TOPICS                 2

enum group_phase {
    GROUP_WITHOUT,  /* no partitions */
    GROUP_LEARNING, /* has partitions, and finds out where they start */
    GROUP_RUNNING,
    GROUP_CLOSING,
};

struct consumer_group {
    struct consumer_group_options options;
    struct kafka_queue *queue;          /* owned */
    rd_kafka_queue_t *idle_queue;       /* owned: always empty; see on_tick() */
    sd_event_source *tick;              /* owned */
    struct position_learning *learning; /* owned */
    char *cluster;                      /* owned; NULL: not known yet */
    bool has_topic[TOPICS];             /* it exists */
    int partition_counts[TOPICS];
    bool is_member; /* subscribed: a member, or about to be one */
    bool watches_all;
    uint64_t able_us; /* when a worker could last apply events; 0: never */
    enum group_phase phase;
    uint64_t last_start_us;
    rd_kafka_topic_partition_list_t *partitions; /* owned; NULL: none yet */
    struct log_limit error_limit;
};

static void assign(struct consumer_group *group, const rd_kafka_topic_partition_list_t *partitions)
{
    rd_kafka_resp_err_t error = rd_kafka_assign(group->options.consumer, partitions);
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
        log_warn("kafka assignment failed reason=%s", rd_kafka_err2name(error));
}

/* Stays a member with these partitions, but fetches nothing. */
static void assign_nothing(struct consumer_group *group)
{
    rd_kafka_topic_partition_list_t *empty = rd_kafka_topic_partition_list_new(1);
    assign(group, empty);
    rd_kafka_topic_partition_list_destroy(empty);
}

static void stop_reading(struct consumer_group *group)
{
    if (group->phase == GROUP_RUNNING)
        group->options.handlers->on_stop(group->options.userdata);
}

static void begin_learning(struct consumer_group *group, uint64_t delay_us)
{
    group->phase = GROUP_LEARNING;
    /* What others have applied since is not known. */
    log_audit_watch(group->options.audit, group->partitions);
    position_learning_begin(group->learning, group->cluster, group->partitions, delay_us);
}

static void on_learned(const struct consumer_start *starts, size_t count, void *userdata)
{
    struct consumer_group *group = userdata;
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)count + 1);
    for (size_t i = 0; i < count; i++)
        rd_kafka_topic_partition_list_add(list, starts[i].topic, starts[i].partition)->offset =
            starts[i].offset;
    group->phase = GROUP_RUNNING;
    group->last_start_us = monotonic_clock_turn_us(group->options.event);
    log_info("reading partitions=%zu cluster=%s", count, group->cluster);
    group->options.handlers->on_start(starts, count, group->options.userdata);
    assign(group, list);
    rd_kafka_topic_partition_list_destroy(list);
}

void consumer_group_on_positions(
    struct consumer_group *group, const Userd__Ipc__PositionResult *result)
{
    position_learning_on_positions(group->learning, result);
}

void consumer_group_relearn(struct consumer_group *group)
{
    if (group->phase != GROUP_RUNNING)
        return;
    bool is_again =
        monotonic_clock_turn_us(group->options.event) - group->last_start_us < RELEARN_INTERVAL_US;
    stop_reading(group);
    assign_nothing(group);
    begin_learning(group, is_again ? TICK_US : 0);
}

static void on_assigned(
    struct consumer_group *group, const rd_kafka_topic_partition_list_t *partitions)
{
    stop_reading(group);
    if (group->partitions != NULL)
        rd_kafka_topic_partition_list_destroy(group->partitions);
    group->partitions = rd_kafka_topic_partition_list_copy(partitions);
    assign_nothing(group);
    FAILPOINT("group.assigned");
    log_info("partitions assigned count=%d", partitions->cnt);
    if (partitions->cnt > 0) {
        begin_learning(group, 0);
        return;
    }
    group->phase = GROUP_WITHOUT;
    log_audit_watch(group->options.audit, partitions);
}

static void on_revoked(struct consumer_group *group)
{
    stop_reading(group);
    position_learning_cancel(group->learning);
    if (group->phase != GROUP_CLOSING)
        group->phase = GROUP_WITHOUT;
    FAILPOINT("group.revoked");
    assign(group, NULL);
    if (group->partitions != NULL)
        log_audit_watch(group->options.audit, group->partitions);
    log_info("partitions revoked");
}

static void on_error(struct consumer_group *group, rd_kafka_event_t *event)
{
    rd_kafka_resp_err_t error = rd_kafka_event_error(event);
    if (rd_kafka_event_error_is_fatal(event) != 0) {
        log_error("kafka consumer is fatal reason=%s: leaving", rd_kafka_err2name(error));
        (void)sd_event_exit(group->options.event, 1);
        return;
    }
    group->options.handlers->on_trouble(group->options.userdata);
    unsigned int suppressed = 0;
    /* Tried again for ever, but it takes someone to mend it; the text holds no secret. */
    if (error == RD_KAFKA_RESP_ERR__AUTHENTICATION || error == RD_KAFKA_RESP_ERR__SSL) {
        if (log_limit_allows(&group->error_limit, ERROR_LINES_PER_SECOND, &suppressed))
            log_error("kafka connection refused reason=%s suppressed=%u text=\"%s\"",
                rd_kafka_err2name(error), suppressed, rd_kafka_event_error_string(event));
        return;
    }
    /* Lost connections are kafka_watch's to say. */
    if (error == RD_KAFKA_RESP_ERR__TRANSPORT || error == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN ||
        error == RD_KAFKA_RESP_ERR__RESOLVE)
        return;
    if (log_limit_allows(&group->error_limit, ERROR_LINES_PER_SECOND, &suppressed))
        log_warn(
            "kafka consumer error reason=%s suppressed=%u", rd_kafka_err2name(error), suppressed);
}

static void on_event(rd_kafka_event_t *event, void *userdata)
{
    struct consumer_group *group = userdata;
    switch (rd_kafka_event_type(event)) {
    case RD_KAFKA_EVENT_REBALANCE:
        if (rd_kafka_event_error(event) == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS &&
            group->phase != GROUP_CLOSING)
            on_assigned(group, rd_kafka_event_topic_partition_list(event));
        else
            on_revoked(group);
        break;
    case RD_KAFKA_EVENT_STATS:
        group->options.handlers->on_statistics(
            rd_kafka_event_stats(event), group->options.userdata);
        break;
    case RD_KAFKA_EVENT_LOG:
        kafka_client_log(event);
        break;
    case RD_KAFKA_EVENT_ERROR:
        on_error(group, event);
        break;
    case RD_KAFKA_EVENT_CREATETOPICS_RESULT:
        group->options.handlers->on_admin_event(event, group->options.userdata);
        break;
    default:
        break;
    }
}

/* ---- membership ---- */

static const char *topic_name(const struct consumer_group *group, size_t number)
{
    const struct settings *settings = group->options.settings;
    return number == 0 ? settings->kafka.registration_topic : settings->kafka.admin_delete_topic;
}

static void subscribe(struct consumer_group *group)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(TOPICS);
    for (size_t i = 0; i < TOPICS; i++) {
        if (group->has_topic[i])
            (void)rd_kafka_topic_partition_list_add(
                list, topic_name(group, i), RD_KAFKA_PARTITION_UA);
    }
    rd_kafka_resp_err_t error = rd_kafka_subscribe(group->options.consumer, list);
    group->is_member = error == RD_KAFKA_RESP_ERR_NO_ERROR;
    group->watches_all = group->watches_all && !group->is_member;
    if (group->is_member)
        log_info("subscribed topics=%d group=%s", list->cnt, group->options.settings->kafka.group);
    else
        log_error("kafka subscription failed reason=%s", rd_kafka_err2name(error));
    rd_kafka_topic_partition_list_destroy(list);
}

static void leave(struct consumer_group *group)
{
    log_warn("no worker can apply events: leaving the group until one can group=%s after_s=%d",
        group->options.settings->kafka.group, (int)(UNABLE_TIMEOUT_US / TICK_US));
    group->is_member = false;
    rd_kafka_resp_err_t error = rd_kafka_unsubscribe(group->options.consumer);
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
        log_error("kafka group not left reason=%s", rd_kafka_err2name(error));
}

/* Partitions that nobody applies are better with another instance: a member only as long as some
 * worker can use its database. One that is away for a moment does not cost the membership. */
static void decide_membership(struct consumer_group *group)
{
    uint64_t now_us = monotonic_clock_turn_us(group->options.event);
    bool is_able = worker_peers_pick(group->options.peers) != NULL;
    if (group->phase == GROUP_CLOSING)
        return;
    if (is_able)
        group->able_us = now_us;
    if (!group->is_member && is_able && (group->has_topic[0] || group->has_topic[1]))
        subscribe(group);
    else if (group->is_member && now_us - group->able_us >= UNABLE_TIMEOUT_US)
        leave(group);
}

/* Nothing is ours: what is not in effect is still of interest. */
static void watch_all(struct consumer_group *group)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(8);
    for (size_t i = 0; i < TOPICS; i++) {
        for (int32_t number = 0; number < group->partition_counts[i]; number++)
            (void)rd_kafka_topic_partition_list_add(list, topic_name(group, i), number);
    }
    log_audit_watch(group->options.audit, list);
    group->watches_all = true;
    rd_kafka_topic_partition_list_destroy(list);
}

/* Reading the partitions' own queues does not count as a sign of life everywhere in librdkafka;
 * this does, and takes nothing from any queue that matters. */
static int on_tick(sd_event_source *source, uint64_t usec, void *userdata)
{
    (void)usec;
    struct consumer_group *group = userdata;
    rd_kafka_message_t *none = NULL;
    (void)rd_kafka_consume_batch_queue(group->idle_queue, 0, &none, 1);
    decide_membership(group);
    (void)sd_event_source_set_time_relative(source, TICK_US);
    (void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
    return 0;
}

void consumer_group_on_worker_available(struct consumer_group *group)
{
    decide_membership(group);
    position_learning_on_worker_available(group->learning);
}

/* True: it is known now, and may be another one than before. */
static bool set_cluster(struct consumer_group *group, const char *cluster)
{
    if (group->cluster != NULL && strcmp(group->cluster, cluster) == 0)
        return true;
    if (group->cluster != NULL)
        log_error("kafka is another cluster now before=%s now=%s: asking for its positions",
            group->cluster, cluster);
    char *copy = strdup(cluster);
    if (copy == NULL)
        return false;
    free(group->cluster);
    group->cluster = copy;
    log_audit_forget(group->options.audit);
    if (group->phase == GROUP_LEARNING)
        begin_learning(group, 0);
    consumer_group_relearn(group);
    return true;
}

void consumer_group_update(
    struct consumer_group *group, const char *cluster, const struct rd_kafka_metadata *metadata)
{
    if (group->phase == GROUP_CLOSING || !set_cluster(group, cluster))
        return;
    /* A topic that vanishes stays subscribed: naming it less would not bring it back. */
    bool has_new_topic = false;
    bool has_new_partitions = false;
    for (size_t i = 0; i < TOPICS; i++) {
        int count = kafka_watch_partitions(metadata, topic_name(group, i));
        if (count == 0)
            continue;
        has_new_topic |= !group->has_topic[i];
        has_new_partitions |= group->partition_counts[i] != count;
        group->has_topic[i] = true;
        group->partition_counts[i] = count;
    }
    if (has_new_topic && group->is_member)
        subscribe(group);
    decide_membership(group);
    if (!group->is_member && group->phase == GROUP_WITHOUT &&
        (!group->watches_all || has_new_partitions))
        watch_all(group);
}

const char *consumer_group_database(const struct consumer_group *group)
{
    return position_learning_database(group->learning);
}

const char *consumer_group_cluster(const struct consumer_group *group)
{
    return group->cluster;
}

rd_kafka_queue_t *consumer_group_queue(struct consumer_group *group)
{
    return kafka_queue_handle(group->queue);
}

void consumer_group_close(struct consumer_group *group)
{
    stop_reading(group);
    group->phase = GROUP_CLOSING;
    position_learning_cancel(group->learning);
    rd_kafka_error_t *error =
        rd_kafka_consumer_close_queue(group->options.consumer, kafka_queue_handle(group->queue));
    if (error == NULL)
        return;
    log_warn("kafka group not left reason=%s", rd_kafka_error_name(error));
    rd_kafka_error_destroy(error);
}

bool consumer_group_is_closed(const struct consumer_group *group)
{
    return rd_kafka_consumer_closed(group->options.consumer) != 0;
}

int consumer_group_new(
    const struct consumer_group_options *options, struct consumer_group **ret_group)
{
    /* Lives as long as the process, as does all that it refers to. */
    struct consumer_group *group = calloc(1, sizeof(*group));
    if (group == NULL)
        return -ENOMEM;
    group->options = *options;
    group->idle_queue = rd_kafka_queue_new(options->consumer);
    int result = kafka_queue_new(options->event, rd_kafka_queue_get_consumer(options->consumer),
        on_event, group, &group->queue);
    const struct position_learning_options learning = {
        .event = options->event,
        .consumer = options->consumer,
        .asker = options->asker,
        .peers = options->peers,
        .audit = options->audit,
        .slot = options->slot,
        .on_learned = on_learned,
        .userdata = group,
    };
    if (result >= 0)
        result = position_learning_new(&learning, &group->learning);
    if (result >= 0)
        result = sd_event_add_time_relative(
            options->event, &group->tick, CLOCK_MONOTONIC, TICK_US, TICK_US, on_tick, group);
    if (result < 0) {
        group->queue = kafka_queue_free(group->queue);
        rd_kafka_queue_destroy(group->idle_queue);
        free(group);
        return result;
    }
    *ret_group = group;
    return 0;
}
