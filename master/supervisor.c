#include "master/supervisor.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sysexits.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>
#include <time.h>

#include "common/file_descriptor.h"
#include "common/log.h"
#include "common/scoreboard.h"
#include "common/settings_file.h"
#include "master/errand.h"
#include "master/listener.h"
#include "master/run_directory.h"
#include "master/staffing.h"

struct supervisor {
    const char *file;
    struct settings settings; /* owned until staffing takes them over */
    struct run_directory run_directory;
    struct listener listeners[SETTINGS_MAX_LISTENERS]; /* owned */
    size_t listener_count;
    struct scoreboard *scoreboard; /* owned */
    int scoreboard_fd;             /* owned */
    int outbox_wake_fd;            /* owned */
    sd_event *event;               /* owned */
    struct staffing *staffing;     /* owned */
    bool is_stopping;
};

/* --- what staffing reports --- */

static void report_serving(const struct supervisor *supervisor)
{
    unsigned int workers = settings_worker_count(staffing_settings(supervisor->staffing));
    uint32_t generation = staffing_generation(supervisor->staffing);
    log_info("serving workers=%u generation=%u", workers, generation);
    (void)sd_notifyf(
        false, "READY=1\nSTATUS=serving with %u workers, generation %u", workers, generation);
}

static void on_complete(void *userdata)
{
    report_serving(userdata);
}

/* A reload that failed ends in READY=1 too: the service is as ready as it was. */
static void on_reloaded(bool is_in_force, void *userdata)
{
    struct supervisor *supervisor = userdata;
    const struct settings *settings = staffing_settings(supervisor->staffing);
    if (is_in_force)
        log_configure((enum log_level)settings->log.level, (enum log_format)settings->log.format);
    report_serving(supervisor);
}

static void on_hopeless(enum child_role role, void *userdata)
{
    struct supervisor *supervisor = userdata;
    (void)sd_notifyf(false, "STATUS=%s cannot be started", child_table_role_name(role));
    (void)sd_event_exit(supervisor->event, EX_UNAVAILABLE);
}

static void on_empty(void *userdata)
{
    struct supervisor *supervisor = userdata;
    log_info("stopped");
    (void)sd_event_exit(supervisor->event, EX_OK);
}

static const struct staffing_handlers staffing_handlers = {
    .on_complete = on_complete,
    .on_reloaded = on_reloaded,
    .on_hopeless = on_hopeless,
    .on_empty = on_empty,
};

/* --- signals --- */

static void close_listeners(struct supervisor *supervisor)
{
    for (size_t i = 0; i < supervisor->listener_count; i++)
        listener_close(&supervisor->listeners[i]);
    supervisor->listener_count = 0;
}

static int on_stop_signal(
    sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
    (void)source;
    struct supervisor *supervisor = userdata;
    const char *name = sigabbrev_np((int)info->ssi_signo);
    if (supervisor->is_stopping) {
        log_warn("stopping at once signal=%s", name);
        staffing_kill(supervisor->staffing);
        return 0;
    }
    supervisor->is_stopping = true;
    log_info("stopping signal=%s sender_pid=%u", name, info->ssi_pid);
    (void)sd_notify(false, "STOPPING=1\nSTATUS=draining");
    staffing_stop(supervisor->staffing);
    close_listeners(supervisor);
    return 0;
}

/* Listeners live as long as the master does: what they are called and where they are cannot change
 * under it. */
static bool has_same_listeners(const struct settings *left, const struct settings *right)
{
    if (left->listener_count != right->listener_count)
        return false;
    for (size_t i = 0; i < left->listener_count; i++)
        if (strcmp(left->listeners[i].name, right->listeners[i].name) != 0 ||
            strcmp(left->listeners[i].address, right->listeners[i].address) != 0)
            return false;
    return true;
}

