#include "master/upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/file_descriptor.h"
#include "common/monotonic_clock.h"
#include "master/child_process.h"
#include "master/handover.h"

#define ASK_TIMEOUT_MS   UINT64_C(5000) /* nobody is accepted meanwhile: the backlog holds them */
#define WAIT_STEP_MS     2
#define SAID_SIZE        400
#define EXIT_NOT_RUN     127
#define DELETED_SUFFIX   " (deleted)"
#define FD_TEXT_SIZE     16
#define PROGRAM_NAME     "userd"
#define ARGUMENTS_LENGTH 5

int upgrade_find_program(char **ret_path)
{
    char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);
    if (length < 0)
        return -errno;
    path[length] = '\0';
    /* of a file that was replaced the kernel says so behind its name */
    char *suffix = strstr(path, DELETED_SUFFIX);
    if (suffix != NULL && suffix[strlen(DELETED_SUFFIX)] == '\0')
        *suffix = '\0';
    *ret_path = strdup(path);
    return *ret_path == NULL ? -ENOMEM : 0;
}

/* Returns only on failure: negative errno. */
static int exec_program(const char *program, const char *word, const char *file,
    const Userd__Handover__State *state, int handover_fd)
{
    char number[FD_TEXT_SIZE];
    (void)snprintf(number, sizeof(number), "%d", handover_fd);
    char *const arguments[ARGUMENTS_LENGTH] = {borrow_const(PROGRAM_NAME), borrow_const(word),
        borrow_const("-c"), borrow_const(file), NULL};
    int result = handover_set_inherited(state, true);
    if (result < 0)
        return result;
    if (fcntl(handover_fd, F_SETFD, 0) < 0 || setenv(HANDOVER_VARIABLE, number, 1) < 0)
        return -errno;
    (void)execv(program, arguments);
    return -errno;
}

__attribute__((noreturn)) static void run_check(const char *program, const char *file,
    const Userd__Handover__State *state, int handover_fd, int output_fd)
{
    int result = prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || dup2(output_fd, STDOUT_FILENO) < 0 ||
                         dup2(output_fd, STDERR_FILENO) < 0
                     ? -errno
                     : exec_program(program, "handover-check", file, state, handover_fd);
    (void)dprintf(output_fd, "%s", strerror(-result));
    _exit(EXIT_NOT_RUN);
}

/* What it says, up to the end of its output or of the time. */
static void read_output(int fd, uint64_t deadline_us, char ret_said[SAID_SIZE])
{
    size_t length = 0;
    for (;;) {
        uint64_t now_us = monotonic_clock_us();
        struct pollfd entry = {.fd = fd, .events = POLLIN};
        char dropped[SAID_SIZE];
        bool is_full = length == SAID_SIZE - 1;
        if (now_us >= deadline_us ||
            poll(&entry, 1, (int)((deadline_us - now_us) / MONOTONIC_CLOCK_US_PER_MS) + 1) <= 0)
            break;
        ssize_t count = is_full ? read(fd, dropped, sizeof(dropped))
                                : read(fd, ret_said + length, SAID_SIZE - 1 - length);
        if (count <= 0)
            break;
        length += is_full ? 0 : (size_t)count;
    }
    ret_said[length] = '\0';
}

/* The exit status; -1 when it was ended by a signal or by us. */
static int await_end(pid_t pid, uint64_t deadline_us)
{
    for (;;) {
        int status = 0;
        pid_t waited = waitpid(pid, &status, WNOHANG);
        if (waited == pid)
            return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        if (monotonic_clock_us() >= deadline_us)
            break;
        (void)poll(NULL, 0, WAIT_STEP_MS);
    }
    child_process_kill(pid);
    return -1;
}

int upgrade_ask(const char *program, const char *file, const Userd__Handover__State *state,
    int handover_fd, struct settings_complaints *complaints)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    int read_fd CLEANUP(fd_close) = ends[0];
    int write_fd CLEANUP(fd_close) = ends[1];
    uint64_t deadline_us = monotonic_clock_us() + ASK_TIMEOUT_MS * MONOTONIC_CLOCK_US_PER_MS;
    pid_t pid = fork();
    if (pid < 0)
        return -errno;
    if (pid == 0)
        run_check(program, file, state, handover_fd, write_fd);
    fd_close(&write_fd);
    char said[SAID_SIZE];
    read_output(read_fd, deadline_us, said);
    int status = await_end(pid, deadline_us);
    if (status == 0 && strcmp(said, HANDOVER_AGREEMENT) == 0)
        return 0;
    size_t length = strlen(said);
    if (length > 0 && said[length - 1] == '\n')
        said[length - 1] = '\0';
    if (status == EXIT_NOT_RUN)
        settings_complaints_add(complaints, NULL, 0, "%s cannot be run: %s", program, said);
    else if (status < 0)
        settings_complaints_add(complaints, NULL, 0,
            "%s did not say in time whether it takes over, or was killed: %s", program, said);
    else
        settings_complaints_add(complaints, NULL, 0,
            "%s does not take over, it ended with %d and said: %s", program, status, said);
    return -ENOEXEC;
}

void upgrade_become(const char *program, const char *file, const Userd__Handover__State *state,
    int handover_fd, struct settings_complaints *complaints)
{
    int result = exec_program(program, "run", file, state, handover_fd);
    (void)unsetenv(HANDOVER_VARIABLE);
    (void)fcntl(handover_fd, F_SETFD, FD_CLOEXEC);
    int undone = handover_set_inherited(state, false);
    settings_complaints_add(complaints, NULL, 0, "%s cannot be run: %s%s", program,
        strerror(-result), undone < 0 ? " (and descriptors stay inheritable)" : "");
}
