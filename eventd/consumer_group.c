#include "eventd/consumer_group.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/failpoint.h"
#include "common/log.h"
#include "common/monotonic_clock.h"
#include "eventd/consumer_start.h"
#include "eventd/kafka_client.h"
#include "eventd/kafka_queue.h"
#include "eventd/kafka_watch.h"
#include "eventd/partition_window.h"

#define TICK_US                UINT64_C(1000000)
#define POSITION_TIMEOUT_US    UINT64_C(5000000)
#define TIMER_ACCURACY_US      UINT64_C(10000)
#define NEVER_US               (UINT64_MAX / 4)
#define ERROR_LINES_PER_SECOND 2
#define TOPICS                 2

enum group_phase {
    GROUP_WITHOUT,       /* no partitions */
    GROUP_WAITING,       /* has partitions; will ask when the timer fires or a worker is there */
    GROUP_ASKING_WORKER, /* for PostgreSQL's positions */
    GROUP_ASKING_KAFKA,  /* for the group's commits and the watermarks */
    GROUP_RUNNING,
    GROUP_CLOSING,
};

struct consumer_group {
    struct consumer_group_options options;
    struct kafka_queue *queue;    /* owned */
    rd_kafka_queue_t *idle_queue; /* owned: always empty; see on_tick() */
    sd_event_source *timer;       /* owned: of the phase */
    sd_event_source *tick;        /* owned */
    char *cluster;                /* owned; NULL: not known yet */
    bool has_topic[TOPICS];       /* subscribed to */
    enum group_phase phase;
    uint64_t learn_id;     /* of the newest questions; answers to older ones are ignored */
    unsigned int failures; /* to learn the positions, in a row */
    uint64_t last_start_us;
    rd_kafka_topic_partition_list_t *partitions; /* owned; `offset` holds PostgreSQL's position */
    struct log_limit error_limit;
    bool has_said_no_worker;
};

/* One question to Kafka about the partitions of one learning. */
struct offsets_question {
    struct kafka_question question;
    struct consumer_group *group;
    uint64_t learn_id;
};

static void set_timer(struct consumer_group *group, uint64_t delay_us)
{
    (void)sd_event_source_set_time_relative(group->timer, delay_us);
    (void)sd_event_source_set_enabled(group->timer, SD_EVENT_ONESHOT);
}

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
    group->phase = GROUP_WAITING;
    group->learn_id++;
    set_timer(group, delay_us);
}

static void retry_learning(struct consumer_group *group)
{
    group->failures++;
    begin_learning(group, partition_window_delay_us(group->failures, arc4random()));
}

static void start_reading(
    struct consumer_group *group, const struct kafka_partition_offsets *offsets)
{
    size_t count = (size_t)group->partitions->cnt;
    struct consumer_start *starts = calloc(count + 1, sizeof(*starts));
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)count + 1);
    if (starts == NULL) {
        rd_kafka_topic_partition_list_destroy(list);
        retry_learning(group);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        starts[i] = consumer_start_choose(&group->partitions->elems[i], &offsets[i]);
        rd_kafka_topic_partition_list_add(list, starts[i].topic, starts[i].partition)->offset =
            starts[i].offset;
    }
    group->phase = GROUP_RUNNING;
    group->failures = 0;
    group->last_start_us = monotonic_clock_turn_us(group->options.event);
    log_info("reading partitions=%zu cluster=%s", count, group->cluster);
    group->options.handlers->on_start(starts, count, group->options.userdata);
    assign(group, list);
    rd_kafka_topic_partition_list_destroy(list);
    free(starts);
}

static void on_offsets(struct kafka_question *question, void *userdata)
{
    struct offsets_question *asked = userdata;
    struct consumer_group *group = asked->group;
    if (asked->learn_id == group->learn_id && group->phase == GROUP_ASKING_KAFKA) {
        if (question->error == RD_KAFKA_RESP_ERR_NO_ERROR) {
            start_reading(group, question->ret_offsets);
        } else {
            log_warn("kafka offsets unknown reason=%s: asking again",
                rd_kafka_err2name(question->error));
            retry_learning(group);
        }
    }
    rd_kafka_topic_partition_list_destroy(question->partitions);
    free(asked);
}

