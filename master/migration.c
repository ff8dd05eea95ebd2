#include "master/migration.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <systemd/sd-event.h>

#include "common/file_descriptor.h"
#include "common/ipc_channel.h"
#include "common/log.h"
#include "common/process_protocol.h"
#include "common/scoreboard.h"
#include "common/settings_transfer.h"
#include "master/child_process.h"
#include "master/child_program.h"

#define SIGNAL_STATUS_BASE 128 /* as shells say it */
#define SLOT               (SCOREBOARD_SLOT_EVENTD + 1)

struct migration {
    sd_event *event;               /* owned */
    struct scoreboard *scoreboard; /* owned */
    int scoreboard_fd;             /* owned */
    struct ipc_channel *control;   /* owned */
    pid_t pid;
    bool was_signalled;
};

static int on_frame(
    struct ipc_channel *channel, const Userd__Ipc__Frame *frame, int *fd, void *userdata)
{
    (void)channel;
    (void)fd;
    (void)userdata;
    return frame->body_case == USERD__IPC__FRAME__BODY_READY ? 0 : -EPROTO;
}

static void on_closed(struct ipc_channel *channel, int error, void *userdata)
{
    (void)error; /* its exit status says all */
    struct migration *migration = userdata;
    migration->control = ipc_channel_free(channel);
}

static int on_interrupt(
    sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
    (void)source;
    (void)info;
    struct migration *migration = userdata;
    (void)kill(migration->pid, migration->was_signalled ? SIGKILL : SIGTERM);
    migration->was_signalled = true;
    return 0;
}

static int on_child_signal(
    sd_event_source *source, const struct signalfd_siginfo *signal_info, void *userdata)
{
    (void)source;
    (void)signal_info;
    struct migration *migration = userdata;
    siginfo_t info = {0};
    if (waitid(P_PID, (id_t)migration->pid, &info, WEXITED | WNOHANG) < 0 || info.si_pid == 0)
        return 0;
    migration->pid = 0;
    int status = info.si_status;
    if (info.si_code != CLD_EXITED) {
        const char *name = sigabbrev_np(status);
        log_error("migration killed by signal signal=%s", name != NULL ? name : "unknown");
        status += SIGNAL_STATUS_BASE;
    }
    return sd_event_exit(migration->event, status);
}

static int open_loop(struct migration *migration)
{
    sigset_t blocked;
    (void)sigemptyset(&blocked);
    (void)sigaddset(&blocked, SIGINT);
    (void)sigaddset(&blocked, SIGTERM);
    (void)sigaddset(&blocked, SIGCHLD);
    if (sigprocmask(SIG_BLOCK, &blocked, NULL) < 0)
        return -errno;
    int result = sd_event_new(&migration->event);
    if (result < 0)
        return result;
    result = sd_event_add_signal(migration->event, NULL, SIGCHLD, on_child_signal, migration);
    if (result >= 0)
        result = sd_event_add_signal(migration->event, NULL, SIGINT, on_interrupt, migration);
    if (result >= 0)
        result = sd_event_add_signal(migration->event, NULL, SIGTERM, on_interrupt, migration);
    return result < 0 ? result : 0;
}

static int start_child(struct migration *migration, const char *const *words, int *ret_control_fd)
{
    char *arguments[3 + MIGRATION_MAX_WORDS] = {0};
    const char *const fixed[] = {CHILD_PROGRAM_WORKER, PROCESS_ROLE_MIGRATE};
    char *path = NULL;
    int result = child_program_find(CHILD_PROGRAM_WORKER, &path);
    size_t count = 0;
    for (; result == 0 && count < ARRAY_LENGTH(fixed); count++) {
        arguments[count] = strdup(fixed[count]);
        result = arguments[count] == NULL ? -ENOMEM : 0;
    }
    for (size_t i = 0; result == 0 && words[i] != NULL; i++, count++) {
        assert(i < MIGRATION_MAX_WORDS);
        arguments[count] = strdup(words[i]);
        result = arguments[count] == NULL ? -ENOMEM : 0;
    }
    const struct child_process_plan plan = {
        .program = path,
        .arguments = arguments,
        .scoreboard_fd = migration->scoreboard_fd,
        .outbox_wake_fd = -1,
    };
    if (result == 0)
        result = child_process_start(&plan, &migration->pid, ret_control_fd);
    for (size_t i = 0; i < ARRAY_LENGTH(arguments); i++)
        free(arguments[i]);
    free(path);
    return result;
}

static int send_start(struct migration *migration, const struct settings *settings)
{
    Userd__Ipc__Start *start = NULL;
    int result = settings_transfer_pack(settings, SETTING_FOR_WORKER, SLOT, 0, &start);
    if (result < 0)
        return result;
    Userd__Ipc__Frame frame = USERD__IPC__FRAME__INIT;
    frame.body_case = USERD__IPC__FRAME__BODY_START;
    frame.start = start;
    result = ipc_channel_send(migration->control, &frame, -1);
    settings_transfer_free(start);
    return result;
}

static int start(
    struct migration *migration, const struct settings *settings, const char *const *words)
{
    static const struct ipc_channel_handlers handlers = {
        .on_frame = on_frame, .on_closed = on_closed};
    int result = scoreboard_create(&migration->scoreboard, &migration->scoreboard_fd);
    if (result < 0)
        return result;
    result = open_loop(migration);
    if (result < 0)
        return result;
    int control_fd = -1;
    result = start_child(migration, words, &control_fd);
    if (result < 0)
        return result;
    result = ipc_channel_new(migration->event, control_fd, PROCESS_ROLE_MIGRATE, &handlers,
        migration, &migration->control);
    if (result < 0)
        return result;
    return send_start(migration, settings);
}

/* A child that outlives its loop, after an error of ours, is ended. */
static void cleanup(struct migration *migration)
{
    if (migration->pid > 0)
        child_process_kill(migration->pid);
    migration->control = ipc_channel_free(migration->control);
    migration->event = sd_event_unref(migration->event);
    scoreboard_close(migration->scoreboard);
    fd_close(&migration->scoreboard_fd);
}

int migration_run(
    const struct settings *settings, const char *const *words, bool *ret_was_interrupted)
{
    struct migration migration = {.scoreboard_fd = -1};
    int result = start(&migration, settings, words);
    if (result >= 0)
        result = sd_event_loop(migration.event);
    cleanup(&migration);
    if (ret_was_interrupted != NULL)
        *ret_was_interrupted = migration.was_signalled;
    if (result >= 0)
        return result;
    log_error("migration could not be run error=\"%s\"", strerror(-result));
    return EX_OSERR;
}
