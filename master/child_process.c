#include "master/child_process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/file_descriptor.h"
#include "common/ipc_channel.h"
#include "common/log.h"
#include "common/process_protocol.h"

/* The child reports a failed exec here; it is close-on-exec, so an end of file means success. */
#define EXEC_REPORT_FD  (PROCESS_FD_OUTBOX_WAKE + 1)
#define FIRST_SAFE_FD   (EXEC_REPORT_FD + 1) /* above every number that has a meaning */
#define EXEC_TIMEOUT_MS 10000                /* a program on a hanging file system */
#define EXIT_NOT_RUN    127
#define ENVIRONMENT_MAX 64
#define KILL_TIMEOUT_MS 2000
#define KILL_POLL_MS    2

/* All that the child needs, made before fork: between fork and exec only async-signal-safe calls
 * are allowed. */
struct birth {
    const struct child_process_plan *plan;
    char *environment[ENVIRONMENT_MAX + 1];
    pid_t master_pid;
    int null_fd;
    int control_fd;
    int report_fd;
};

static bool is_passed_on(const char *variable)
{
    static const char *const patterns[] = PROCESS_ENVIRONMENT;
    size_t name_length = strcspn(variable, "=");
    for (size_t i = 0; patterns[i] != NULL; i++) {
        size_t length = strlen(patterns[i]);
        bool is_prefix = length > 0 && patterns[i][length - 1] == '*';
        if (is_prefix ? strncmp(variable, patterns[i], length - 1) == 0
                      : name_length == length && strncmp(variable, patterns[i], length) == 0)
            return true;
    }
    return false;
}

/* Fills in pointers into our own environment; what is over ENVIRONMENT_MAX (nothing that we know
 * of) stays here. */
static void select_environment(char *ret_selected[ENVIRONMENT_MAX + 1])
{
    size_t length = 0;
    for (size_t i = 0; environ[i] != NULL && length < ENVIRONMENT_MAX; i++)
        if (is_passed_on(environ[i]))
            ret_selected[length++] = environ[i];
    ret_selected[length] = NULL;
}

/* --- in the child: async-signal-safe only --- */

/* Default for all, but for those that may reach a child before it has decided anything about them:
 * a signal to the whole group, meant for the master, must not end a child that is being started.
 * What is ignored, and the mask, outlive the exec; SIGTERM waits until the child reads it. */
static int set_signals(void)
{
    static const int ignored[] = {SIGHUP, SIGINT, SIGUSR1, SIGUSR2};
    const struct sigaction by_default = {.sa_handler = SIG_DFL};
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    for (int number = 1; number < NSIG; number++)
        (void)sigaction(
            number, &by_default, NULL); /* EINVAL for SIGKILL, SIGSTOP and the C library's own */
    for (size_t i = 0; i < ARRAY_LENGTH(ignored); i++)
        if (sigaction(ignored[i], &ignore, NULL) < 0)
            return -1;
    sigset_t blocked;
    (void)sigemptyset(&blocked);
    (void)sigaddset(&blocked, SIGTERM);
    return sigprocmask(SIG_SETMASK, &blocked, NULL);
}

/* Moves *fd above all numbers that have a meaning, so that placing one cannot overwrite another. */
static int move_away(int *fd)
{
    if (*fd < 0 || *fd >= FIRST_SAFE_FD)
        return 0;
    int moved = fcntl(*fd, F_DUPFD_CLOEXEC, FIRST_SAFE_FD);
    if (moved < 0)
        return -1;
    *fd = moved;
    return 0;
}

