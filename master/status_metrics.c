#include "master/status_metrics.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>

#include "common/monotonic_clock.h"
#include "master/metrics_histogram.h"
#include "master/status_report.h"

#define MICROSECONDS_PER_SECOND 1e6

/* One time series of each worker, or of eventd. Rows of one name stand together: the format wants
 * that. A second row of a name has no help. */
struct metric {
    const char *name;
    const char *label; /* in front of the worker's, or "" */
    const char *type;
    const char *help; /* NULL: goes on with the row before it */
    size_t offset;    /* of the uint64_t */
};

#define WORKER(member) offsetof(struct status_worker, member)
#define EVENTD(member) offsetof(struct status_eventd, member)

static const struct metric worker_metrics[] = {
    {"userd_connections", "", "gauge", "Client connections that are open.", WORKER(connections)},
    {"userd_connections_reset_total", "", "counter",
        "Connections that were reset for what their clients did.", WORKER(work.connections_reset)},
    {"userd_connections_idle_total", "", "counter",
        "Connections that were told to go because they were idle.", WORKER(work.connections_idle)},
    {"userd_connections_open_total", "", "counter",
        "Connections that were reset or told to go for requests that did not come.",
        WORKER(work.connections_open)},
    {"userd_open_requests", "", "gauge", "Requests that have begun and are not here.",
        WORKER(work.open_requests)},
    {"userd_calls_started_total", "", "counter", "Calls that have begun.", WORKER(calls.started)},
    {"userd_calls_total", "result=\"ok\",", "counter", "Calls that were answered.",
        WORKER(calls.ok)},
    {"userd_calls_total", "result=\"not_found\",", "counter", NULL, WORKER(calls.not_found)},
    {"userd_calls_total", "result=\"name_taken\",", "counter", NULL, WORKER(calls.name_taken)},
    {"userd_calls_total", "result=\"failed\",", "counter", NULL, WORKER(calls.failed)},
    {"userd_calls_total", "result=\"refused\",", "counter", NULL, WORKER(calls.refused)},
    {"userd_calls_total", "result=\"expired\",", "counter", NULL, WORKER(calls.expired)},
    {"userd_calls_total", "result=\"cancelled\",", "counter", NULL, WORKER(calls.cancelled)},
    {"userd_batches_total", "", "counter", "Batches sent to the database.", WORKER(work.batches)},
    {"userd_batched_requests_total", "", "counter", "Requests in those batches.",
        WORKER(work.batched_requests)},
    {"userd_outbox_published_total", "", "counter", "Outbox rows that the broker has acknowledged.",
        WORKER(work.outbox_published)},
    {"userd_outbox_parked_total", "", "counter", "Outbox rows that can never be published.",
        WORKER(work.outbox_parked)},
    {"userd_questions_waiting", "", "gauge",
        "Questions to the database that waited when the last batch was sent.",
        WORKER(work.questions_waiting)},
    {"userd_outbox_backlog", "", "gauge",
        "Outbox rows that wait: of the relay, and of the worker that measures.",
        WORKER(work.outbox_backlog)},
    {"userd_outbox_held", "", "gauge", "Outbox rows that the worker has in memory, as the relay.",
        WORKER(work.outbox_held)},
    {"userd_events_total", "effect=\"applied\",", "counter", "Consumed events that are in effect.",
        WORKER(work.events_applied)},
    {"userd_events_total", "effect=\"no_op\",", "counter", NULL, WORKER(work.events_no_op)},
    {"userd_events_total", "effect=\"dead_lettered\",", "counter", NULL,
        WORKER(work.events_dead_lettered)},
    {"userd_events_tombstoned_total", "", "counter", "Registrations of a deleted id.",
        WORKER(work.events_tombstoned)},
    {"userd_events_without_claim_total", "", "counter",
        "Registrations whose name is taken or breaks a rule.", WORKER(work.events_without_claim)},
};

static const struct metric eventd_metrics[] = {
    {"userd_kafka_produced_total", "", "counter", "Records that the broker has acknowledged.",
        EVENTD(produced)},
    {"userd_kafka_produce_errors_total", "", "counter", "Records that the broker has not taken.",
        EVENTD(errors)},
    {"userd_kafka_consumed_total", "", "counter", "Records read.", EVENTD(consumed)},
    {"userd_kafka_brokers", "", "gauge", "Brokers of the cluster.", EVENTD(brokers)},
    {"userd_kafka_brokers_up", "", "gauge", "Brokers that the producer is connected to.",
        EVENTD(brokers_up)},
    {"userd_kafka_produce_queue", "", "gauge", "Records that are not acknowledged yet.",
        EVENTD(produce_queue)},
    {"userd_kafka_fetch_queue", "", "gauge", "Records that are fetched and not read yet.",
        EVENTD(fetch_queue)},
    {"userd_kafka_log_recreated_total", "", "counter",
        "Partitions whose log was made anew, and which are read from their start.",
        EVENTD(log_recreated)},
    {"userd_kafka_foreign_progress_total", "", "counter",
        "Partitions in which another program had consumed further than userd.",
        EVENTD(foreign_progress)},
    {"userd_kafka_database_rollbacks_total", "", "counter",
        "Partitions that are read again because the database had gone back.",
        EVENTD(database_rollbacks)},
    {"userd_kafka_commit_errors_total", "", "counter", "Commits of offsets that failed.",
        EVENTD(commit_errors)},
    {"userd_kafka_lag_records", "", "gauge", "Records of our partitions that are not in effect.",
        EVENTD(lag)},
};

