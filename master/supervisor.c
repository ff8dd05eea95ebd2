#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sysexits.h>
#include <time.h>

#include "common/file_descriptor.h"
#include "common/log.h"
#include "common/scoreboard.h"
#include "master/handover.h"
#include "master/supervisor_private.h"

/* --- what staffing reports --- */

static void report_serving(const struct supervisor *supervisor)
{
    unsigned int workers = settings_worker_count(staffing_settings(supervisor->staffing));
    uint32_t generation = staffing_generation(supervisor->staffing);
    log_info("serving workers=%u generation=%u", workers, generation);
    service_notice_ready(supervisor->notice);
}

static void on_complete(void *userdata)
{
    report_serving(userdata);
    supervisor_requests_take_up(userdata);
}

static void write_listeners(const struct supervisor *supervisor)
{
    int result = run_directory_write_listeners(
        &supervisor->run_directory, supervisor->listeners.items, supervisor->listeners.count);
    if (result < 0)
        log_error("listeners not written to run_dir error=\"%s\"", strerror(-result));
}

/* A reload that failed ends in READY=1 too: the service is as ready as it was. */
static void on_reloaded(const char *failure, void *userdata)
{
    struct supervisor *supervisor = userdata;
    const struct settings *settings = staffing_settings(supervisor->staffing);
    if (failure == NULL) {
        log_configure((enum log_level)settings->log.level, (enum log_format)settings->log.format);
        write_listeners(supervisor);
    }
    supervisor->is_upgrading = false;
    report_serving(supervisor);
    const char *warning = supervisor->reload_warnings.text;
    admin_socket_conclude(
        supervisor->admin, USERD__IPC__ADMIN_REQUEST__KIND__RELOAD, failure, warning);
    admin_socket_conclude(
        supervisor->admin, USERD__IPC__ADMIN_REQUEST__KIND__UPGRADE, failure, warning);
    supervisor_requests_take_up(supervisor);
}

static void on_hopeless(enum child_role role, void *userdata)
{
    struct supervisor *supervisor = userdata;
    service_notice_say(supervisor->notice, "%s cannot be started", child_table_role_name(role));
    (void)sd_event_exit(supervisor->event, EX_UNAVAILABLE);
}

static void on_empty(void *userdata)
{
    struct supervisor *supervisor = userdata;
    log_info("stopped");
    (void)sd_event_exit(supervisor->event, supervisor->exit_status);
}

static const struct staffing_handlers staffing_handlers = {
    .on_complete = on_complete,
    .on_reloaded = on_reloaded,
    .on_hopeless = on_hopeless,
    .on_empty = on_empty,
};

/* --- from nothing to the loop --- */

static int open_listeners(struct supervisor *supervisor)
{
    struct settings_complaints complaints = {0};
    int result = listener_set_open(
        &supervisor->listeners, &supervisor->settings, supervisor->file, &complaints);
    if (complaints.count > 0)
        log_error("%s", complaints.text != NULL ? complaints.text : "out of memory");
    else if (result < 0)
        log_error("listeners not opened error=\"%s\"", strerror(-result));
    settings_complaints_cleanup(&complaints);
    if (result == 0)
        write_listeners(supervisor);
    return result;
}

static uint64_t realtime_us(void)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static bool is_answering(void *userdata)
{
    const struct supervisor *supervisor = userdata;
    return staffing_is_answering(supervisor->staffing);
}

/* What lives in memory, on a scoreboard that is there. */
static int open_loop(struct supervisor *supervisor)
{
    int result = sd_event_default(&supervisor->event);
    if (result < 0)
        return result;
    result = supervisor_requests_take_signals(supervisor);
    if (result < 0)
        return result;
    const struct staffing_options options = {
        .event = supervisor->event,
        .scoreboard = supervisor->scoreboard,
        .scoreboard_fd = supervisor->scoreboard_fd,
        .outbox_wake_fd = supervisor->outbox_wake_fd,
        .listeners = &supervisor->listeners,
    };
    result = staffing_new(
        &options, &supervisor->settings, &staffing_handlers, supervisor, &supervisor->staffing);
    if (result < 0)
        return result;
    return service_notice_new(
        supervisor->event, supervisor->scoreboard, is_answering, supervisor, &supervisor->notice);
}

static int open_all(struct supervisor *supervisor)
{
    int result = scoreboard_create(&supervisor->scoreboard, &supervisor->scoreboard_fd);
    if (result < 0)
        return result;
    supervisor->outbox_wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (supervisor->outbox_wake_fd < 0)
        return -errno;
    result = open_loop(supervisor);
    if (result < 0)
        return result;
    supervisor->started_at_us = realtime_us();
    return admin_socket_new(supervisor->event, supervisor->run_directory.fd,
        &supervisor_admin_handlers, supervisor, &supervisor->admin);
}

