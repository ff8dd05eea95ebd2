#include "eventd/deliver_flow.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "common/failpoint.h"
#include "common/file_descriptor.h"
#include "common/log.h"
#include "common/monotonic_clock.h"
#include "eventd/deliver_batch.h"
#include "eventd/kafka_queue.h"
#include "eventd/partition_window.h"

#define BATCH_MAX_BYTES     ((size_t)1024 * 1024)
#define COMMIT_INTERVAL_US  UINT64_C(1000000)
#define TIMER_ACCURACY_US   UINT64_C(5000)
#define ANSWER_TIMEOUT_US   UINT64_C(60000000)
#define NEVER_US            (UINT64_MAX / 4)
#define WARNINGS_PER_SECOND 2

struct partition {
    char *topic; /* owned */
    int32_t number;
    Userd__Ipc__EventKind kind;
    rd_kafka_queue_t *queue; /* owned */
    struct partition_window window;
    struct held_record *
        held; /* owned; window.held of them, in a ring of no turns: moved down when some are done */
    int64_t next_offset;  /* to be read: everything below has been held or is not ours */
    int64_t committed;    /* told to Kafka; -1: nothing yet */
    uint64_t batch_id;    /* of the batch in flight */
    uint64_t peer_serial; /* whose it is */
    uint64_t sent_us;
};

struct deliver_flow {
    struct deliver_flow_options options;
    struct consumer_group *group; /* the caller's */
    struct partition *partitions; /* owned; NULL: none are ours */
    size_t partition_count;
    size_t batch_records;
    uint64_t last_batch_id;
    int wake_fd;                /* owned: written when a partition's queue is no longer empty */
    sd_event_source *wake;      /* owned */
    sd_event_source *retry;     /* owned */
    sd_event_source *committer; /* owned */
    struct log_limit warning_limit;
    bool must_relearn;
    bool is_draining;
};

static void let_go(struct partition *partition, size_t count, size_t held_before)
{
    for (size_t i = 0; i < count; i++)
        rd_kafka_event_destroy(partition->held[i].event);
    memmove(
        partition->held, partition->held + count, (held_before - count) * sizeof(*partition->held));
}

static void on_partition_error(
    struct deliver_flow *flow, struct partition *partition, rd_kafka_resp_err_t error)
{
    /* The position is not, or no longer, in the log: consumer_start says so and decides. */
    if (error == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET ||
        error == RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE)
        flow->must_relearn = true;
    unsigned int suppressed = 0;
    if (log_limit_allows(&flow->warning_limit, WARNINGS_PER_SECOND, &suppressed))
        log_warn("partition cannot be read topic=%s partition=%" PRIi32
                 " reason=%s suppressed=%u: trying again",
            partition->topic, partition->number, rd_kafka_err2name(error), suppressed);
}

/* Takes one event off the partition's queue; adds the bytes of what is now held. False: the queue
 * is empty. */
static bool read_event(struct deliver_flow *flow, struct partition *partition, size_t *bytes)
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
        on_partition_error(flow, partition, error);
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
    scoreboard_add(&flow->options.slot->kafka_consumed, 1);
    return true;
}

static void read_records(struct deliver_flow *flow, struct partition *partition)
{
    size_t bytes = 0;
    while (partition->window.held < flow->batch_records && bytes < BATCH_MAX_BYTES) {
        if (!read_event(flow, partition, &bytes))
            return;
    }
}

static void send_batch(struct deliver_flow *flow, struct partition *partition, size_t count)
{
    struct worker_peer *peer = worker_peers_pick(flow->options.peers);
    if (peer == NULL)
        return; /* deliver_flow_on_worker_available() comes back to it */
    struct partition_window *window = &partition->window;
    bool is_refused = partition_window_refuses_head(window);
    int64_t first = partition->held[0].message->offset;
    int64_t last = partition->held[count - 1].message->offset;
    partition_window_sent(window, count, first, last);
    Userd__Ipc__DeliverBatch header;
    userd__ipc__deliver_batch__init(&header);
    header.id = ++flow->last_batch_id;
    header.kind = partition->kind;
    header.cluster = borrow_const(consumer_group_cluster(flow->group));
    header.topic = partition->topic;
    header.partition = partition->number;
    header.position = window->position;
    header.next_position = window->next_position;
    header.is_first = window->is_first;
    struct deliver_batch batch = {
        .header = &header,
        .records = partition->held,
        .count = count,
        .event_bytes_max = (size_t)flow->options.settings->limits.event_bytes,
        .attempts = window->deaths,
        .refusal = is_refused ? "record ended its worker 3 times" : NULL,
    };
    partition->batch_id = header.id;
    partition->peer_serial = peer->serial;
    partition->sent_us = monotonic_clock_turn_us(flow->options.event);
    if (deliver_batch_send(peer, &batch) < 0)
        (void)partition_window_answered(
            window, PARTITION_UNAVAILABLE, partition->sent_us, arc4random());
    else
        peer->in_flight++;
    FAILPOINT("deliver.dispatched");
}

