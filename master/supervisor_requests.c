/* What people and service managers ask of the master, by signal or through run_dir/admin.sock: the
 * lifecycle (staffing_ask) says whether it may be; here it is carried out and answered. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/file_descriptor.h"
#include "common/log.h"
#include "common/settings_complaints.h"
#include "master/supervisor_private.h"

#define STOP_MARGIN_MS 5000 /* over the drain: killing, reaping, closing */
#define PROC_PATH_SIZE 32

static const int handled_signals[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR2};

/* ---- stop ---- */

static void announce_stop(struct supervisor *supervisor)
{
    static const Userd__Ipc__AdminRequest__Kind overtaken[] = {
        USERD__IPC__ADMIN_REQUEST__KIND__RELOAD, USERD__IPC__ADMIN_REQUEST__KIND__UPGRADE};
    supervisor_reload_forget(supervisor);
    supervisor_migration_end(supervisor);
    supervisor->owes_reload = false;
    supervisor->owes_upgrade = false;
    service_notice_stopping(supervisor->notice);
    for (size_t i = 0; i < ARRAY_LENGTH(overtaken); i++)
        admin_socket_conclude(supervisor->admin, overtaken[i], "userd is stopping", NULL);
    listener_set_close(&supervisor->listeners);
}

void supervisor_requests_stop(struct supervisor *supervisor)
{
    enum lifecycle_action action = staffing_ask(supervisor->staffing, LIFECYCLE_STOP_SIGNALLED);
    if (action == LIFECYCLE_BEGIN_STOP)
        announce_stop(supervisor);
}

static int on_stop_signal(
    sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
    (void)source;
    struct supervisor *supervisor = userdata;
    const char *name = sigabbrev_np((int)info->ssi_signo);
    bool is_first =
        lifecycle_next(staffing_state(supervisor->staffing), LIFECYCLE_STOP_SIGNALLED).action ==
        LIFECYCLE_BEGIN_STOP;
    if (is_first)
        log_info("stopping signal=%s sender_pid=%u", name, info->ssi_pid);
    else
        log_warn("stopping at once signal=%s", name);
    (void)staffing_ask(supervisor->staffing, LIFECYCLE_STOP_SIGNALLED);
    if (is_first)
        announce_stop(supervisor);
    return 0;
}

/* ---- reload ---- */

static bool is_for_later(const struct supervisor *supervisor)
{
    return lifecycle_will_run(staffing_state(supervisor->staffing));
}

static int on_reload_signal(
    sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
    (void)source;
    struct supervisor *supervisor = userdata;
    if (is_for_later(supervisor)) {
        supervisor->owes_reload = true;
        log_info("reload remembered sender_pid=%u reason=\"%s\"", info->ssi_pid,
            lifecycle_refusal(staffing_state(supervisor->staffing)));
        return 0;
    }
    log_info("reloading file=%s sender_pid=%u", supervisor->file, info->ssi_pid);
    (void)supervisor_reload(supervisor);
    return 0;
}

static int on_reload_turn(sd_event_source *source, void *userdata)
{
    (void)source;
    struct supervisor *supervisor = userdata;
    if (is_for_later(supervisor)) /* another one was faster: this one follows */
        return 0;
    if (!supervisor->owes_reload) /* stopping */
        return 0;
    supervisor->owes_reload = false;
    log_info("reloading file=%s reason=\"a signal came meanwhile\"", supervisor->file);
    (void)supervisor_reload(supervisor);
    return 0;
}

/* ---- upgrade ---- */

static void conclude_upgrade(
    struct supervisor *supervisor, const struct settings_complaints *complaints)
{
    const char *text = complaints->text != NULL ? complaints->text : "out of memory";
    supervisor_reload_log(LOG_LEVEL_ERROR, text);
    admin_socket_conclude(supervisor->admin, USERD__IPC__ADMIN_REQUEST__KIND__UPGRADE, text, NULL);
}

/* In a turn of its own, behind the signals: what the loop had read of them would not survive. */
static int on_upgrade_turn(sd_event_source *source, void *userdata)
{
    (void)source;
    struct supervisor *supervisor = userdata;
    struct settings_complaints complaints = {0};
    if (is_for_later(supervisor)) { /* a reload was faster; who waits for us waits on */
        supervisor->owes_upgrade = true;
        return 0;
    }
    const char *refusal = lifecycle_refusal(staffing_state(supervisor->staffing));
    if (staffing_ask(supervisor->staffing, LIFECYCLE_UPGRADE_ASKED) == LIFECYCLE_BEGIN_UPGRADE)
        supervisor_upgrade(supervisor, &complaints);
    else
        settings_complaints_add(&complaints, NULL, 0, "%s", refusal);
    conclude_upgrade(supervisor, &complaints);
    log_error("upgrade refused, the old program stays in force");
    settings_complaints_cleanup(&complaints);
    supervisor_requests_take_up(supervisor); /* a reload that it would have stood for */
    return 0;
}

static void ask_for_upgrade(struct supervisor *supervisor)
{
    (void)sd_event_source_set_enabled(supervisor->upgrade, SD_EVENT_ONESHOT);
}

static int on_upgrade_signal(
    sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
    (void)source;
    struct supervisor *supervisor = userdata;
    if (is_for_later(supervisor)) {
        supervisor->owes_upgrade = true;
        log_info("upgrade remembered sender_pid=%u reason=\"%s\"", info->ssi_pid,
            lifecycle_refusal(staffing_state(supervisor->staffing)));
        return 0;
    }
    log_info("upgrade asked for sender_pid=%u", info->ssi_pid);
    ask_for_upgrade(supervisor);
    return 0;
}

