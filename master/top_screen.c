#include "master/top_screen.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "master/service_notice.h"
#include "master/status_print.h"

#define LINE_SIZE 256
#define PLAIN     "0"
#define HEADING   "7" /* reversed */
#define WARNING   "33"
#define ALARM     "31"

struct paper {
    FILE *stream;
    const struct top_size *size;
    bool has_colour;
    unsigned int rows; /* that have been written */
};

/* Cut at the right edge; what does not fit below is left out. */
PRINTF_LIKE(3, 4) static void put(struct paper *paper, const char *colour, const char *format, ...)
{
    if (paper->rows >= paper->size->rows)
        return;
    char line[LINE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): it is initialised */
    (void)vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    int columns = (int)(paper->size->columns < LINE_SIZE ? paper->size->columns : LINE_SIZE - 1);
    bool has_colour = paper->has_colour && strcmp(colour, PLAIN) != 0;
    if (has_colour)
        (void)fprintf(paper->stream, "\033[%sm%.*s\033[0m\n", colour, columns, line);
    else
        (void)fprintf(paper->stream, "%.*s\n", columns, line);
    paper->rows++;
}

static uint64_t errors_of(const struct status_method *method)
{
    return method->calls - method->statuses[0];
}

static int compare(uint64_t one, uint64_t other)
{
    return (one < other) - (one > other);
}

/* Most first; names from A to Z. */
static int compare_methods(const void *one_pointer, const void *other_pointer, void *order_pointer)
{
    const struct status_method *one = one_pointer;
    const struct status_method *other = other_pointer;
    const struct top_view *view = order_pointer;
    int result = 0;
    switch (view->order) {
    case TOP_BY_RATE:
        result = compare(one->calls, other->calls);
        break;
    case TOP_BY_ERRORS:
        result = compare(errors_of(one), errors_of(other));
        break;
    case TOP_BY_MEDIAN:
        result = compare(status_methods_quantile_us(one->latency, 0.5),
            status_methods_quantile_us(other->latency, 0.5));
        break;
    case TOP_BY_P99:
        result = compare(status_methods_quantile_us(one->latency, 0.99),
            status_methods_quantile_us(other->latency, 0.99));
        break;
    case TOP_BY_NAME:
        break;
    }
    if (result == 0)
        result = strcmp(one->name, other->name);
    return view->is_reversed ? -result : result;
}

static const char *order_name(enum top_order order)
{
    static const char *const names[] = {"calls/s", "errors", "p50", "p99", "name"};
    return names[order];
}

static void put_summary(
    struct paper *paper, const Userd__Ipc__AdminResult *master, const struct status_report *report)
{
    char rate[SERVICE_NOTICE_NUMBER_SIZE];
    service_notice_format_number((uint64_t)(report->calls.per_second + 0.5), rate);
    put(paper, PLAIN,
        "userd: pid %u, generation %u, %zu of %zu workers ready, %" PRIu64
        " connections, %s calls/s, %" PRIu64 " in progress",
        master->master_pid, master->generation, report->ready_count, report->worker_count,
        report->connections, rate, status_report_in_progress(&report->calls));
    const struct status_eventd *eventd = &report->eventd;
    char oldest[STATUS_PRINT_DURATION_SIZE];
    status_print_format_duration(report->work.outbox_oldest_us, oldest);
    bool is_behind = eventd->pid == 0 || !eventd->is_connected;
    put(paper, is_behind ? ALARM : PLAIN,
        "Kafka %s, lag %" PRIu64 ", %.0f read/s, %.0f sent/s; outbox %" PRIu64 ", oldest %s",
        eventd->pid == 0 ? "without eventd" : (eventd->is_connected ? "connected" : "away"),
        eventd->lag, eventd->consumed_per_second, eventd->produced_per_second,
        report->work.outbox_backlog, oldest);
}

static void put_methods(
    struct paper *paper, const struct top_view *view, struct status_methods *methods)
{
    qsort_r(methods->rows, methods->count, sizeof(methods->rows[0]), compare_methods,
        borrow_const(view));
    put(paper, HEADING, "%-28s %9s %8s %10s %10s %10s", "METHOD", "CALLS/S", "ERRORS", "AVERAGE",
        "P50", "P99");
    for (size_t i = 0; i < methods->count; i++) {
        const struct status_method *method = &methods->rows[i];
        char average[STATUS_PRINT_DURATION_SIZE] = "-";
        char median[STATUS_PRINT_DURATION_SIZE] = "-";
        char slow[STATUS_PRINT_DURATION_SIZE] = "-";
        if (method->calls > 0) {
            status_print_format_duration(method->latency_sum_us / method->calls, average);
            status_print_format_duration(status_methods_quantile_us(method->latency, 0.5), median);
            status_print_format_duration(status_methods_quantile_us(method->latency, 0.99), slow);
        }
        put(paper, errors_of(method) > 0 ? WARNING : PLAIN,
            "%-28s %9.0f %8" PRIu64 " %10s %10s %10s", method->name, method->per_second,
            errors_of(method), average, median, slow);
    }
}

static void put_workers(struct paper *paper, const struct status_report *report)
{
    put(paper, HEADING, "%4s %8s %-8s %4s %6s %9s %8s %8s %-8s %s", "SLOT", "PID", "STATE", "GEN",
        "CONNS", "CALLS/S", "PROGRESS", "REQ/B", "DATABASE", "RELAY");
    for (size_t i = 0; i < report->worker_count; i++) {
        const struct status_worker *worker = &report->workers[i];
        const struct status_work *work = &worker->work;
        double batch =
            work->batches == 0 ? 0 : (double)work->batched_requests / (double)work->batches;
        put(paper, worker->is_database_ready ? PLAIN : ALARM,
            "%4u %8u %-8s %4u %6" PRIu64 " %9.0f %8" PRIu64 " %8.1f %-8s %s", worker->slot,
            worker->pid, status_report_state_name(worker->state), worker->generation,
            worker->connections, worker->calls.per_second,
            status_report_in_progress(&worker->calls), batch,
            worker->is_database_ready ? "ready" : "away", worker->is_relay ? "yes" : "-");
    }
}

static void put_help(struct paper *paper, const struct top_view *view)
{
    put(paper, HEADING,
        "q quit  space %s  +/- every %g s  sort by %s: c calls/s, e errors, m p50, p p99, n name, "
        "r "
        "reverse",
        view->is_paused ? "GO ON" : "pause", view->interval_ms / 1000.0, order_name(view->order));
}

void top_screen_print(FILE *stream, const struct top_size *size, const struct top_view *view,
    const Userd__Ipc__AdminResult *master, struct status_report *report)
{
    struct paper paper = {.stream = stream, .size = size, .has_colour = view->has_colour};
    put_summary(&paper, master, report);
    put_help(&paper, view);
    put(&paper, PLAIN, "%s", "");
    put_methods(&paper, view, &report->methods);
    put(&paper, PLAIN, "%s", "");
    put_workers(&paper, report);
}

void top_screen_print_absence(
    FILE *stream, const struct top_size *size, const struct top_view *view, const char *reason)
{
    struct paper paper = {.stream = stream, .size = size, .has_colour = view->has_colour};
    put(&paper, ALARM, "userd: %s; waiting", reason);
    put_help(&paper, view);
}