static void pump(struct deliver_flow *flow, struct partition *partition)
{
    if (partition->window.phase == PARTITION_LOST)
        flow->must_relearn = true;
    if (partition->window.phase != PARTITION_READY || flow->is_draining)
        return;
    if (partition->window.held == 0)
        read_records(flow, partition);
    size_t count = partition_window_batch_size(
        &partition->window, monotonic_clock_turn_us(flow->options.event));
    if (count > 0)
        send_batch(flow, partition, count);
}

/* When the partition next needs a look without anything happening. */
static uint64_t next_look_us(const struct partition *partition)
{
    if (partition->window.phase == PARTITION_IN_FLIGHT)
        return partition->sent_us + ANSWER_TIMEOUT_US;
    if (partition->window.phase == PARTITION_READY && partition->window.held > 0)
        return partition->window.not_before_us;
    return UINT64_MAX;
}

/* After anything has happened: relearns if some position is lost, else sets the timer. */
static void settle(struct deliver_flow *flow)
{
    if (flow->must_relearn) {
        flow->must_relearn = false;
        consumer_group_relearn(flow->group); /* calls deliver_flow_stop() */
        return;
    }
    uint64_t now = monotonic_clock_turn_us(flow->options.event);
    uint64_t earliest = UINT64_MAX;
    for (size_t i = 0; i < flow->partition_count; i++) {
        uint64_t look = next_look_us(&flow->partitions[i]);
        /* Sendable, but no worker is there: that comes as an event. */
        if (look > now && look < earliest)
            earliest = look;
    }
    if (earliest == UINT64_MAX)
        return;
    (void)sd_event_source_set_time(flow->retry, earliest);
    (void)sd_event_source_set_enabled(flow->retry, SD_EVENT_ONESHOT);
}

static void pump_all(struct deliver_flow *flow)
{
    for (size_t i = 0; i < flow->partition_count; i++)
        pump(flow, &flow->partitions[i]);
    settle(flow);
}

static void answered(
    struct deliver_flow *flow, struct partition *partition, enum partition_outcome outcome)
{
    size_t held = partition->window.held;
    size_t done = partition_window_answered(
        &partition->window, outcome, monotonic_clock_turn_us(flow->options.event), arc4random());
    if (done > 0)
        let_go(partition, done, held);
}

static int on_wake(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    (void)source;
    (void)events;
    eventfd_t count = 0;
    (void)eventfd_read(fd, &count);
    pump_all(userdata);
    return 0;
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
    (void)source;
    (void)usec;
    struct deliver_flow *flow = userdata;
    for (size_t i = 0; i < flow->partition_count; i++) {
        struct partition *partition = &flow->partitions[i];
        if (partition->window.phase != PARTITION_IN_FLIGHT ||
            monotonic_clock_turn_us(flow->options.event) < partition->sent_us + ANSWER_TIMEOUT_US)
            continue;
        log_warn("worker does not answer topic=%s partition=%" PRIi32 " position=%" PRIi64
                 ": sending the batch again",
            partition->topic, partition->number, partition->window.position);
        answered(flow, partition, PARTITION_UNAVAILABLE);
    }
    pump_all(flow);
    return 0;
}

static struct partition *find_batch(struct deliver_flow *flow, uint64_t serial, uint64_t batch_id)
{
    for (size_t i = 0; i < flow->partition_count; i++) {
        struct partition *partition = &flow->partitions[i];
        if (partition->window.phase == PARTITION_IN_FLIGHT && partition->batch_id == batch_id &&
            partition->peer_serial == serial)
            return partition;
    }
    return NULL;
}

