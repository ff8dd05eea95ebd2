#include "master/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sysexits.h>
#include <systemd/sd-event.h>
#include <time.h>
#include <unistd.h>

#include "common/file_descriptor.h"
#include "common/log.h"
#include "common/scoreboard.h"
#include "common/settings_complaints.h"
#include "master/admin_socket.h"
#include "master/errand.h"
#include "master/listener.h"
#include "master/reload_check.h"
#include "master/run_directory.h"
#include "master/service_notice.h"
#include "master/staffing.h"

#define STOP_MARGIN_MS 5000 /* over the drain: killing, reaping, closing */
#define PROC_PATH_SIZE 32

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
    struct service_notice *notice; /* owned */
    struct admin_socket *admin;    /* owned */
    uint64_t started_at_us;        /* CLOCK_REALTIME */
    bool is_stopping;
};

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
}

/* A reload that failed ends in READY=1 too: the service is as ready as it was. */
static void on_reloaded(const char *failure, void *userdata)
{
    struct supervisor *supervisor = userdata;
    const struct settings *settings = staffing_settings(supervisor->staffing);
    if (failure == NULL)
        log_configure((enum log_level)settings->log.level, (enum log_format)settings->log.format);
    report_serving(supervisor);
    admin_socket_conclude(supervisor->admin, USERD__IPC__ADMIN_REQUEST__KIND__RELOAD, failure);
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

static void begin_stop(struct supervisor *supervisor)
{
    supervisor->is_stopping = true;
    service_notice_stopping(supervisor->notice);
    admin_socket_conclude(
        supervisor->admin, USERD__IPC__ADMIN_REQUEST__KIND__RELOAD, "userd is stopping");
    staffing_stop(supervisor->staffing);
    close_listeners(supervisor);
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
    log_info("stopping signal=%s sender_pid=%u", name, info->ssi_pid);
    begin_stop(supervisor);
    return 0;
}

static void log_lines(const char *text)
{
    for (const char *line = text; *line != '\0';) {
        int length = (int)strcspn(line, "\n");
        log_error("%.*s", length, line);
        line += length + (line[length] == '\n' ? 1 : 0);
    }
}

static void begin_reload(struct supervisor *supervisor, struct settings_complaints *complaints)
{
    struct settings next = {0};
    int result = reload_check_file(
        supervisor->file, staffing_settings(supervisor->staffing), &next, complaints);
    if (result < 0)
        return;
    result = staffing_reload(supervisor->staffing, &next);
    if (result == -ENOSPC)
        settings_complaints_add(complaints, supervisor->file, 0,
            "the new workers find no room beside the old ones, expected at most %d in all while a "
            "reload is under way",
            SETTINGS_MAX_WORKERS);
    else if (result < 0)
        settings_complaints_add(complaints, NULL, 0, "%s", strerror(-result));
    settings_cleanup(&next);
}

/* True: on_reloaded() follows, or was called already. Otherwise what was wrong is logged and in
 * *complaints, and nothing has changed. */
static bool reload(struct supervisor *supervisor, struct settings_complaints *complaints)
{
    bool is_settled = staffing_is_settled(supervisor->staffing);
    if (is_settled) {
        service_notice_reloading(supervisor->notice);
        begin_reload(supervisor, complaints);
    } else {
        settings_complaints_add(complaints, NULL, 0, "another reload or the start is under way");
    }
    if (complaints->count == 0)
        return true;
    log_lines(complaints->text != NULL ? complaints->text : "out of memory");
    log_error("reload refused, the old configuration stays in force");
    if (is_settled)
        service_notice_ready(supervisor->notice);
    return false;
}

static int on_reload_signal(
    sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
    (void)source;
    struct supervisor *supervisor = userdata;
    if (supervisor->is_stopping)
        return 0;
    log_info("reloading file=%s sender_pid=%u", supervisor->file, info->ssi_pid);
    struct settings_complaints complaints = {0};
    (void)reload(supervisor, &complaints);
    settings_complaints_cleanup(&complaints);
    return 0;
}

/* --- run_dir/admin.sock --- */

static void on_admin_status(struct admin_socket_client *client, void *userdata)
{
    struct supervisor *supervisor = userdata;
    Userd__Ipc__Listener listeners[SETTINGS_MAX_LISTENERS];
    Userd__Ipc__Listener *pointers[SETTINGS_MAX_LISTENERS];
    Userd__Ipc__AdminResult result;
    userd__ipc__admin_result__init(&result);
    for (size_t i = 0; i < supervisor->listener_count; i++) {
        userd__ipc__listener__init(&listeners[i]);
        listeners[i].name = supervisor->listeners[i].name;
        listeners[i].address = supervisor->listeners[i].bound_text;
        pointers[i] = &listeners[i];
    }
    result.n_listeners = supervisor->listener_count;
    result.listeners = pointers;
    result.master_pid = (uint32_t)getpid();
    result.generation = staffing_generation(supervisor->staffing);
    result.started_at_us = supervisor->started_at_us;
    /* opened anew: who asks may read the numbers, and not write them */
    char path[PROC_PATH_SIZE];
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", supervisor->scoreboard_fd);
    int fd CLEANUP(fd_close) = open(path, O_RDONLY | O_CLOEXEC);
    result.is_done = fd >= 0;
    if (fd < 0)
        result.reason = strerror(errno);
    admin_socket_answer(client, &result, fd);
}

static void refuse_admin(struct admin_socket_client *client, const char *reason)
{
    Userd__Ipc__AdminResult result;
    userd__ipc__admin_result__init(&result);
    result.reason = borrow_const(reason);
    admin_socket_answer(client, &result, -1);
}

static void on_admin_reload(struct admin_socket_client *client, void *userdata)
{
    struct supervisor *supervisor = userdata;
    if (supervisor->is_stopping) {
        refuse_admin(client, "userd is stopping");
        return;
    }
    log_info("reloading file=%s", supervisor->file);
    admin_socket_wait(client, STAFFING_RELOAD_TIMEOUT_MS);
    struct settings_complaints complaints = {0};
    if (!reload(supervisor, &complaints))
        refuse_admin(client, complaints.text != NULL ? complaints.text : "out of memory");
    settings_complaints_cleanup(&complaints);
}

/* Asked twice it waits twice: what a second signal does is a person's decision. */
static void on_admin_stop(struct admin_socket_client *client, void *userdata)
{
    struct supervisor *supervisor = userdata;
    Userd__Ipc__AdminResult result;
    userd__ipc__admin_result__init(&result);
    int drain_ms = staffing_settings(supervisor->staffing)->shutdown.drain_timeout_ms;
    result.is_done = true;
    result.timeout_ms = (uint32_t)drain_ms + STOP_MARGIN_MS;
    admin_socket_answer(client, &result, -1);
    admin_socket_wait(client, result.timeout_ms);
    if (!supervisor->is_stopping) {
        log_info("stopping reason=\"userd stop\"");
        begin_stop(supervisor);
    }
}

static const struct admin_socket_handlers admin_handlers = {
    .on_status = on_admin_status,
    .on_reload = on_admin_reload,
    .on_stop = on_admin_stop,
};

/* --- from nothing to the loop --- */

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
    result = staffing_new(
        &options, &supervisor->settings, &staffing_handlers, supervisor, &supervisor->staffing);
    if (result < 0)
        return result;
    result = service_notice_new(
        supervisor->event, supervisor->scoreboard, is_answering, supervisor, &supervisor->notice);
    if (result < 0)
        return result;
    supervisor->started_at_us = realtime_us();
    return admin_socket_new(supervisor->event, supervisor->run_directory.fd, &admin_handlers,
        supervisor, &supervisor->admin);
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
    supervisor->notice = service_notice_free(supervisor->notice);
    close_listeners(supervisor);
    scoreboard_close(supervisor->scoreboard);
    fd_close(&supervisor->scoreboard_fd);
    fd_close(&supervisor->outbox_wake_fd);
    /* last: its end tells `userd stop` that all else is gone */
    supervisor->admin = admin_socket_free(supervisor->admin);
    supervisor->event = sd_event_unref(supervisor->event);
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
