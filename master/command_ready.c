#include "master/command_ready.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "common/monotonic_clock.h"
#include "master/command_admin.h"
#include "master/command_options.h"
#include "master/service_view.h"
#include "master/status_report.h"

#define EXIT_NOT_READY    1
#define ANSWER_TIMEOUT_MS 2000
#define PAUSE_NS          50000000
#define US_PER_SECOND     UINT64_C(1000000)

static const char *reason_of(int error)
{
    if (error == -ENOENT || error == -ECONNREFUSED || error == -ECONNRESET)
        return "userd is not running";
    if (error == -EPROTONOSUPPORT)
        return "the running service is of another release";
    return strerror(-error);
}

/* NULL: calls are served. */
static const char *find_reason(const char *run_dir, struct status_report *report)
{
    struct service_view view CLEANUP(service_view_close) = {0};
    int result = service_view_open(run_dir, ANSWER_TIMEOUT_MS, &view);
    if (result < 0)
        return reason_of(result);
    status_report_read(view.scoreboard, monotonic_clock_us(), report);
    bool is_any_ready = false;
    for (size_t i = 0; i < report->worker_count; i++) {
        const struct status_worker *worker = &report->workers[i];
        is_any_ready = is_any_ready || worker->state == PROCESS_READY;
        if (worker->state == PROCESS_READY && worker->is_database_ready)
            return NULL;
    }
    return is_any_ready ? "the database is away, or its schema is not the one that is needed"
                        : "no worker is ready";
}

static int wait_until_ready(const char *run_dir, unsigned int seconds)
{
    struct status_report *report = calloc(1, sizeof(*report));
    if (report == NULL)
        return EX_OSERR;
    uint64_t end_us = monotonic_clock_us() + seconds * US_PER_SECOND;
    const char *reason = find_reason(run_dir, report);
    while (reason != NULL && monotonic_clock_us() < end_us) {
        const struct timespec pause = {.tv_nsec = PAUSE_NS};
        (void)nanosleep(&pause, NULL);
        reason = find_reason(run_dir, report);
    }
    free(report);
    if (reason != NULL)
        (void)fprintf(stderr, "not ready: %s (run_dir=%s)\n", reason, run_dir);
    return reason == NULL ? EX_OK : EXIT_NOT_READY;
}

int command_ready(int argc, char **argv)
{
    struct command_options options;
    int status = command_admin_parse(argc, argv, COMMAND_READY_USAGE, &options);
    if (status != EX_OK)
        return status;
    char *run_dir = NULL;
    status = command_admin_find_run_dir(&options, &run_dir);
    if (status == EX_OK)
        status = wait_until_ready(run_dir, options.wait_seconds);
    free(run_dir);
    return status;
}