void deliver_flow_on_result(
    struct deliver_flow *flow, struct worker_peer *peer, const Userd__Ipc__DeliverResult *result)
{
    if (peer->in_flight > 0)
        peer->in_flight--;
    FAILPOINT("deliver.answered");
    struct partition *partition = find_batch(flow, peer->serial, result->id);
    if (partition == NULL)
        return;
    enum partition_outcome outcome = PARTITION_UNAVAILABLE;
    if (result->outcome == USERD__IPC__DELIVER_RESULT__OUTCOME__APPLIED)
        outcome = PARTITION_APPLIED;
    else if (result->outcome == USERD__IPC__DELIVER_RESULT__OUTCOME__POSITION_MISMATCH)
        outcome = PARTITION_MISMATCH;
    answered(flow, partition, outcome);
    pump(flow, partition);
    settle(flow);
}

void deliver_flow_on_worker_available(struct deliver_flow *flow)
{
    pump_all(flow);
}

void deliver_flow_on_worker_gone(struct deliver_flow *flow, uint64_t peer_serial)
{
    for (size_t i = 0; i < flow->partition_count; i++) {
        struct partition *partition = &flow->partitions[i];
        if (partition->window.phase != PARTITION_IN_FLIGHT || partition->peer_serial != peer_serial)
            continue;
        answered(flow, partition, PARTITION_WORKER_GONE);
        log_warn("worker gone with a batch topic=%s partition=%" PRIi32 " position=%" PRIi64
                 " deaths=%u singly=%d: sending it again",
            partition->topic, partition->number, partition->window.position,
            partition->window.deaths, partition->window.is_singly);
    }
    pump_all(flow);
}

void deliver_flow_commit(struct deliver_flow *flow)
{
    rd_kafka_topic_partition_list_t *list =
        rd_kafka_topic_partition_list_new((int)flow->partition_count + 1);
    for (size_t i = 0; i < flow->partition_count; i++) {
        struct partition *partition = &flow->partitions[i];
        /* Until the first batch is applied the position is only a plan. */
        if (partition->window.is_first || partition->window.position == partition->committed)
            continue;
        rd_kafka_topic_partition_list_add(list, partition->topic, partition->number)->offset =
            partition->window.position;
        partition->committed = partition->window.position;
    }
    if (list->cnt > 0) {
        FAILPOINT("commit.before");
        consumer_group_commit(flow->group, list);
        FAILPOINT("commit.after");
    }
    rd_kafka_topic_partition_list_destroy(list);
}

static uint64_t lag_of(const struct deliver_flow *flow, const struct partition *partition)
{
    int64_t low = 0;
    int64_t high = 0;
    /* Where PostgreSQL has no position yet, nothing that was read is in effect. */
    int64_t position =
        partition->window.position >= 0 ? partition->window.position : partition->next_offset;
    rd_kafka_resp_err_t error = rd_kafka_get_watermark_offsets(
        flow->options.consumer, partition->topic, partition->number, &low, &high);
    return error == RD_KAFKA_RESP_ERR_NO_ERROR && position >= 0 && high > position
               ? (uint64_t)(high - position)
               : 0;
}

/* From what the brokers said with the last fetch: no question is asked for it. */
static void show_lag(struct deliver_flow *flow)
{
    struct scoreboard_slot *slot = flow->options.slot;
    uint64_t total = 0;
    for (size_t i = 0; i < flow->partition_count || i < SCOREBOARD_LAGS; i++) {
        uint64_t lag = 0;
        if (i < flow->partition_count)
            lag = lag_of(flow, &flow->partitions[i]);
        total += lag;
        if (i >= SCOREBOARD_LAGS)
            continue;
        const struct partition *partition = i < flow->partition_count ? &flow->partitions[i] : NULL;
        struct scoreboard_lag *row = &slot->kafka_lags[i];
        atomic_store_explicit(
            &row->topic, partition == NULL ? 0 : (uint32_t)partition->kind, memory_order_relaxed);
        atomic_store_explicit(
            &row->partition, partition == NULL ? 0 : partition->number, memory_order_relaxed);
        atomic_store_explicit(&row->records, lag, memory_order_relaxed);
    }
    atomic_store_explicit(&slot->kafka_lag, total, memory_order_relaxed);
}