static void ask_kafka(struct consumer_group *group)
{
    struct offsets_question *asked = calloc(1, sizeof(*asked));
    if (asked == NULL) {
        retry_learning(group);
        return;
    }
    asked->group = group;
    asked->learn_id = group->learn_id;
    asked->question = (struct kafka_question){
        .kind = KAFKA_QUESTION_OFFSETS,
        .client = group->options.consumer,
        .partitions = rd_kafka_topic_partition_list_copy(group->partitions),
        .on_answer = on_offsets,
        .userdata = asked,
    };
    group->phase = GROUP_ASKING_KAFKA;
    kafka_asker_ask(group->options.asker, &asked->question);
}

void consumer_group_on_positions(
    struct consumer_group *group, const Userd__Ipc__PositionResult *result)
{
    if (result->id != group->learn_id || group->phase != GROUP_ASKING_WORKER)
        return;
    if (!result->is_available) {
        retry_learning(group);
        return;
    }
    for (int i = 0; i < group->partitions->cnt; i++)
        group->partitions->elems[i].offset = -1;
    for (size_t i = 0; i < result->n_positions; i++) {
        const Userd__Ipc__Position *position = result->positions[i];
        rd_kafka_topic_partition_t *partition = rd_kafka_topic_partition_list_find(
            group->partitions, position->topic, position->partition);
        if (partition != NULL)
            partition->offset = position->next_offset;
    }
    if (result->n_other_clusters > 0)
        log_warn(
            "positions of other kafka clusters are stored cluster=%s other=%s others=%zu: they "
            "do not count here",
            group->cluster, result->other_clusters[0], result->n_other_clusters);
    ask_kafka(group);
}

static void ask_worker(struct consumer_group *group)
{
    struct worker_peer *peer = worker_peers_pick(group->options.peers);
    if (peer == NULL) {
        if (!group->has_said_no_worker)
            log_info("waiting for a worker with a database");
        group->has_said_no_worker = true;
        set_timer(group, TICK_US);
        return;
    }
    group->has_said_no_worker = false;
    Userd__Ipc__PositionRequest request;
    userd__ipc__position_request__init(&request);
    request.id = group->learn_id;
    request.cluster = group->cluster;
    Userd__Ipc__Frame frame = USERD__IPC__FRAME__INIT;
    frame.body_case = USERD__IPC__FRAME__BODY_POSITION_REQUEST;
    frame.position_request = &request;
    if (consumer_start_send_request(peer, &frame, group->partitions) < 0) {
        retry_learning(group);
        return;
    }
    group->phase = GROUP_ASKING_WORKER;
    FAILPOINT("group.asked");
    set_timer(group, POSITION_TIMEOUT_US);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    (void)source;
    (void)usec;
    struct consumer_group *group = userdata;
    if (group->phase == GROUP_ASKING_WORKER) {
        log_warn("worker does not answer with positions: asking again");
        retry_learning(group);
    } else if (group->phase == GROUP_WAITING) {
        ask_worker(group);
    }
    return 0;
}

void consumer_group_on_worker_available(struct consumer_group *group)
{
    if (group->phase == GROUP_WAITING && group->failures == 0)
        set_timer(group, 0);
}

void consumer_group_relearn(struct consumer_group *group)
{
    if (group->phase != GROUP_RUNNING)
        return;
    bool is_again =
        monotonic_clock_turn_us(group->options.event) - group->last_start_us < POSITION_TIMEOUT_US;
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
    group->failures = 0;
    if (partitions->cnt > 0)
        begin_learning(group, 0);
    else
        group->phase = GROUP_WITHOUT;
}

