#include "master/errand.h"

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
#define FIXED_WORDS        2   /* the program and its role */

struct role {
    const char *name;
    const char *program;
    const char *role;
    enum setting_audience audience;
    uint32_t slot; /* of the errand's own scoreboard */
};

static const struct role roles[] = {
    [ERRAND_MIGRATE] = {"migration", CHILD_PROGRAM_WORKER, PROCESS_ROLE_MIGRATE, SETTING_FOR_WORKER,
        SCOREBOARD_SLOT_EVENTD + 1},
    [ERRAND_DEAD_LETTERS] = {"dead-letters", CHILD_PROGRAM_EVENTD, PROCESS_ROLE_DEAD_LETTERS,
        SETTING_FOR_EVENTD, SCOREBOARD_SLOT_EVENTD},
};

struct errand {
    const struct role *role;
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
    struct errand *errand = userdata;
    errand->control = ipc_channel_free(channel);
}

static int on_interrupt(
    sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
    (void)source;
    (void)info;
    struct errand *errand = userdata;
    (void)kill(errand->pid, errand->was_signalled ? SIGKILL : SIGTERM);
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
    if (waitid(P_PID, (id_t)errand->pid, &info, WEXITED | WNOHANG) < 0 || info.si_pid == 0)
        return 0;
    errand->pid = 0;
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

static size_t count_words(const char *const *words)
{
    size_t count = 0;
    while (words[count] != NULL)
        count++;
    return count;
}

static void free_arguments(char **arguments)
{
    for (size_t i = 0; arguments[i] != NULL; i++)
        free(arguments[i]);
    free(arguments);
}

/* NULL without memory. */
static char **make_arguments(const struct role *role, const char *const *words)
{
    const char *const fixed[FIXED_WORDS] = {role->program, role->role};
    size_t word_count = count_words(words);
    char **arguments = calloc(FIXED_WORDS + word_count + 1, sizeof(char *));
    if (arguments == NULL)
        return NULL;
    for (size_t i = 0; i < FIXED_WORDS + word_count; i++) {
        arguments[i] = strdup(i < FIXED_WORDS ? fixed[i] : words[i - FIXED_WORDS]);
        if (arguments[i] == NULL) {
            free_arguments(arguments);
            return NULL;
        }
    }
    return arguments;
}

static int start_child(struct errand *errand, const char *const *words, int *ret_control_fd)
{
    char **arguments = make_arguments(errand->role, words);
    if (arguments == NULL)
        return -ENOMEM;
    char *path = NULL;
    int result = child_program_find(errand->role->program, &path);
    const struct child_process_plan plan = {
        .program = path,
        .arguments = arguments,
        .scoreboard_fd = errand->scoreboard_fd,
        .outbox_wake_fd = -1,
    };
    if (result == 0)
        result = child_process_start(&plan, &errand->pid, ret_control_fd);
    free_arguments(arguments);
    free(path);
    return result;
}

static int send_start(struct errand *errand, const struct settings *settings)
{
    Userd__Ipc__Start *start = NULL;
    int result =
        settings_transfer_pack(settings, errand->role->audience, errand->role->slot, 0, &start);
    if (result < 0)
        return result;
    Userd__Ipc__Frame frame = USERD__IPC__FRAME__INIT;
    frame.body_case = USERD__IPC__FRAME__BODY_START;
    frame.start = start;
    result = ipc_channel_send(errand->control, &frame, -1);
    settings_transfer_free(start);
    return result;
}

static int start(struct errand *errand, const struct settings *settings, const char *const *words)
{
    static const struct ipc_channel_handlers handlers = {
        .on_frame = on_frame, .on_closed = on_closed};
    int result = scoreboard_create(&errand->scoreboard, &errand->scoreboard_fd);
    if (result < 0)
        return result;
    result = open_loop(errand);
    if (result < 0)
        return result;
    int control_fd = -1;
    result = start_child(errand, words, &control_fd);
    if (result < 0)
        return result;
    result = ipc_channel_new(
        errand->event, control_fd, errand->role->role, &handlers, errand, &errand->control);
    if (result < 0)
        return result;
    return send_start(errand, settings);
}

/* A child that outlives its loop, after an error of ours, is ended. */
static void cleanup(struct errand *errand)
{
    if (errand->pid > 0)
        child_process_kill(errand->pid);
    errand->control = ipc_channel_free(errand->control);
    errand->event = sd_event_unref(errand->event);
    scoreboard_close(errand->scoreboard);
    fd_close(&errand->scoreboard_fd);
}

int errand_run(enum errand_kind kind, const struct settings *settings, const char *const *words,
    bool *ret_was_interrupted)
{
    struct errand errand = {.role = &roles[kind], .scoreboard_fd = -1};
    int result = start(&errand, settings, words);
    if (result >= 0)
        result = sd_event_loop(errand.event);
    cleanup(&errand);
    if (ret_was_interrupted != NULL)
        *ret_was_interrupted = errand.was_signalled;
    if (result >= 0)
        return result;
    log_error("%s could not be run error=\"%s\"", roles[kind].name, strerror(-result));
    return EX_OSERR;
}
