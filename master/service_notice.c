#include "master/service_notice.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#include "common/log.h"
#include "common/monotonic_clock.h"
#include "master/status_report.h"

#define TICK_US           UINT64_C(1000000)
#define TIMER_ACCURACY_US 50000
#define EXTENSION_US      UINT64_C(5000000) /* asked for at each tick: several may be late */
#define LINE_SIZE         160

struct service_notice {
    sd_event_source *timer; /* owned */
    uint64_t tick_us;
    const struct scoreboard *scoreboard;
    bool (*is_answering)(void *userdata);
    void *userdata;
    bool is_watched; /* the manager has a watchdog on us */
    bool is_ready;
    bool is_stopping;
    bool is_fixed; /* the line does not change any more */
    struct status_report report;
    char line[LINE_SIZE]; /* what was said last */
};

void service_notice_format_number(uint64_t number, char ret_text[SERVICE_NOTICE_NUMBER_SIZE])
{
    char digits[SERVICE_NOTICE_NUMBER_SIZE];
    int length = snprintf(digits, sizeof(digits), "%" PRIu64, number);
    char *end = ret_text;
    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0)
            *end++ = ',';
        *end++ = digits[i];
    }
    *end = '\0';
}

static void say_line(struct service_notice *notice, const char *line)
{
    if (strcmp(line, notice->line) == 0)
        return;
    (void)snprintf(notice->line, sizeof(notice->line), "%s", line);
    (void)sd_notifyf(false, "STATUS=%s", line);
}

static void say_numbers(struct service_notice *notice, const struct status_report *report)
{
    char rate[SERVICE_NOTICE_NUMBER_SIZE];
    char backlog[SERVICE_NOTICE_NUMBER_SIZE];
    service_notice_format_number((uint64_t)(report->calls.per_second + 0.5), rate);
    service_notice_format_number(report->work.outbox_backlog, backlog);
    char line[LINE_SIZE];
    (void)snprintf(line, sizeof(line), "%s%zu worker%s, %s calls/s, outbox %s",
        notice->is_stopping ? "draining: " : "", report->ready_count,
        report->ready_count == 1 ? "" : "s", rate, backlog);
    say_line(notice, line);
}

static int on_tick(sd_event_source *source, uint64_t time_us, void *userdata)
{
    struct service_notice *notice = userdata;
    (void)time_us;
    struct status_report *report = malloc(sizeof(*report));
    if (report != NULL) {
        status_report_read(notice->scoreboard, monotonic_clock_us(), report);
        status_report_set_rates(report, &notice->report);
        notice->report = *report;
        if ((notice->is_ready || notice->is_stopping) && !notice->is_fixed)
            say_numbers(notice, report);
        free(report);
    }
    if (notice->is_watched && notice->is_answering(notice->userdata))
        (void)sd_notify(false, "WATCHDOG=1");
    /* ends with the drain, which has a deadline of its own */
    if (notice->is_stopping)
        (void)sd_notifyf(false, "EXTEND_TIMEOUT_USEC=%" PRIu64, EXTENSION_US);
    int result = sd_event_source_set_time_relative(source, notice->tick_us);
    if (result >= 0)
        result = sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
    return result;
}

int service_notice_new(sd_event *event, const struct scoreboard *scoreboard,
    bool (*is_answering)(void *userdata), void *userdata, struct service_notice **ret_notice)
{
    struct service_notice *notice = calloc(1, sizeof(*notice));
    if (notice == NULL)
        return -ENOMEM;
    notice->scoreboard = scoreboard;
    notice->is_answering = is_answering;
    notice->userdata = userdata;
    notice->tick_us = TICK_US;
    uint64_t watchdog_us = 0;
    notice->is_watched = sd_watchdog_enabled(0, &watchdog_us) > 0;
    if (notice->is_watched && watchdog_us / 2 < notice->tick_us)
        notice->tick_us = watchdog_us / 2;
    status_report_read(scoreboard, monotonic_clock_us(), &notice->report);
    int result = sd_event_add_time_relative(event, &notice->timer, CLOCK_MONOTONIC, notice->tick_us,
        TIMER_ACCURACY_US, on_tick, notice);
    if (result < 0) {
        (void)service_notice_free(notice);
        return result;
    }
    *ret_notice = notice;
    return 0;
}

struct service_notice *service_notice_free(struct service_notice *notice)
{
    if (notice == NULL)
        return NULL;
    (void)sd_event_source_disable_unref(notice->timer);
    free(notice);
    return NULL;
}

void service_notice_ready(struct service_notice *notice)
{
    notice->is_ready = true;
    (void)sd_notify(false, "READY=1");
}

/* MONOTONIC_USEC tells the manager which reload the next READY=1 belongs to. */
void service_notice_reloading(struct service_notice *notice)
{
    (void)notice;
    (void)sd_notifyf(false, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, monotonic_clock_us());
}

void service_notice_stopping(struct service_notice *notice)
{
    notice->is_stopping = true;
    (void)sd_notifyf(
        false, "STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=%" PRIu64, EXTENSION_US);
}

void service_notice_say(struct service_notice *notice, const char *format, ...)
{
    char line[LINE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    notice->is_fixed = true;
    say_line(notice, line);
}
