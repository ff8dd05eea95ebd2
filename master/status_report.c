#include "master/status_report.h"

#include <string.h>

#include "common/printable.h"

#define MICROSECONDS_PER_SECOND 1e6

static uint64_t get(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static uint32_t get_small(const _Atomic uint32_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static enum process_state read_state(const struct scoreboard_slot *slot)
{
    uint32_t state = get_small(&slot->state);
    return state <= PROCESS_DRAINING ? (enum process_state)state : PROCESS_ABSENT;
}

/* Both counters run over at 2^32 together; a `closed` that was read later than its `passed` must
 * not look like four billion. */
static uint64_t count_connections(
    const struct scoreboard_slot *slot, const struct scoreboard_master_row *row)
{
    uint64_t connections = 0;
    for (size_t i = 0; i < SETTINGS_MAX_LISTENERS; i++) {
        uint32_t closed = get_small(&slot->closed[i]);
        int32_t living = (int32_t)(get_small(&row->passed[i]) - closed);
        connections += living > 0 ? (uint64_t)living : 0;
    }
    return connections;
}

static struct status_absence read_absence(const struct scoreboard_slot *slot)
{
    struct status_absence absence = {0};
    char reason[SCOREBOARD_REASON_SIZE];
    scoreboard_absence_read(&slot->absence, &absence.since_us, reason);
    (void)printable_copy(reason, absence.reason, sizeof(absence.reason));
    return absence;
}

static void read_worker(
    const struct scoreboard *scoreboard, uint32_t number, struct status_worker *ret_worker)
{
    const struct scoreboard_slot *slot = &scoreboard->slots[number];
    *ret_worker = (struct status_worker){
        .slot = number,
        .pid = get_small(&slot->pid),
        .generation = get_small(&slot->generation),
        .state = read_state(slot),
        .is_database_ready = get_small(&slot->is_database_ready) != 0,
        .is_relay = get(&slot->is_relay) != 0,
        .absence = read_absence(slot),
        .connections = count_connections(slot, &scoreboard->master[number]),
        .calls = {.started = get(&slot->calls_started),
            .ok = get(&slot->calls_ok),
            .not_found = get(&slot->calls_not_found),
            .name_taken = get(&slot->calls_conflicted),
            .failed = get(&slot->calls_failed),
            .refused = get(&slot->calls_refused),
            .expired = get(&slot->calls_expired),
            .cancelled = get(&slot->calls_cancelled)},
        .work = {.connections_reset = get(&slot->connections_reset),
            .connections_idle = get(&slot->connections_idle),
            .connections_open = get(&slot->connections_open),
            .open_requests = get(&slot->open_requests),
            .batches = get(&slot->batches),
            .batched_requests = get(&slot->batched_requests),
            .questions_waiting = get(&slot->questions_waiting),
            .outbox_published = get(&slot->outbox_published),
            .outbox_parked = get(&slot->outbox_parked),
            .events_applied = get(&slot->events_applied),
            .events_no_op = get(&slot->events_no_op),
            .events_tombstoned = get(&slot->events_tombstoned),
            .events_without_claim = get(&slot->events_without_claim),
            .events_dead_lettered = get(&slot->events_dead_lettered)},
    };
    ret_worker->work.outbox_backlog = get(&slot->outbox_backlog);
    ret_worker->work.outbox_held = get(&slot->outbox_held);
    ret_worker->work.outbox_oldest_us = get(&slot->outbox_oldest_us);
    ret_worker->work.outbox_unrelayed_us = get(&slot->outbox_unrelayed_us);
}

static void read_eventd(const struct scoreboard *scoreboard, struct status_eventd *ret_eventd)
{
    const struct scoreboard_slot *slot = &scoreboard->slots[SCOREBOARD_SLOT_EVENTD];
    *ret_eventd = (struct status_eventd){
        .pid = get_small(&slot->pid),
        .generation = get_small(&slot->generation),
        .state = read_state(slot),
        .is_connected = get(&slot->kafka_is_connected) != 0,
        .absence = read_absence(slot),
        .produced = get(&slot->kafka_produced),
        .consumed = get(&slot->kafka_consumed),
        .errors = get(&slot->kafka_produce_errors),
        .brokers = get(&slot->kafka_brokers),
        .brokers_up = get(&slot->kafka_brokers_up),
        .round_trip_us = get(&slot->kafka_round_trip_us),
        .produce_queue = get(&slot->kafka_produce_queue),
        .fetch_queue = get(&slot->kafka_fetch_queue),
        .log_recreated = get(&slot->kafka_log_recreated),
        .foreign_progress = get(&slot->kafka_foreign_progress),
        .database_rollbacks = get(&slot->kafka_database_rollbacks),
        .commit_errors = get(&slot->kafka_commit_errors),
        .lag = get(&slot->kafka_lag),
    };
    for (size_t i = 0; i < SCOREBOARD_LAGS; i++) {
        const struct scoreboard_lag *row = &slot->kafka_lags[i];
        uint32_t topic = get_small(&row->topic);
        if (topic != SCOREBOARD_TOPIC_REGISTRATION && topic != SCOREBOARD_TOPIC_ADMIN_DELETE)
            continue;
        ret_eventd->lags[ret_eventd->lag_count++] =
            (struct status_lag){.topic = (enum scoreboard_topic)topic,
                .partition = atomic_load_explicit(&row->partition, memory_order_relaxed),
                .records = get(&row->records)};
    }
}

static void add_calls(struct status_calls *total, const struct status_calls *part)
{
    total->started += part->started;
    total->ok += part->ok;
    total->not_found += part->not_found;
    total->name_taken += part->name_taken;
    total->failed += part->failed;
    total->refused += part->refused;
    total->expired += part->expired;
    total->cancelled += part->cancelled;
}

static void add_work(struct status_work *total, const struct status_work *part)
{
    total->connections_reset += part->connections_reset;
    total->connections_idle += part->connections_idle;
    total->connections_open += part->connections_open;
    total->open_requests += part->open_requests;
    total->batches += part->batches;
    total->batched_requests += part->batched_requests;
    total->outbox_published += part->outbox_published;
    total->outbox_parked += part->outbox_parked;
    total->questions_waiting += part->questions_waiting;
    total->events_applied += part->events_applied;
    total->events_no_op += part->events_no_op;
    total->events_tombstoned += part->events_tombstoned;
    total->events_without_claim += part->events_without_claim;
    total->events_dead_lettered += part->events_dead_lettered;
}

/* It is one outbox, whoever looks at it: the relay knows best. */
static void set_outbox_totals(struct status_report *report)
{
    struct status_work *total = &report->work;
    for (size_t i = 0; i < report->worker_count; i++) {
        const struct status_work *part = &report->workers[i].work;
        if (part->outbox_unrelayed_us > total->outbox_unrelayed_us)
            total->outbox_unrelayed_us = part->outbox_unrelayed_us;
        if (report->has_relay && !report->workers[i].is_relay)
            continue;
        if (part->outbox_backlog > total->outbox_backlog)
            total->outbox_backlog = part->outbox_backlog;
        if (part->outbox_oldest_us > total->outbox_oldest_us)
            total->outbox_oldest_us = part->outbox_oldest_us;
    }
}

void status_report_read(
    const struct scoreboard *scoreboard, uint64_t now_us, struct status_report *ret_report)
{
    struct status_report *report = ret_report;
    memset(report, 0, sizeof(*report));
    report->taken_at_us = now_us;
    read_eventd(scoreboard, &report->eventd);
    for (size_t i = 0; i < SCOREBOARD_REFUSALS; i++)
        report->admission.refused[i] = get(&scoreboard->admission.refused[i]);
    report->admission.bans = get(&scoreboard->admission.bans);
    for (uint32_t slot = SCOREBOARD_SLOT_EVENTD + 1; slot < SCOREBOARD_SLOTS; slot++) {
        struct status_worker *worker = &report->workers[report->worker_count];
        read_worker(scoreboard, slot, worker);
        if (worker->pid == 0)
            continue;
        report->worker_count++;
        report->ready_count += worker->state == PROCESS_READY ? 1 : 0;
        report->has_relay = report->has_relay || worker->is_relay;
        report->connections += worker->connections;
        add_calls(&report->calls, &worker->calls);
        add_work(&report->work, &worker->work);
        status_methods_add(&report->methods, &scoreboard->slots[slot]);
    }
    set_outbox_totals(report);
}

static const struct status_worker *find_same(
    const struct status_report *report, const struct status_worker *worker)
{
    for (size_t i = 0; i < report->worker_count; i++)
        if (report->workers[i].slot == worker->slot && report->workers[i].pid == worker->pid)
            return &report->workers[i];
    return NULL;
}

void status_report_set_rates(struct status_report *report, const struct status_report *earlier)
{
    report->calls.per_second = 0;
    if (report->taken_at_us <= earlier->taken_at_us)
        return;
    double seconds = (double)(report->taken_at_us - earlier->taken_at_us) / MICROSECONDS_PER_SECOND;
    for (size_t i = 0; i < report->worker_count; i++) {
        struct status_worker *worker = &report->workers[i];
        const struct status_worker *before = find_same(earlier, worker);
        uint64_t base = before != NULL ? before->calls.started : 0;
        uint64_t calls = worker->calls.started > base ? worker->calls.started - base : 0;
        worker->calls.per_second = (double)calls / seconds;
        report->calls.per_second += worker->calls.per_second;
    }
    status_methods_set_rates(&report->methods, &earlier->methods, seconds);
    struct status_eventd *eventd = &report->eventd;
    bool is_same = eventd->pid == earlier->eventd.pid;
    uint64_t produced = is_same ? earlier->eventd.produced : 0;
    uint64_t consumed = is_same ? earlier->eventd.consumed : 0;
    eventd->produced_per_second = (double)(eventd->produced - produced) / seconds;
    eventd->consumed_per_second = (double)(eventd->consumed - consumed) / seconds;
}

uint64_t status_report_in_progress(const struct status_calls *calls)
{
    uint64_t over = calls->ok + calls->not_found + calls->name_taken + calls->failed +
                    calls->refused + calls->expired + calls->cancelled;
    return calls->started > over ? calls->started - over : 0;
}

const char *status_report_topic_name(enum scoreboard_topic topic)
{
    return topic == SCOREBOARD_TOPIC_REGISTRATION ? "registration" : "admin_delete";
}

const char *status_report_state_name(enum process_state state)
{
    static const char *const names[] = {"absent", "starting", "ready", "draining"};
    return names[state];
}

const char *status_report_refusal_name(enum scoreboard_refusal refusal)
{
    static const char *const names[] = {
        [SCOREBOARD_REFUSAL_BANNED] = "banned",
        [SCOREBOARD_REFUSAL_RATE] = "rate",
        [SCOREBOARD_REFUSAL_TOTAL] = "total",
        [SCOREBOARD_REFUSAL_RESERVED] = "reserved",
        [SCOREBOARD_REFUSAL_ADDRESS] = "address",
        [SCOREBOARD_REFUSAL_NO_WORKER] = "no_worker",
    };
    return names[refusal];
}