static int place_descriptors(struct birth *birth)
{
    int scoreboard_fd = birth->plan->scoreboard_fd;
    int wake_fd = birth->plan->outbox_wake_fd;
    if (move_away(&birth->report_fd) < 0 || move_away(&birth->control_fd) < 0 ||
        move_away(&birth->null_fd) < 0 || move_away(&scoreboard_fd) < 0 || move_away(&wake_fd) < 0)
        return -1;
    if (dup3(birth->report_fd, EXEC_REPORT_FD, O_CLOEXEC) < 0)
        return -1;
    birth->report_fd = EXEC_REPORT_FD;
    if (dup2(birth->null_fd, STDIN_FILENO) < 0 || dup2(birth->control_fd, PROCESS_FD_CONTROL) < 0 ||
        dup2(scoreboard_fd, PROCESS_FD_SCOREBOARD) < 0)
        return -1;
    if (wake_fd >= 0 && dup2(wake_fd, PROCESS_FD_OUTBOX_WAKE) < 0)
        return -1;
    if (wake_fd < 0)
        (void)close(PROCESS_FD_OUTBOX_WAKE);
    return close_range(FIRST_SAFE_FD, ~0U, 0);
}

__attribute__((noreturn)) static void become_child(struct birth *birth)
{
    /* The order matters: a master that died before prctl() sends no signal any more. */
    bool is_bound = prctl(PR_SET_PDEATHSIG, SIGKILL) == 0;
    if (is_bound && getppid() != birth->master_pid)
        _exit(EXIT_NOT_RUN);
    if (is_bound && place_descriptors(birth) == 0 && set_signals() == 0)
        (void)execve(birth->plan->program, birth->plan->arguments, birth->environment);
    int error = errno;
    (void)!write(birth->report_fd, &error, sizeof(error));
    _exit(EXIT_NOT_RUN);
}

/* --- in the master --- */

/* 0 when the program was exec'd, or why not. */
static int wait_for_exec(int report_fd)
{
    struct pollfd entry = {.fd = report_fd, .events = POLLIN};
    int ready = 0;
    do {
        ready = poll(&entry, 1, EXEC_TIMEOUT_MS);
    } while (ready < 0 && errno == EINTR);
    if (ready < 0)
        return -errno;
    if (ready == 0)
        return -ETIMEDOUT;
    int error = 0;
    ssize_t length = read(report_fd, &error, sizeof(error));
    if (length == 0)
        return 0;
    return length == (ssize_t)sizeof(error) && error > 0 ? -error : -EIO;
}

void child_process_kill(pid_t pid)
{
    const struct timespec pause = {.tv_nsec = KILL_POLL_MS * 1000000L};
    (void)kill(pid, SIGKILL);
    for (int waited_ms = 0; waited_ms < KILL_TIMEOUT_MS; waited_ms += KILL_POLL_MS) {
        pid_t waited = waitpid(pid, NULL, WNOHANG);
        if (waited == pid || (waited < 0 && errno != EINTR))
            return;
        (void)nanosleep(&pause, NULL);
    }
    log_error("child does not die pid=%d", (int)pid);
}

int child_process_start(const struct child_process_plan *plan, pid_t *ret_pid, int *ret_control_fd)
{
    int null_fd CLEANUP(fd_close) = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null_fd < 0)
        return -errno;
    int pair[2];
    int result = ipc_channel_pair(pair);
    if (result < 0)
        return result;
    int our_fd CLEANUP(fd_close) = pair[0];
    int child_fd CLEANUP(fd_close) = pair[1];
    int report[2];
    if (pipe2(report, O_CLOEXEC) < 0)
        return -errno;
    int report_read_fd CLEANUP(fd_close) = report[0];
    int report_write_fd CLEANUP(fd_close) = report[1];

    struct birth birth = {
        .plan = plan,
        .master_pid = getpid(),
        .null_fd = null_fd,
        .control_fd = child_fd,
        .report_fd = report_write_fd,
    };
    select_environment(birth.environment);
    pid_t pid = fork();
    if (pid < 0)
        return -errno;
    if (pid == 0)
        become_child(&birth);

    fd_close(&report_write_fd);
    result = wait_for_exec(report_read_fd);
    if (result < 0) {
        child_process_kill(pid);
        return result;
    }
    *ret_pid = pid;
    *ret_control_fd = fd_take(&our_fd);
    return 0;
}
