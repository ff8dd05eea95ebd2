#include "master/status_print.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <time.h>

#define MICROSECONDS_PER_SECOND UINT64_C(1000000)
#define TIME_SIZE               32
#define MICROSECONDS_PER_MS     1000
#define JSON_REAL_DIGITS        10

/* --- for people --- */

static double requests_per_batch(const struct status_work *work)
{
    return work->batches == 0 ? 0 : (double)work->batched_requests / (double)work->batches;
}

static void format_start(uint64_t started_at_us, char ret_text[TIME_SIZE])
{
    time_t seconds = (time_t)(started_at_us / MICROSECONDS_PER_SECOND);
    struct tm parts = {0};
    if (localtime_r(&seconds, &parts) == NULL ||
        strftime(ret_text, TIME_SIZE, "%Y-%m-%d %H:%M:%S %z", &parts) == 0)
        (void)snprintf(ret_text, TIME_SIZE, "?");
}

/* "3 d 4 h", "5 min 12 s": two units are enough. */
static void format_span(uint64_t seconds, char ret_text[TIME_SIZE])
{
    static const struct {
        uint64_t seconds;
        const char *name;
    } units[] = {{86400, "d"}, {3600, "h"}, {60, "min"}, {1, "s"}};
    size_t first = 0;
    while (first + 1 < ARRAY_LENGTH(units) && seconds < units[first].seconds)
        first++;
    uint64_t count = seconds / units[first].seconds;
    if (first + 1 == ARRAY_LENGTH(units))
        (void)snprintf(ret_text, TIME_SIZE, "%" PRIu64 " s", count);
    else
        (void)snprintf(ret_text, TIME_SIZE, "%" PRIu64 " %s %" PRIu64 " %s", count,
            units[first].name, seconds % units[first].seconds / units[first + 1].seconds,
            units[first + 1].name);
}

static uint64_t seconds_since(uint64_t moment_us)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_REALTIME, &now);
    uint64_t now_us = (uint64_t)now.tv_sec * MICROSECONDS_PER_SECOND;
    return now_us > moment_us ? (now_us - moment_us) / MICROSECONDS_PER_SECOND : 0;
}

static void print_absence(
    FILE *stream, const char *what, uint32_t slot, const struct status_absence *absence)
{
    char since[TIME_SIZE];
    char span[TIME_SIZE];
    if (absence->since_us == 0)
        return;
    format_start(absence->since_us, since);
    format_span(seconds_since(absence->since_us), span);
    (void)fprintf(stream, "%s away for %s (slot %u), since %s: %s\n", what, span, slot, since,
        absence->reason);
}

static void print_calls(
    FILE *stream, uint64_t connections, const struct status_calls *calls, const char *database)
{
    (void)fprintf(stream,
        " %6" PRIu64 " %10" PRIu64 " %10" PRIu64 " %9" PRIu64 " %10" PRIu64 " %8" PRIu64
        " %8" PRIu64 " %8" PRIu64 " %9" PRIu64 " %9.0f  %-8s",
        connections, calls->started, calls->ok, calls->not_found, calls->name_taken, calls->failed,
        calls->refused, calls->expired, calls->cancelled, calls->per_second, database);
}

static void print_worker(FILE *stream, const struct status_worker *worker)
{
    (void)fprintf(stream, "%4u %8u %-8s %3u", worker->slot, worker->pid,
        status_report_state_name(worker->state), worker->generation);
    print_calls(
        stream, worker->connections, &worker->calls, worker->is_database_ready ? "ready" : "away");
    (void)fprintf(stream, " %9" PRIu64 " %6.1f  %s\n", worker->work.batches,
        requests_per_batch(&worker->work), worker->is_relay ? "yes" : "-");
}

void status_print_format_duration(uint64_t duration_us, char ret_text[STATUS_PRINT_DURATION_SIZE])
{
    if (duration_us < MICROSECONDS_PER_MS)
        (void)snprintf(ret_text, STATUS_PRINT_DURATION_SIZE, "%" PRIu64 " us", duration_us);
    else if (duration_us < MICROSECONDS_PER_SECOND)
        (void)snprintf(ret_text, STATUS_PRINT_DURATION_SIZE, "%.3g ms",
            (double)duration_us / MICROSECONDS_PER_MS);
    else
        (void)snprintf(ret_text, STATUS_PRINT_DURATION_SIZE, "%.3g s",
            (double)duration_us / MICROSECONDS_PER_SECOND);
}