static const char *find_reload_obstacle(
    const struct supervisor *supervisor, const struct settings *next)
{
    const struct settings *current = staffing_settings(supervisor->staffing);
    if (!has_same_listeners(current, next))
        return "listeners were added, removed, renamed or moved, which needs a restart";
    if (strcmp(current->run_dir, next->run_dir) != 0)
        return "run_dir was changed, which needs a restart";
    return NULL;
}

static void log_complaints(const struct settings_complaints *complaints, int error)
{
    if (complaints->text == NULL) {
        log_error("configuration refused error=\"%s\"", strerror(-error));
        return;
    }
    for (const char *line = complaints->text; *line != '\0';) {
        int length = (int)strcspn(line, "\n");
        log_error("%.*s", length, line);
        line += length + (line[length] == '\n' ? 1 : 0);
    }
}

static int reload(struct supervisor *supervisor)
{
    struct settings_complaints complaints = {0};
    struct settings next = {0};
    int result = settings_file_read(supervisor->file, &next, &complaints);
    if (result < 0)
        log_complaints(&complaints, result);
    settings_complaints_cleanup(&complaints);
    if (result < 0)
        return result;
    const char *obstacle = find_reload_obstacle(supervisor, &next);
    result = obstacle != NULL ? -EINVAL : staffing_reload(supervisor->staffing, &next);
    if (obstacle != NULL)
        log_error("%s: %s", supervisor->file, obstacle);
    else if (result == -EBUSY)
        log_warn("another reload or the start is under way");
    else if (result == -ENOSPC)
        log_error("%s: the new workers find no room beside the old ones, expected at most %d "
                  "in all while a reload is under way",
            supervisor->file, SETTINGS_MAX_WORKERS);
    settings_cleanup(&next);
    return result;
}