static void print_head(FILE *stream, const char *name, const char *type, const char *help)
{
    (void)fprintf(stream, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void print_single(
    FILE *stream, const char *name, const char *type, const char *help, double value)
{
    print_head(stream, name, type, help);
    (void)fprintf(stream, "%s %.15g\n", name, value);
}

static uint64_t value_at(const void *object, size_t offset)
{
    return *(const uint64_t *)(const void *)((const char *)object + offset);
}

static void print_workers(FILE *stream, const struct status_report *report)
{
    for (size_t i = 0; i < ARRAY_LENGTH(worker_metrics); i++) {
        const struct metric *metric = &worker_metrics[i];
        if (metric->help != NULL)
            print_head(stream, metric->name, metric->type, metric->help);
        for (size_t j = 0; j < report->worker_count; j++)
            (void)fprintf(stream, "%s{%sworker=\"%u\"} %" PRIu64 "\n", metric->name, metric->label,
                report->workers[j].slot, value_at(&report->workers[j], metric->offset));
    }
    print_head(stream, "userd_database_up", "gauge", "Whether the worker reaches the database.");
    for (size_t j = 0; j < report->worker_count; j++)
        (void)fprintf(stream, "userd_database_up{worker=\"%u\"} %d\n", report->workers[j].slot,
            report->workers[j].is_database_ready ? 1 : 0);
    print_head(stream, "userd_calls_in_progress", "gauge", "Calls that have no answer yet.");
    for (size_t j = 0; j < report->worker_count; j++)
        (void)fprintf(stream, "userd_calls_in_progress{worker=\"%u\"} %" PRIu64 "\n",
            report->workers[j].slot, status_report_in_progress(&report->workers[j].calls));
}

static void print_admission(FILE *stream, const struct status_admission *admission)
{
    static const char refused[] = "userd_connections_refused_total";
    print_head(stream, refused, "counter", "Connections that the master closed at once.");
    for (size_t i = 0; i < SCOREBOARD_REFUSALS; i++)
        (void)fprintf(stream, "%s{reason=\"%s\"} %" PRIu64 "\n", refused,
            status_report_refusal_name((enum scoreboard_refusal)i), admission->refused[i]);
    static const char bans[] = "userd_address_bans_total";
    print_head(stream, bans, "counter", "Bans of client addresses that have begun.");
    (void)fprintf(stream, "%s %" PRIu64 "\n", bans, admission->bans);
}

static void print_eventd(FILE *stream, const struct status_eventd *eventd)
{
    print_single(stream, "userd_eventd_up", "gauge", "Whether there is an eventd that is ready.",
        eventd->pid != 0 && eventd->state == PROCESS_READY ? 1 : 0);
    print_single(stream, "userd_kafka_up", "gauge", "Whether eventd is connected to Kafka.",
        eventd->is_connected ? 1 : 0);
    for (size_t i = 0; i < ARRAY_LENGTH(eventd_metrics); i++) {
        const struct metric *metric = &eventd_metrics[i];
        print_head(stream, metric->name, metric->type, metric->help);
        (void)fprintf(stream, "%s %" PRIu64 "\n", metric->name, value_at(eventd, metric->offset));
    }
    print_single(stream, "userd_kafka_round_trip_seconds", "gauge",
        "How long the slowest broker takes to answer (99 of 100 requests).",
        (double)eventd->round_trip_us / MICROSECONDS_PER_SECOND);
    if (eventd->lag_count > 0)
        print_head(stream, "userd_kafka_partition_lag_records", "gauge",
            "Records of a partition that are not in effect.");
    for (size_t i = 0; i < eventd->lag_count; i++)
        (void)fprintf(stream,
            "userd_kafka_partition_lag_records{topic=\"%s\",partition=\"%d\"} %" PRIu64 "\n",
            status_report_topic_name(eventd->lags[i].topic), eventd->lags[i].partition,
            eventd->lags[i].records);
}

static void print_up(FILE *stream, double value)
{
    print_single(stream, "userd_up", "gauge", "Whether the service answers.", value);
}

void status_metrics_print_absence(FILE *stream)
{
    print_up(stream, 0);
}

int status_metrics_print(
    FILE *stream, const Userd__Ipc__AdminResult *master, const struct scoreboard *scoreboard)
{
    struct status_report *report = calloc(1, sizeof(*report));
    if (report == NULL)
        return -ENOMEM;
    status_report_read(scoreboard, monotonic_clock_us(), report);
    print_up(stream, 1);
    print_head(stream, "userd_build_info", "gauge", "1, with the release of the running master.");
    (void)fprintf(stream, "userd_build_info{version=\"%s\"} 1\n", master->version);
    print_single(stream, "userd_start_time_seconds", "gauge",
        "When the master started, since 1970.",
        (double)master->started_at_us / MICROSECONDS_PER_SECOND);
    print_single(stream, "userd_generation", "gauge", "Of the configuration in force.",
        (double)master->generation);
    print_single(stream, "userd_workers_ready", "gauge", "Workers that take calls.",
        (double)report->ready_count);
    print_workers(stream, report);
    print_admission(stream, &report->admission);
    print_single(stream, "userd_outbox_oldest_seconds", "gauge",
        "Age of the oldest outbox row that waits.",
        (double)report->work.outbox_oldest_us / MICROSECONDS_PER_SECOND);
    print_single(stream, "userd_outbox_unrelayed_seconds", "gauge",
        "For how long no instance has been able to publish the outbox; 0: one is.",
        (double)report->work.outbox_unrelayed_us / MICROSECONDS_PER_SECOND);
    metrics_histogram_print_methods(stream, scoreboard);
    metrics_histogram_print_publishing(stream, scoreboard);
    print_eventd(stream, &report->eventd);
    free(report);
    return 0;
}
