#include "master/errand.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <systemd/sd-event.h>

#include "common/log.h"
#include "common/process_protocol.h"
#include "common/scoreboard.h"
#include "master/child_program.h"
#include "master/errand_child.h"

#define SIGNAL_STATUS_BASE 128 /* as shells say it */

struct role {
    const char *name;
    struct errand_child_plan plan; /* without its words */
};

static const struct role roles[] = {
    [ERRAND_MIGRATE] = {"migration", {CHILD_PROGRAM_WORKER, PROCESS_ROLE_MIGRATE,
                                         SETTING_FOR_WORKER, SCOREBOARD_SLOT_EVENTD + 1, NULL}},
    [ERRAND_DEAD_LETTERS] = {"dead-letters", {CHILD_PROGRAM_EVENTD, PROCESS_ROLE_DEAD_LETTERS,
                                                 SETTING_FOR_EVENTD, SCOREBOARD_SLOT_EVENTD, NULL}},
};

struct errand {
    const struct role *role;
    sd_event *event;           /* owned */
    struct errand_child child; /* owned */
    bool was_signalled;
};

static int on_frame(
    struct ipc_channel *channel, const Userd__Ipc__Frame *frame, int *fd, void *userdata)
{
    (void)channel;
    (void)fd;
    (void)userdata;
    bool is_expected = frame->body_case == USERD__IPC__FRAME__BODY_READY ||
                       frame->body_case == USERD__IPC__FRAME__BODY_MIGRATION_END;
    return is_expected ? 0 : -EPROTO;
}

static void on_closed(struct ipc_channel *channel, int error, void *userdata)
{
    (void)error; /* its exit status says all */
    struct errand *errand = userdata;
    errand->child.control = ipc_channel_free(channel);
}

static int on_interrupt(
    sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
    (void)source;
    (void)info;
    struct errand *errand = userdata;
    (void)kill(errand->child.pid, errand->was_signalled ? SIGKILL : SIGTERM);
    errand->was_signalled = true;
    return 0;
}

static int on_child_signal(
    sd_event_source *source, const struct signalfd_siginfo *signal_info, void *userdata)
{
    (void)source;
    (void)signal_info;
    struct errand *errand = userdata;
    siginfo_t info = {0};
    if (waitid(P_PID, (id_t)errand->child.pid, &info, WEXITED | WNOHANG) < 0 || info.si_pid == 0)
        return 0;
    int status = info.si_status;
    if (info.si_code != CLD_EXITED) {
        const char *name = sigabbrev_np(status);
        log_error(
            "%s killed by signal signal=%s", errand->role->name, name != NULL ? name : "unknown");
        status += SIGNAL_STATUS_BASE;
    }
    return sd_event_exit(errand->event, status);
}

static int open_loop(struct errand *errand)
{
    sigset_t blocked;
    (void)sigemptyset(&blocked);
    (void)sigaddset(&blocked, SIGINT);
    (void)sigaddset(&blocked, SIGTERM);
    (void)sigaddset(&blocked, SIGCHLD);
    if (sigprocmask(SIG_BLOCK, &blocked, NULL) < 0)
        return -errno;
    int result = sd_event_new(&errand->event);
    if (result < 0)
        return result;
    result = sd_event_add_signal(errand->event, NULL, SIGCHLD, on_child_signal, errand);
    if (result >= 0)
        result = sd_event_add_signal(errand->event, NULL, SIGINT, on_interrupt, errand);
    if (result >= 0)
        result = sd_event_add_signal(errand->event, NULL, SIGTERM, on_interrupt, errand);
    return result < 0 ? result : 0;
}

int errand_run(enum errand_kind kind, const struct settings *settings, const char *const *words,
    bool *ret_was_interrupted)
{
    static const struct ipc_channel_handlers handlers = {
        .on_frame = on_frame, .on_closed = on_closed};
    struct errand errand = {.role = &roles[kind], .child = {.scoreboard_fd = -1, .pid_fd = -1}};
    struct errand_child_plan plan = roles[kind].plan;
    plan.words = words;
    int result = open_loop(&errand);
    if (result == 0)
        result =
            errand_child_start(&errand.child, errand.event, &plan, settings, &handlers, &errand);
    if (result == 0)
        result = sd_event_loop(errand.event);
    /* one that outlives its loop, after an error of ours, is ended */
    errand_child_end(&errand.child);
    errand.event = sd_event_unref(errand.event);
    if (ret_was_interrupted != NULL)
        *ret_was_interrupted = errand.was_signalled;
    if (result >= 0)
        return result;
    log_error("%s could not be run error=\"%s\"", roles[kind].name, strerror(-result));
    return EX_OSERR;
}
