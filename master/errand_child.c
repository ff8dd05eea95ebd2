#include "master/errand_child.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/file_descriptor.h"
#include "common/log.h"
#include "common/scoreboard.h"
#include "common/settings_transfer.h"
#include "master/child_process.h"
#include "master/child_program.h"

#define FIXED_WORDS     2 /* the program and its role */
#define KILL_TIMEOUT_MS 2000

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
static char **make_arguments(const struct errand_child_plan *plan)
{
    const char *const fixed[FIXED_WORDS] = {plan->program, plan->role};
    size_t word_count = count_words(plan->words);
    char **arguments = calloc(FIXED_WORDS + word_count + 1, sizeof(char *));
    if (arguments == NULL)
        return NULL;
    for (size_t i = 0; i < FIXED_WORDS + word_count; i++) {
        arguments[i] = strdup(i < FIXED_WORDS ? fixed[i] : plan->words[i - FIXED_WORDS]);
        if (arguments[i] == NULL) {
            free_arguments(arguments);
            return NULL;
        }
    }
    return arguments;
}

static int start_program(
    struct errand_child *child, const struct errand_child_plan *plan, int *ret_control_fd)
{
    char **arguments = make_arguments(plan);
    if (arguments == NULL)
        return -ENOMEM;
    char *path = NULL;
    int result = child_program_find(plan->program, &path);
    const struct child_process_plan process = {
        .program = path,
        .arguments = arguments,
        .scoreboard_fd = child->scoreboard_fd,
        .outbox_wake_fd = -1,
    };
    if (result == 0)
        result = child_process_start(&process, &child->pid, ret_control_fd);
    free_arguments(arguments);
    free(path);
    return result;
}

static int send_start(struct errand_child *child, const struct errand_child_plan *plan,
    const struct settings *settings)
{
    Userd__Ipc__Start *start = NULL;
    int result = settings_transfer_pack(settings, plan->audience, plan->slot, 0, &start);
    if (result < 0)
        return result;
    Userd__Ipc__Frame frame;
    userd__ipc__frame__init(&frame);
    frame.body_case = USERD__IPC__FRAME__BODY_START;
    frame.start = start;
    result = ipc_channel_send(child->control, &frame, -1);
    settings_transfer_free(start);
    return result;
}

int errand_child_start(struct errand_child *child, sd_event *event,
    const struct errand_child_plan *plan, const struct settings *settings,
    const struct ipc_channel_handlers *handlers, void *userdata)
{
    *child = (struct errand_child){.scoreboard_fd = -1, .pid_fd = -1};
    int result = scoreboard_create(&child->scoreboard, &child->scoreboard_fd);
    if (result < 0)
        return result;
    int control_fd = -1;
    result = start_program(child, plan, &control_fd);
    if (result < 0)
        return result;
    child->pid_fd = (int)syscall(SYS_pidfd_open, child->pid, 0);
    if (child->pid_fd < 0) {
        result = -errno;
        child_process_kill(child->pid);
        fd_close(&control_fd);
        return result;
    }
    result = ipc_channel_new(event, control_fd, plan->role, handlers, userdata, &child->control);
    return result < 0 ? result : send_start(child, plan, settings);
}

void errand_child_end(struct errand_child *child)
{
    /* refused for one that was reaped; a zombie takes it */
    if (child->pid_fd >= 0 &&
        syscall(SYS_pidfd_send_signal, child->pid_fd, SIGKILL, NULL, 0) == 0) {
        struct pollfd entry = {.fd = child->pid_fd, .events = POLLIN};
        if (poll(&entry, 1, KILL_TIMEOUT_MS) <= 0)
            log_error("child does not die pid=%d", (int)child->pid);
        (void)waitpid(child->pid, NULL, WNOHANG);
    }
    fd_close(&child->pid_fd);
    child->control = ipc_channel_free(child->control);
    scoreboard_close(child->scoreboard);
    child->scoreboard = NULL;
    fd_close(&child->scoreboard_fd);
}
