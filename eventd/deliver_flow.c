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
#include "eventd/consumed_partition.h"
#include "eventd/deliver_batch.h"
#include "eventd/position_commit.h"

#define COMMIT_INTERVAL_US  UINT64_C(1000000)
#define TIMER_ACCURACY_US   UINT64_C(5000)
#define NEVER_US            (UINT64_MAX / 4)
#define WARNINGS_PER_SECOND 2

struct deliver_flow {
    struct deliver_flow_options options;
    struct consumer_group *group;          /* the caller's */
    struct position_commit *commit;        /* owned */
    struct consumed_partition *partitions; /* owned; NULL: none are ours */
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

static void on_partition_error(
    struct deliver_flow *flow, struct consumed_partition *partition, rd_kafka_resp_err_t error)
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

static void read_records(struct deliver_flow *flow, struct consumed_partition *partition)
{
    rd_kafka_resp_err_t error = RD_KAFKA_RESP_ERR_NO_ERROR;
    size_t count = consumed_partition_read(partition, flow->batch_records, &error);
    scoreboard_add(&flow->options.slot->kafka_consumed, count);
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
        on_partition_error(flow, partition, error);
}

/* Sends the window's batch, which has been told that it is on its way; `mark` goes with one that
 * has no records, and may be NULL. */
static void dispatch(struct deliver_flow *flow, struct consumed_partition *partition,
    struct worker_peer *peer, bool is_refused, Userd__Ipc__RecordMark *mark)
{
    struct partition_window *window = &partition->window;
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
    header.record_below = mark;
    struct deliver_batch batch = {
        .header = &header,
        .records = partition->held,
        .count = window->in_flight,
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

static void send_batch(
    struct deliver_flow *flow, struct consumed_partition *partition, size_t count)
{
    struct worker_peer *peer = worker_peers_pick(flow->options.peers);
    if (peer == NULL)
        return; /* deliver_flow_on_worker_available() comes back to it */
    bool is_refused = partition_window_refuses_head(&partition->window);
    const rd_kafka_message_t *last = partition->held[count - 1].message;
    partition->last = log_mark_of(last);
    partition_window_sent(
        &partition->window, count, partition->held[0].message->offset, last->offset);
    dispatch(flow, partition, peer, is_refused, NULL);
}

/* Stores where reading starts, with what is known of the record below it. */
static void send_move(struct deliver_flow *flow, struct consumed_partition *partition)
{
    struct worker_peer *peer = worker_peers_pick(flow->options.peers);
    if (peer == NULL)
        return;
    const struct log_mark *known = &partition->log->last;
    Userd__Ipc__RecordMark mark;
    userd__ipc__record_mark__init(&mark);
    mark.offset = known->offset;
    mark.timestamp_ms = known->timestamp_ms;
    mark.checksum = known->checksum;
    partition_window_move_sent(&partition->window);
    bool is_known = known->offset >= 0 && known->offset + 1 == partition->window.move_to;
    dispatch(flow, partition, peer, false, is_known ? &mark : NULL);
}

static void pump(struct deliver_flow *flow, struct consumed_partition *partition)
{
    if (partition->window.phase == PARTITION_LOST)
        flow->must_relearn = true;
    if (partition->window.phase != PARTITION_READY || flow->is_draining)
        return;
    uint64_t now_us = monotonic_clock_turn_us(flow->options.event);
    if (partition_window_can_move(&partition->window, now_us))
        send_move(flow, partition);
    if (partition->window.phase != PARTITION_READY)
        return;
    if (partition->window.held == 0)
        read_records(flow, partition);
    size_t count = partition_window_batch_size(&partition->window, now_us);
    if (count > 0)
        send_batch(flow, partition, count);
}

/* Sends what has become due while others kept the loop busy: the one timer is set for somebody else
 * from here on. Returns when the next partition needs a look; UINT64_MAX: none does. */
static uint64_t pump_due(struct deliver_flow *flow)
{
    uint64_t now = monotonic_clock_turn_us(flow->options.event);
    uint64_t earliest = UINT64_MAX;
    for (size_t i = 0; i < flow->partition_count; i++) {
        struct consumed_partition *partition = &flow->partitions[i];
        if (consumed_partition_next_look_us(partition) <= now)
            pump(flow, partition);
        uint64_t look = consumed_partition_next_look_us(partition);
        /* Sendable, but no worker is there: that comes as an event. */
        bool is_waiting = partition->window.phase == PARTITION_READY && look <= now;
        if (!is_waiting && look < earliest)
            earliest = look;
    }
    return earliest;
}

/* After anything has happened: relearns if some position is lost, else sets the timer. */
static void settle(struct deliver_flow *flow)
{
    uint64_t next_look = pump_due(flow);
    if (flow->must_relearn) {
        flow->must_relearn = false;
        consumer_group_relearn(flow->group); /* calls deliver_flow_stop() */
        return;
    }
    if (next_look == UINT64_MAX)
        return;
    (void)sd_event_source_set_time(flow->retry, next_look);
    (void)sd_event_source_set_enabled(flow->retry, SD_EVENT_ONESHOT);
}

static void pump_all(struct deliver_flow *flow)
{
    for (size_t i = 0; i < flow->partition_count; i++)
        pump(flow, &flow->partitions[i]);
    settle(flow);
}

static void answered(
    struct deliver_flow *flow, struct consumed_partition *partition, enum partition_outcome outcome)
{
    size_t held = partition->window.held;
    bool is_move = partition->window.in_flight == 0;
    size_t done = partition_window_answered(
        &partition->window, outcome, monotonic_clock_turn_us(flow->options.event), arc4random());
    if (done > 0)
        consumed_partition_let_go(partition, done, held);
    if (outcome == PARTITION_APPLIED && is_move)
        audited_log_moved(partition->log, partition->window.position);
    else if (outcome == PARTITION_APPLIED)
        audited_log_applied(partition->log, &partition->last);
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
        struct consumed_partition *partition = &flow->partitions[i];
        if (partition->window.phase != PARTITION_IN_FLIGHT ||
            monotonic_clock_turn_us(flow->options.event) <
                partition->sent_us + CONSUMED_PARTITION_ANSWER_US)
            continue;
        log_warn("worker does not answer topic=%s partition=%" PRIi32 " position=%" PRIi64
                 ": sending the batch again",
            partition->topic, partition->number, partition->window.position);
        answered(flow, partition, PARTITION_UNAVAILABLE);
    }
    pump_all(flow);
    return 0;
}

static struct consumed_partition *find_batch(
    struct deliver_flow *flow, uint64_t serial, uint64_t batch_id)
{
    for (size_t i = 0; i < flow->partition_count; i++) {
        struct consumed_partition *partition = &flow->partitions[i];
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
    struct consumed_partition *partition = find_batch(flow, peer->serial, result->id);
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
        struct consumed_partition *partition = &flow->partitions[i];
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

/* ---- commits ---- */

/* The position is stored, and Kafka is not known to have it. */
static bool must_commit(const struct consumed_partition *partition)
{
    const struct partition_window *window = &partition->window;
    return !window->is_first && !window->must_move && window->position != partition->committed;
}

static void send_commit(struct deliver_flow *flow)
{
    rd_kafka_topic_partition_list_t *list =
        rd_kafka_topic_partition_list_new((int)flow->partition_count + 1);
    for (size_t i = 0; i < flow->partition_count; i++) {
        const struct consumed_partition *partition = &flow->partitions[i];
        if (must_commit(partition))
            position_commit_add(list, partition->topic, partition->number,
                partition->window.position, consumer_group_database(flow->group));
    }
    if (list->cnt > 0) {
        FAILPOINT("commit.before");
        position_commit_send(flow->commit, list);
        FAILPOINT("commit.after");
    }
    rd_kafka_topic_partition_list_destroy(list);
}

static void on_committed(const rd_kafka_topic_partition_t *committed, void *userdata)
{
    struct deliver_flow *flow = userdata;
    for (size_t i = 0; i < flow->partition_count; i++) {
        struct consumed_partition *partition = &flow->partitions[i];
        if (partition->number == committed->partition &&
            strcmp(partition->topic, committed->topic) == 0)
            partition->committed = committed->offset;
    }
}

void deliver_flow_commit(struct deliver_flow *flow)
{
    if (position_commit_is_ready(flow->commit))
        send_commit(flow);
}

static int on_commit_time(sd_event_source *source, uint64_t usec, void *userdata)
{
    (void)usec;
    deliver_flow_commit(userdata);
    (void)sd_event_source_set_time_relative(source, COMMIT_INTERVAL_US);
    (void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
    return 0;
}

bool deliver_flow_is_committed(const struct deliver_flow *flow)
{
    for (size_t i = 0; i < flow->partition_count; i++) {
        if (must_commit(&flow->partitions[i]))
            return false;
    }
    return true;
}

void deliver_flow_stop(struct deliver_flow *flow)
{
    send_commit(flow);
    for (size_t i = 0; i < flow->partition_count; i++)
        consumed_partition_close(&flow->partitions[i]);
    free(flow->partitions);
    flow->partitions = NULL;
    flow->partition_count = 0;
    flow->must_relearn = false;
}

void deliver_flow_start(
    struct deliver_flow *flow, const struct consumer_start *starts, size_t count)
{
    flow->partitions = calloc(count + 1, sizeof(*flow->partitions));
    if (flow->partitions == NULL) {
        log_error("no memory for partitions count=%zu: leaving", count);
        (void)sd_event_exit(flow->options.event, 1);
        return;
    }
    flow->partition_count = count;
    const struct consumed_partition_options options = {
        .consumer = flow->options.consumer,
        .registration_topic = flow->options.settings->kafka.registration_topic,
        .batch_records = flow->batch_records,
        .wake_fd = flow->wake_fd,
        .audit = flow->options.audit,
    };
    for (size_t i = 0; i < count; i++) {
        if (consumed_partition_open(&flow->partitions[i], &starts[i], &options) == 0)
            continue;
        log_error("partition cannot be opened topic=%s partition=%" PRIi32 ": leaving",
            starts[i].topic, starts[i].partition);
        (void)sd_event_exit(flow->options.event, 1);
    }
    /* A queue wakes us only when it ceases to be empty, and what an earlier assignment has left in
     * one keeps it from that: taken out, however old, it is in nobody's way. */
    (void)eventfd_write(flow->wake_fd, 1);
}

void deliver_flow_store_mark(struct deliver_flow *flow, const struct audited_log *log)
{
    for (size_t i = 0; i < flow->partition_count; i++) {
        struct consumed_partition *partition = &flow->partitions[i];
        if (partition->log == log && partition->window.position == log->last.offset + 1)
            partition_window_repeat(&partition->window);
    }
    pump_all(flow);
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
    const struct position_commit_options commit = {
        .event = options->event,
        .consumer = options->consumer,
        .slot = options->slot,
        .on_committed = on_committed,
        .userdata = flow,
    };
    flow->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int result = flow->wake_fd < 0 ? -errno : 0;
    if (result >= 0)
        result = position_commit_new(&commit, &flow->commit);
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