static int on_commit_time(sd_event_source *source, uint64_t usec, void *userdata)
{
    (void)usec;
    deliver_flow_commit(userdata);
    show_lag(userdata);
    (void)sd_event_source_set_time_relative(source, COMMIT_INTERVAL_US);
    (void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
    return 0;
}

static void close_partition(struct partition *partition)
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

void deliver_flow_stop(struct deliver_flow *flow)
{
    deliver_flow_commit(flow);
    for (size_t i = 0; i < flow->partition_count; i++)
        close_partition(&flow->partitions[i]);
    free(flow->partitions);
    flow->partitions = NULL;
    flow->partition_count = 0;
    flow->must_relearn = false;
}

static int open_partition(
    struct deliver_flow *flow, const struct consumer_start *start, struct partition *partition)
{
    bool is_registration =
        strcmp(start->topic, flow->options.settings->kafka.registration_topic) == 0;
    partition->kind = is_registration ? USERD__IPC__EVENT_KIND__EVENT_KIND_REGISTRATION
                                      : USERD__IPC__EVENT_KIND__EVENT_KIND_ADMIN_DELETE;
    partition->number = start->partition;
    partition->next_offset = start->offset;
    partition->committed = -1;
    partition_window_init(&partition->window, start->stored);
    partition->topic = strdup(start->topic);
    partition->held = calloc(flow->batch_records, sizeof(*partition->held));
    partition->queue =
        rd_kafka_queue_get_partition(flow->options.consumer, start->topic, start->partition);
    if (partition->topic == NULL || partition->held == NULL || partition->queue == NULL)
        return -ENOMEM;
    /* Before the assignment: then not one record ever takes the way over the consumer's queue. */
    rd_kafka_queue_forward(partition->queue, NULL);
    kafka_queue_wake_by(partition->queue, flow->wake_fd);
    return 0;
}

void deliver_flow_start(
    struct deliver_flow *flow, const struct consumer_start *starts, size_t count)
{
    flow->partitions = calloc(count, sizeof(*flow->partitions));
    if (flow->partitions == NULL) {
        log_error("no memory for partitions count=%zu: leaving", count);
        (void)sd_event_exit(flow->options.event, 1);
        return;
    }
    flow->partition_count = count;
    for (size_t i = 0; i < count; i++) {
        if (open_partition(flow, &starts[i], &flow->partitions[i]) == 0)
            continue;
        log_error("partition cannot be opened topic=%s partition=%" PRIi32 ": leaving",
            starts[i].topic, starts[i].partition);
        (void)sd_event_exit(flow->options.event, 1);
    }
    /* A queue wakes us only when it ceases to be empty, and what an earlier assignment has left in
     * one keeps it from that: taken out, however old, it is in nobody's way. */
    (void)eventfd_write(flow->wake_fd, 1);
}

void deliver_flow_set_group(struct deliver_flow *flow, struct consumer_group *group)
{
    flow->group = group;
}

void deliver_flow_drain(struct deliver_flow *flow)
{
    flow->is_draining = true;
}

bool deliver_flow_is_idle(const struct deliver_flow *flow)
{
    for (size_t i = 0; i < flow->partition_count; i++) {
        if (flow->partitions[i].window.phase == PARTITION_IN_FLIGHT)
            return false;
    }
    return true;
}

int deliver_flow_new(const struct deliver_flow_options *options, struct deliver_flow **ret_flow)
{
    /* Lives as long as the process. */
    struct deliver_flow *flow = calloc(1, sizeof(*flow));
    if (flow == NULL)
        return -ENOMEM;
    flow->options = *options;
    flow->batch_records = (size_t)options->settings->kafka.batch_records;
    flow->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int result = flow->wake_fd < 0 ? -errno : 0;
    if (result >= 0)
        result =
            sd_event_add_io(options->event, &flow->wake, flow->wake_fd, EPOLLIN, on_wake, flow);
    if (result >= 0)
        result = sd_event_add_time_relative(options->event, &flow->retry, CLOCK_MONOTONIC, NEVER_US,
            TIMER_ACCURACY_US, on_retry, flow);
    if (result >= 0)
        result = sd_event_add_time_relative(options->event, &flow->committer, CLOCK_MONOTONIC,
            COMMIT_INTERVAL_US, COMMIT_INTERVAL_US / 4, on_commit_time, flow);
    if (result < 0) {
        (void)sd_event_source_disable_unref(flow->wake);
        (void)sd_event_source_disable_unref(flow->retry);
        fd_close(&flow->wake_fd);
        free(flow);
        return result;
    }
    *ret_flow = flow;
    return 0;
}