static void print_methods(FILE *stream, const struct status_methods *methods)
{
    (void)fprintf(stream, "\n%-32s %10s %10s %9s %10s %10s %10s\n", "method", "calls", "ok",
        "calls/s", "average", "p50", "p99");
    for (size_t i = 0; i < methods->count; i++) {
        const struct status_method *method = &methods->rows[i];
        char average[STATUS_PRINT_DURATION_SIZE];
        char median[STATUS_PRINT_DURATION_SIZE];
        char slow[STATUS_PRINT_DURATION_SIZE];
        status_print_format_duration(
            method->calls == 0 ? 0 : method->latency_sum_us / method->calls, average);
        status_print_format_duration(status_methods_quantile_us(method->latency, 0.5), median);
        status_print_format_duration(status_methods_quantile_us(method->latency, 0.99), slow);
        (void)fprintf(stream, "%-32s %10" PRIu64 " %10" PRIu64 " %9.0f %10s %10s %10s\n",
            method->name, method->calls, method->statuses[0], method->per_second, average, median,
            slow);
    }
}

static void print_outbox(FILE *stream, const struct status_work *work)
{
    if (work->outbox_unrelayed_us == 0)
        return;
    (void)fprintf(stream,
        "outbox: nobody relays it since %" PRIu64 " s, oldest row %" PRIu64 " s\n",
        work->outbox_unrelayed_us / MICROSECONDS_PER_SECOND,
        work->outbox_oldest_us / MICROSECONDS_PER_SECOND);
}

static void print_eventd(FILE *stream, const struct status_report *report)
{
    const struct status_eventd *eventd = &report->eventd;
    if (eventd->pid == 0) {
        (void)fprintf(
            stream, "\neventd: absent, outbox backlog %" PRIu64 "\n", report->work.outbox_backlog);
        return;
    }
    (void)fprintf(stream,
        "\neventd: pid %u, %s, generation %u, Kafka %s, produced %" PRIu64 ", consumed %" PRIu64
        ", errors %" PRIu64 ", lag %" PRIu64 ", outbox backlog %" PRIu64 "\n",
        eventd->pid, status_report_state_name(eventd->state), eventd->generation,
        eventd->is_connected ? "connected" : "away", eventd->produced, eventd->consumed,
        eventd->errors, eventd->lag, report->work.outbox_backlog);
}

void status_print_table(
    FILE *stream, const Userd__Ipc__AdminResult *master, const struct status_report *report)
{
    char start[TIME_SIZE];
    format_start(master->started_at_us, start);
    char uptime[TIME_SIZE];
    format_span(seconds_since(master->started_at_us), uptime);
    (void)fprintf(stream, "userd %s: pid %u, generation %u, up for %s, since %s\n", master->version,
        master->master_pid, master->generation, uptime, start);
    for (size_t i = 0; i < master->n_listeners; i++)
        (void)fprintf(
            stream, "listener %s: %s\n", master->listeners[i]->name, master->listeners[i]->address);
    uint64_t refused = 0;
    for (size_t i = 0; i < SCOREBOARD_REFUSALS; i++)
        refused += report->admission.refused[i];
    if (refused > 0 || report->admission.bans > 0)
        (void)fprintf(stream, "connections refused: %" PRIu64 ", address bans: %" PRIu64 "\n",
            refused, report->admission.bans);
    (void)fprintf(stream,
        "\nslot      pid state    gen  conns    started         ok not-found name-taken   failed"
        "  refused  expired cancelled   calls/s  database   batches  req/b  relay\n");
    for (size_t i = 0; i < report->worker_count; i++)
        print_worker(stream, &report->workers[i]);
    (void)fprintf(stream, "%-26s", "total");
    print_calls(stream, report->connections, &report->calls, "");
    (void)fprintf(stream, " %9" PRIu64 " %6.1f  %s\n", report->work.batches,
        requests_per_batch(&report->work), report->has_relay ? "yes" : "-");
    for (size_t i = 0; i < report->worker_count; i++)
        print_absence(stream, "database", report->workers[i].slot, &report->workers[i].absence);
    print_methods(stream, &report->methods);
    print_eventd(stream, report);
    print_outbox(stream, &report->work);
    print_absence(stream, "Kafka", SCOREBOARD_SLOT_EVENTD, &report->eventd.absence);
}

/* --- for programs: docs/OPERATIONS.md lists the names, which stay --- */

/* Takes `value`. A NULL value, for want of memory, shows in the object: it is then not complete. */
static int set(json_t *object, const char *name, json_t *value)
{
    return json_object_set_new(object, name, value);
}

static int set_count(json_t *object, const char *name, uint64_t count)
{
    return set(object, name, json_integer((json_int_t)count));
}