/* An upgrade ends in a reload: it stands for both. */
void supervisor_requests_take_up(struct supervisor *supervisor)
{
    if (supervisor->owes_upgrade)
        ask_for_upgrade(supervisor);
    else if (supervisor->owes_reload)
        (void)sd_event_source_set_enabled(supervisor->reload, SD_EVENT_ONESHOT);
    supervisor->owes_upgrade = false;
}

void supervisor_requests_finish_upgrade(struct supervisor *supervisor)
{
    log_info("upgraded file=%s", supervisor->file);
    supervisor->is_upgrading = true;
    (void)supervisor_reload(supervisor); /* RUNNING: it is not turned down */
}

/* ---- run_dir/admin.sock ---- */

static void on_admin_status(struct admin_socket_client *client, void *userdata)
{
    struct supervisor *supervisor = userdata;
    Userd__Ipc__Listener listeners[SETTINGS_MAX_LISTENERS];
    Userd__Ipc__Listener *pointers[SETTINGS_MAX_LISTENERS];
    Userd__Ipc__AdminResult result;
    userd__ipc__admin_result__init(&result);
    for (size_t i = 0; i < supervisor->listeners.count; i++) {
        userd__ipc__listener__init(&listeners[i]);
        listeners[i].name = supervisor->listeners.items[i].name;
        listeners[i].address = supervisor->listeners.items[i].bound_text;
        pointers[i] = &listeners[i];
    }
    result.n_listeners = supervisor->listeners.count;
    result.listeners = pointers;
    result.master_pid = (uint32_t)getpid();
    result.generation = staffing_generation(supervisor->staffing);
    result.started_at_us = supervisor->started_at_us;
    result.version = borrow_const(USERD_VERSION);
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
    log_info("reloading file=%s", supervisor->file);
    admin_socket_wait(client, STAFFING_RELOAD_TIMEOUT_MS);
    const char *refusal = supervisor_reload(supervisor);
    if (refusal != NULL)
        refuse_admin(client, refusal);
}

/* Who asks during a reload asks again: the answer to those who wait for the end of an upgrade must
 * not be given to one whose upgrade has not begun. */
static void on_admin_upgrade(struct admin_socket_client *client, void *userdata)
{
    struct supervisor *supervisor = userdata;
    if (is_for_later(supervisor)) {
        Userd__Ipc__AdminResult result;
        userd__ipc__admin_result__init(&result);
        result.reason = borrow_const(lifecycle_refusal(staffing_state(supervisor->staffing)));
        result.is_busy = true;
        admin_socket_answer(client, &result, -1);
        return;
    }
    log_info("upgrade asked for");
    admin_socket_wait(client, STAFFING_RELOAD_TIMEOUT_MS);
    ask_for_upgrade(supervisor);
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
    if (staffing_ask(supervisor->staffing, LIFECYCLE_STOP_ASKED) != LIFECYCLE_BEGIN_STOP)
        return;
    log_info("stopping reason=\"userd stop\"");
    announce_stop(supervisor);
}

const struct admin_socket_handlers supervisor_admin_handlers = {
    .on_status = on_admin_status,
    .on_reload = on_admin_reload,
    .on_stop = on_admin_stop,
    .on_upgrade = on_admin_upgrade,
};

/* ---- signals ---- */

int supervisor_block_requests(void)
{
    sigset_t blocked;
    (void)sigemptyset(&blocked);
    (void)sigaddset(&blocked, SIGHUP);
    (void)sigaddset(&blocked, SIGUSR2);
    return sigprocmask(SIG_BLOCK, &blocked, NULL) < 0 ? -errno : 0;
}

int supervisor_requests_block_signals(void)
{
    sigset_t blocked;
    (void)sigemptyset(&blocked);
    (void)sigaddset(&blocked, SIGCHLD);
    for (size_t i = 0; i < ARRAY_LENGTH(handled_signals); i++)
        (void)sigaddset(&blocked, handled_signals[i]);
    if (sigprocmask(SIG_BLOCK, &blocked, NULL) < 0)
        return -errno;
    (void)signal(SIGPIPE, SIG_IGN);
    return 0;
}

int supervisor_requests_take_signals(struct supervisor *supervisor)
{
    static const sd_event_signal_handler_t handlers[] = {
        on_stop_signal, on_stop_signal, on_reload_signal, on_upgrade_signal};
    _Static_assert(ARRAY_LENGTH(handlers) == ARRAY_LENGTH(handled_signals), "one for each");
    for (size_t i = 0; i < ARRAY_LENGTH(handlers); i++) {
        sd_event_source *source = NULL;
        int result = sd_event_add_signal(
            supervisor->event, &source, handled_signals[i], handlers[i], supervisor);
        if (result < 0)
            return result;
        result = sd_event_source_set_priority(source, SD_EVENT_PRIORITY_IMPORTANT);
        if (result >= 0)
            result = sd_event_source_set_floating(source, true);
        (void)sd_event_source_unref(source);
        if (result < 0)
            return result;
    }
    int result =
        sd_event_add_defer(supervisor->event, &supervisor->upgrade, on_upgrade_turn, supervisor);
    if (result >= 0)
        result = sd_event_source_set_enabled(supervisor->upgrade, SD_EVENT_OFF);
    if (result >= 0)
        result =
            sd_event_add_defer(supervisor->event, &supervisor->reload, on_reload_turn, supervisor);
    return result < 0 ? result : sd_event_source_set_enabled(supervisor->reload, SD_EVENT_OFF);
}