static int status_of(int error)
{
    if (error == -EBUSY)
        return EX_TEMPFAIL;
    return error == -EINVAL ? EX_CONFIG : EX_OSERR;
}

static int turn_loop(struct supervisor *supervisor)
{
    int status = sd_event_loop(supervisor->event);
    if (status >= 0)
        return status;
    log_error("event loop failed error=\"%s\"", strerror(-status));
    return EX_SOFTWARE;
}

static int serve(struct supervisor *supervisor, bool migrates)
{
    int result = open_all(supervisor);
    if (result == 0 && migrates)
        result = supervisor_migration_begin(supervisor);
    if (result < 0) {
        log_error("cannot start error=\"%s\"", strerror(-result));
        return EX_OSERR;
    }
    staffing_start(supervisor->staffing);
    return turn_loop(supervisor);
}

static int run(struct supervisor *supervisor, bool migrates)
{
    int result = supervisor_requests_block_signals();
    if (result < 0)
        log_error("signals not blocked error=\"%s\"", strerror(-result));
    if (result == 0)
        result = run_directory_open(supervisor->settings.run_dir, &supervisor->run_directory);
    if (result == 0)
        result = open_listeners(supervisor);
    if (result < 0)
        return status_of(result);
    return serve(supervisor, migrates);
}

static struct supervisor empty_supervisor(const char *file)
{
    return (struct supervisor){
        .file = file,
        .run_directory = {.fd = -1, .pid_fd = -1},
        .scoreboard_fd = -1,
        .outbox_wake_fd = -1,
    };
}

static void cleanup(struct supervisor *supervisor)
{
    supervisor_reload_forget(supervisor);
    supervisor_migration_end(supervisor);
    supervisor->staffing = staffing_free(supervisor->staffing);
    supervisor->notice = service_notice_free(supervisor->notice);
    listener_set_close(&supervisor->listeners);
    scoreboard_close(supervisor->scoreboard);
    fd_close(&supervisor->scoreboard_fd);
    fd_close(&supervisor->outbox_wake_fd);
    /* last: its end tells `userd stop` that all else is gone */
    supervisor->admin = admin_socket_free(supervisor->admin);
    supervisor->upgrade = sd_event_source_disable_unref(supervisor->upgrade);
    supervisor->reload = sd_event_source_disable_unref(supervisor->reload);
    supervisor->event = sd_event_unref(supervisor->event);
    run_directory_close(&supervisor->run_directory);
    settings_complaints_cleanup(&supervisor->reload_warnings);
    settings_cleanup(&supervisor->settings);
}

int supervisor_run(const struct supervisor_plan *plan)
{
    struct supervisor supervisor = empty_supervisor(plan->file);
    supervisor.settings = *plan->settings;
    *plan->settings = (struct settings){0};
    int status = run(&supervisor, plan->migrates);
    cleanup(&supervisor);
    return status;
}

static int take_over(struct supervisor *supervisor, const Userd__Handover__State *state)
{
    int result = supervisor_requests_block_signals(); /* they are: the mask outlives an exec */
    if (result == 0)
        result = supervisor_upgrade_adopt(supervisor, state);
    if (result == 0) {
        log_configure((enum log_level)supervisor->settings.log.level,
            (enum log_format)supervisor->settings.log.format);
        result = open_loop(supervisor);
    }
    if (result == 0)
        result = staffing_take_over(supervisor->staffing, state);
    if (result == 0 && state->owes_migration)
        result = supervisor_migration_begin(supervisor);
    if (result == 0)
        result = admin_socket_take_over(supervisor->event, state, &supervisor_admin_handlers,
            supervisor, STAFFING_RELOAD_TIMEOUT_MS, &supervisor->admin);
    return result;
}

int supervisor_take_over(const char *file, int handover_fd)
{
    int fd CLEANUP(fd_close) = handover_fd;
    log_init("master");
    struct supervisor supervisor = empty_supervisor(file);
    Userd__Handover__State *state = NULL;
    uint32_t format = 0;
    int result = handover_read(fd, &state, &format);
    if (result == 0) {
        result = take_over(&supervisor, state);
        userd__handover__state__free_unpacked(state, NULL);
    }
    fd_close(&fd);
    int status = EX_SOFTWARE;
    if (result == 0) {
        service_notice_ready(supervisor.notice);
        supervisor_requests_finish_upgrade(&supervisor);
        status = turn_loop(&supervisor);
    } else {
        log_error(
            "what was handed over is of no use format=%u error=\"%s\"", format, strerror(-result));
    }
    cleanup(&supervisor);
    return status;
}