struct named_count {
    const char *name;
    uint64_t count;
};

static int set_counts(json_t *object, const struct named_count *counts, size_t length)
{
    int result = 0;
    for (size_t i = 0; i < length; i++)
        result |= set_count(object, counts[i].name, counts[i].count);
    return result;
}

static int set_activity(json_t *object, uint64_t connections, const struct status_calls *calls,
    const struct status_work *work)
{
    const struct named_count call_counts[] = {{"started", calls->started}, {"ok", calls->ok},
        {"not_found", calls->not_found}, {"name_taken", calls->name_taken},
        {"failed", calls->failed}, {"refused", calls->refused}, {"expired", calls->expired},
        {"cancelled", calls->cancelled}};
    const struct named_count event_counts[] = {{"applied", work->events_applied},
        {"no_op", work->events_no_op}, {"tombstoned", work->events_tombstoned},
        {"without_claim", work->events_without_claim},
        {"dead_lettered", work->events_dead_lettered}};
    const struct named_count outbox_counts[] = {{"published", work->outbox_published},
        {"parked", work->outbox_parked}, {"backlog", work->outbox_backlog},
        {"oldest_us", work->outbox_oldest_us}, {"unrelayed_us", work->outbox_unrelayed_us}};
    json_t *call_object = json_object();
    json_t *event_object = json_object();
    json_t *outbox_object = json_object();
    int result = set_counts(call_object, call_counts, ARRAY_LENGTH(call_counts));
    result |= set(call_object, "per_second", json_real(calls->per_second));
    result |= set_count(call_object, "in_progress", status_report_in_progress(calls));
    result |= set_counts(event_object, event_counts, ARRAY_LENGTH(event_counts));
    result |= set_counts(outbox_object, outbox_counts, ARRAY_LENGTH(outbox_counts));
    result |= set_count(object, "connections", connections);
    result |= set_count(object, "connections_reset", work->connections_reset);
    result |= set_count(object, "connections_idle", work->connections_idle);
    result |= set_count(object, "connections_open", work->connections_open);
    result |= set_count(object, "open_requests", work->open_requests);
    result |= set(object, "calls", call_object);
    result |= set_count(object, "batches", work->batches);
    result |= set_count(object, "batched_requests", work->batched_requests);
    result |= set_count(object, "questions_waiting", work->questions_waiting);
    result |= set(object, "events", event_object);
    result |= set(object, "outbox", outbox_object);
    return result;
}

/* null while it is there. */
static int set_absence(json_t *object, const char *name, const struct status_absence *absence)
{
    if (absence->since_us == 0)
        return set(object, name, json_null());
    json_t *group = json_object();
    int result =
        set(group, "since", json_real((double)absence->since_us / (double)MICROSECONDS_PER_SECOND));
    result |= set(group, "reason", json_string(absence->reason));
    return result | set(object, name, group);
}

static int append_worker(json_t *workers, const struct status_worker *worker)
{
    json_t *object = json_object();
    int result = set_count(object, "slot", worker->slot);
    result |= set_count(object, "pid", worker->pid);
    result |= set(object, "state", json_string(status_report_state_name(worker->state)));
    result |= set_count(object, "generation", worker->generation);
    result |= set(object, "database_ready", json_boolean(worker->is_database_ready));
    result |= set_absence(object, "database_away", &worker->absence);
    result |= set(object, "relay", json_boolean(worker->is_relay));
    result |= set_activity(object, worker->connections, &worker->calls, &worker->work);
    return result | json_array_append_new(workers, object);
}

static int set_admission(json_t *object, const struct status_admission *admission)
{
    json_t *refused = json_object();
    int result = set_count(object, "address_bans", admission->bans);
    for (size_t i = 0; i < SCOREBOARD_REFUSALS; i++)
        result |= set_count(
            refused, status_report_refusal_name((enum scoreboard_refusal)i), admission->refused[i]);
    return result | set(object, "connections_refused", refused);
}

static int set_master(
    json_t *root, const Userd__Ipc__AdminResult *master, const struct status_admission *admission)
{
    json_t *group = json_object();
    json_t *listeners = json_array();
    int result = set_count(group, "pid", master->master_pid);
    result |= set(group, "version", json_string(master->version));
    result |= set_count(group, "uptime_s", seconds_since(master->started_at_us));
    result |= set_count(group, "generation", master->generation);
    result |= set(group, "started_at",
        json_real((double)master->started_at_us / (double)MICROSECONDS_PER_SECOND));
    for (size_t i = 0; i < master->n_listeners; i++) {
        json_t *listener = json_object();
        result |= set(listener, "name", json_string(master->listeners[i]->name));
        result |= set(listener, "address", json_string(master->listeners[i]->address));
        result |= json_array_append_new(listeners, listener);
    }
    result |= set(group, "listeners", listeners);
    result |= set_admission(group, admission);
    return result | set(root, "master", group);
}