static int on_reload_signal(
    sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
    (void)source;
    struct supervisor *supervisor = userdata;
    if (supervisor->is_stopping)
        return 0;
    log_info("reloading file=%s sender_pid=%u", supervisor->file, info->ssi_pid);
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    (void)sd_notifyf(false, "RELOADING=1\nMONOTONIC_USEC=%lld",
        (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000);
    int result = reload(supervisor);
    if (result < 0) {
        log_error(
            "reload refused, the old configuration stays in force error=\"%s\"", strerror(-result));
        (void)sd_notify(false, "READY=1");
    }
    return 0;
}

static int block_signals(void)
{
    sigset_t blocked;
    (void)sigemptyset(&blocked);
    (void)sigaddset(&blocked, SIGTERM);
    (void)sigaddset(&blocked, SIGINT);
    (void)sigaddset(&blocked, SIGHUP);
    (void)sigaddset(&blocked, SIGCHLD);
    if (sigprocmask(SIG_BLOCK, &blocked, NULL) < 0)
        return -errno;
    (void)signal(SIGPIPE, SIG_IGN);
    return 0;
}

static int add_signal_handlers(struct supervisor *supervisor)
{
    int result = sd_event_add_signal(supervisor->event, NULL, SIGTERM, on_stop_signal, supervisor);
    if (result >= 0)
        result = sd_event_add_signal(supervisor->event, NULL, SIGINT, on_stop_signal, supervisor);
    if (result >= 0)
        result = sd_event_add_signal(supervisor->event, NULL, SIGHUP, on_reload_signal, supervisor);
    return result < 0 ? result : 0;
}

/* --- from nothing to the loop --- */

static int open_listeners(struct supervisor *supervisor)
{
    struct listener_inheritance inheritance = {0};
    int result = listener_inheritance_take(&inheritance);
    if (result < 0) {
        log_error("inherited sockets not read error=\"%s\"", strerror(-result));
        return result;
    }
    for (size_t i = 0; result == 0 && i < supervisor->settings.listener_count; i++) {
        result = listener_open(&supervisor->settings.listeners[i], supervisor->file, &inheritance,
            &supervisor->listeners[i]);
        supervisor->listener_count += result == 0 ? 1 : 0;
    }
    listener_inheritance_cleanup(&inheritance);
    if (result < 0)
        return result;
    result = run_directory_write_listeners(
        &supervisor->run_directory, supervisor->listeners, supervisor->listener_count);
    if (result < 0)
        log_error("listeners not written to run_dir error=\"%s\"", strerror(-result));
    return result;
}

static int open_loop(struct supervisor *supervisor)
{
    int result = scoreboard_create(&supervisor->scoreboard, &supervisor->scoreboard_fd);
    if (result < 0)
        return result;
    supervisor->outbox_wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (supervisor->outbox_wake_fd < 0)
        return -errno;
    result = sd_event_default(&supervisor->event);
    if (result < 0)
        return result;
    result = add_signal_handlers(supervisor);
    if (result < 0)
        return result;
    const struct staffing_options options = {
        .event = supervisor->event,
        .scoreboard = supervisor->scoreboard,
        .scoreboard_fd = supervisor->scoreboard_fd,
        .outbox_wake_fd = supervisor->outbox_wake_fd,
        .listeners = supervisor->listeners,
        .listener_count = supervisor->listener_count,
    };
    return staffing_new(
        &options, &supervisor->settings, &staffing_handlers, supervisor, &supervisor->staffing);
}

static int status_of(int error)
{
    if (error == -EBUSY)
        return EX_TEMPFAIL;
    return error == -EINVAL ? EX_CONFIG : EX_OSERR;
}

static int serve(struct supervisor *supervisor)
{
    int result = open_loop(supervisor);
    if (result < 0) {
        log_error("cannot start error=\"%s\"", strerror(-result));
        return EX_OSERR;
    }
    staffing_start(supervisor->staffing);
    int status = sd_event_loop(supervisor->event);
    if (status >= 0)
        return status;
    log_error("event loop failed error=\"%s\"", strerror(-status));
    return EX_SOFTWARE;
}

/* *ret_status: what to end with. True: go on. */
static bool migrate(struct supervisor *supervisor, int *ret_status)
{
    const char *const words[] = {"up", NULL};
    bool was_interrupted = false;
    *ret_status = errand_run(ERRAND_MIGRATE, &supervisor->settings, words, &was_interrupted);
    if (*ret_status != EX_OK)
        log_error("migration failed status=%d", *ret_status);
    if (was_interrupted)
        log_info("stopped before the start");
    return *ret_status == EX_OK && !was_interrupted;
}

static int run(struct supervisor *supervisor, bool migrates_first)
{
    int result = block_signals();
    if (result < 0)
        log_error("signals not blocked error=\"%s\"", strerror(-result));
    if (result == 0)
        result = run_directory_open(supervisor->settings.run_dir, &supervisor->run_directory);
    if (result == 0)
        result = open_listeners(supervisor);
    if (result < 0)
        return status_of(result);
    int status = EX_OK;
    if (migrates_first && !migrate(supervisor, &status))
        return status;
    return serve(supervisor);
}

static void cleanup(struct supervisor *supervisor)
{
    supervisor->staffing = staffing_free(supervisor->staffing);
    close_listeners(supervisor);
    supervisor->event = sd_event_unref(supervisor->event);
    scoreboard_close(supervisor->scoreboard);
    fd_close(&supervisor->scoreboard_fd);
    fd_close(&supervisor->outbox_wake_fd);
    run_directory_close(&supervisor->run_directory);
    settings_cleanup(&supervisor->settings);
}

int supervisor_run(const struct supervisor_plan *plan)
{
    struct supervisor supervisor = {
        .file = plan->file,
        .settings = *plan->settings,
        .run_directory = {.fd = -1, .pid_fd = -1},
        .scoreboard_fd = -1,
        .outbox_wake_fd = -1,
    };
    *plan->settings = (struct settings){0};
    int status = run(&supervisor, plan->migrates_first);
    cleanup(&supervisor);
    return status;
}