static void on_revoked(struct consumer_group *group)
{
    stop_reading(group);
    group->learn_id++;
    if (group->phase != GROUP_CLOSING)
        group->phase = GROUP_WITHOUT;
    FAILPOINT("group.revoked");
    assign(group, NULL);
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
    case RD_KAFKA_EVENT_OFFSET_COMMIT:
        if (rd_kafka_event_error(event) != RD_KAFKA_RESP_ERR_NO_ERROR)
            log_debug(
                "kafka commit failed reason=%s", rd_kafka_err2name(rd_kafka_event_error(event)));
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

/* Reading the partitions' own queues does not count as a sign of life everywhere in librdkafka;
 * this does, and takes nothing from any queue that matters. */
static int on_tick(sd_event_source *source, uint64_t usec, void *userdata)
{
    (void)usec;
    struct consumer_group *group = userdata;
    rd_kafka_message_t *none = NULL;
    (void)rd_kafka_consume_batch_queue(group->idle_queue, 0, &none, 1);
    (void)sd_event_source_set_time_relative(source, TICK_US);
    (void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
    return 0;
}

static void subscribe(struct consumer_group *group, const char *const *topics)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(TOPICS);
    for (size_t i = 0; i < TOPICS; i++) {
        if (group->has_topic[i])
            (void)rd_kafka_topic_partition_list_add(list, topics[i], RD_KAFKA_PARTITION_UA);
    }
    rd_kafka_resp_err_t error = rd_kafka_subscribe(group->options.consumer, list);
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
        log_error("kafka subscription failed reason=%s", rd_kafka_err2name(error));
    else
        log_info("subscribed topics=%d group=%s", list->cnt, group->options.settings->kafka.group);
    rd_kafka_topic_partition_list_destroy(list);
}

void consumer_group_update(
    struct consumer_group *group, const char *cluster, const struct rd_kafka_metadata *metadata)
{
    if (group->phase == GROUP_CLOSING)
        return;
    if (group->cluster == NULL || strcmp(group->cluster, cluster) != 0) {
        if (group->cluster != NULL)
            log_error("kafka is another cluster now before=%s now=%s: asking for its positions",
                group->cluster, cluster);
        char *copy = strdup(cluster);
        if (copy == NULL)
            return;
        free(group->cluster);
        group->cluster = copy;
        consumer_group_relearn(group);
    }
    /* A topic that vanishes stays subscribed: naming it less would not bring it back. */
    const char *const topics[TOPICS] = {
        group->options.settings->kafka.registration_topic,
        group->options.settings->kafka.admin_delete_topic,
    };
    bool has_changed = false;
    for (size_t i = 0; i < TOPICS; i++) {
        if (group->has_topic[i] || !kafka_watch_has_topic(metadata, topics[i]))
            continue;
        group->has_topic[i] = true;
        has_changed = true;
    }
    if (has_changed)
        subscribe(group, topics);
}

const char *consumer_group_cluster(const struct consumer_group *group)
{
    return group->cluster;
}

rd_kafka_queue_t *consumer_group_queue(struct consumer_group *group)
{
    return kafka_queue_handle(group->queue);
}

void consumer_group_commit(
    struct consumer_group *group, const rd_kafka_topic_partition_list_t *positions)
{
    rd_kafka_resp_err_t error = rd_kafka_commit(group->options.consumer, positions, 1);
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
        log_debug("kafka commit refused reason=%s", rd_kafka_err2name(error));
}

void consumer_group_close(struct consumer_group *group)
{
    stop_reading(group);
    group->phase = GROUP_CLOSING;
    group->learn_id++;
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
    if (result >= 0)
        result = sd_event_add_time_relative(options->event, &group->timer, CLOCK_MONOTONIC,
            NEVER_US, TIMER_ACCURACY_US, on_timer, group);
    if (result >= 0)
        result = sd_event_add_time_relative(
            options->event, &group->tick, CLOCK_MONOTONIC, TICK_US, TICK_US, on_tick, group);
    if (result < 0) {
        (void)sd_event_source_disable_unref(group->timer);
        group->queue = kafka_queue_free(group->queue);
        rd_kafka_queue_destroy(group->idle_queue);
        free(group);
        return result;
    }
    *ret_group = group;
    return 0;
}