static int set_eventd(json_t *root, const struct status_eventd *eventd)
{
    if (eventd->pid == 0)
        return set(root, "eventd", json_null());
    json_t *group = json_object();
    int result = set_count(group, "pid", eventd->pid);
    result |= set(group, "state", json_string(status_report_state_name(eventd->state)));
    result |= set_count(group, "generation", eventd->generation);
    result |= set(group, "connected", json_boolean(eventd->is_connected));
    result |= set_absence(group, "kafka_away", &eventd->absence);
    result |= set_count(group, "produced", eventd->produced);
    result |= set_count(group, "consumed", eventd->consumed);
    const struct named_count counts[] = {{"errors", eventd->errors}, {"lag", eventd->lag},
        {"brokers", eventd->brokers}, {"brokers_up", eventd->brokers_up},
        {"round_trip_us", eventd->round_trip_us}, {"produce_queue", eventd->produce_queue},
        {"fetch_queue", eventd->fetch_queue}, {"log_recreated", eventd->log_recreated},
        {"foreign_progress", eventd->foreign_progress},
        {"database_rollbacks", eventd->database_rollbacks},
        {"commit_errors", eventd->commit_errors}};
    result |= set_counts(group, counts, ARRAY_LENGTH(counts));
    result |= set(group, "produced_per_second", json_real(eventd->produced_per_second));
    result |= set(group, "consumed_per_second", json_real(eventd->consumed_per_second));
    json_t *lags = json_array();
    for (size_t i = 0; i < eventd->lag_count; i++) {
        json_t *lag = json_object();
        result |= set(lag, "topic", json_string(status_report_topic_name(eventd->lags[i].topic)));
        result |= set(lag, "partition", json_integer(eventd->lags[i].partition));
        result |= set_count(lag, "records", eventd->lags[i].records);
        result |= json_array_append_new(lags, lag);
    }
    result |= set(group, "lags", lags);
    return result | set(root, "eventd", group);
}

static int append_method(json_t *methods, const struct status_method *method)
{
    json_t *object = json_object();
    json_t *statuses = json_object();
    int result = set(object, "name", json_string(method->name));
    result |= set_count(object, "calls", method->calls);
    result |= set(object, "per_second", json_real(method->per_second));
    for (size_t i = 0; i < SCOREBOARD_STATUSES; i++)
        if (method->statuses[i] > 0)
            result |= set_count(statuses, status_methods_status_name(i), method->statuses[i]);
    const struct named_count counts[] = {{"latency_sum_us", method->latency_sum_us},
        {"p50_us", status_methods_quantile_us(method->latency, 0.5)},
        {"p90_us", status_methods_quantile_us(method->latency, 0.9)},
        {"p99_us", status_methods_quantile_us(method->latency, 0.99)},
        {"p999_us", status_methods_quantile_us(method->latency, 0.999)}};
    result |= set(object, "statuses", statuses);
    result |= set_counts(object, counts, ARRAY_LENGTH(counts));
    return result | json_array_append_new(methods, object);
}

int status_print_json(
    FILE *stream, const Userd__Ipc__AdminResult *master, const struct status_report *report)
{
    json_t *root = json_object();
    json_t *workers = json_array();
    json_t *methods = json_array();
    json_t *totals = json_object();
    int result = set_count(root, "scoreboard_version", SCOREBOARD_VERSION);
    result |= set_master(root, master, &report->admission);
    for (size_t i = 0; i < report->worker_count; i++)
        result |= append_worker(workers, &report->workers[i]);
    result |= set(root, "workers", workers);
    for (size_t i = 0; i < report->methods.count; i++)
        result |= append_method(methods, &report->methods.rows[i]);
    result |= set(root, "methods", methods);
    result |= set_eventd(root, &report->eventd);
    result |= set_count(totals, "workers_ready", report->ready_count);
    result |= set_activity(totals, report->connections, &report->calls, &report->work);
    result |= set(root, "totals", totals);
    if (result == 0)
        (void)(json_dumpf(root, stream, JSON_INDENT(2) | JSON_REAL_PRECISION(JSON_REAL_DIGITS)) +
               fputc('\n', stream));
    json_decref(root);
    return result == 0 ? 0 : -ENOMEM;
}
