#include "tests/harness/test_process.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/file_descriptor.h"

#define READ_CHUNK 65536

int64_t test_now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void test_pause_ms(int64_t duration_ms)
{
    struct timespec pause = {
        .tv_sec = duration_ms / 1000, .tv_nsec = (duration_ms % 1000) * 1000000};
    (void)nanosleep(&pause, NULL);
}

static void apply_environment(const char *const *environment)
{
    for (size_t i = 0; environment != NULL && environment[i] != NULL; i++) {
        if (strchr(environment[i], '=') != NULL)
            (void)putenv(strdup(environment[i]));
        else
            (void)unsetenv(environment[i]);
    }
}

/* In the child, between fork and exec. */
static void become(const char *const *argv, const char *const *environment, int output_fd)
{
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0 || dup2(output_fd, STDOUT_FILENO) < 0 ||
        dup2(output_fd, STDERR_FILENO) < 0)
        _exit(126);
    /* What the test has open (gRPC's, libpq's) is none of the program's. */
    if (close_range(STDERR_FILENO + 1, UINT_MAX, 0) < 0)
        _exit(126);
    apply_environment(environment);
    (void)execv(argv[0], (char *const *)(uintptr_t)argv);
    (void)dprintf(STDERR_FILENO, "cannot execute %s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

void test_process_start(struct test_process *process, const char *const *argv,
    const char *const *environment, const char *output_path)
{
    *process = (struct test_process){.pid = -1};
    (void)snprintf(process->output_path, sizeof(process->output_path), "%s", output_path);
    int output_fd CLEANUP(fd_close) =
        open(output_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    cr_assert(output_fd >= 0, "cannot write %s", output_path);
    process->pid = fork();
    cr_assert(process->pid >= 0, "cannot fork");
    if (process->pid == 0)
        become(argv, environment, output_fd);
}

static bool has_ended(struct test_process *process)
{
    if (process->has_ended)
        return true;
    int status = 0;
    pid_t pid = waitpid(process->pid, &status, WNOHANG);
    if (pid == 0)
        return false;
    process->has_ended = true;
    process->exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return true;
}

bool test_process_is_running(struct test_process *process)
{
    return !has_ended(process);
}

int test_process_wait(struct test_process *process, int64_t timeout_ms)
{
    return TEST_WAIT_FOR(has_ended(process), timeout_ms) ? process->exit_status : -1;
}

int test_process_stop(struct test_process *process, int signal, int64_t timeout_ms)
{
    if (!has_ended(process))
        (void)kill(process->pid, signal);
    int status = test_process_wait(process, timeout_ms);
    if (status < 0) {
        (void)kill(process->pid, SIGKILL);
        (void)test_process_wait(process, TEST_TIMEOUT_MS);
    }
    return status;
}

int test_process_run(const char *const *argv, const char *const *environment, const char *directory,
    char **ret_output)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s/output.XXXXXX", directory);
    int fd CLEANUP(fd_close) = mkstemp(path);
    cr_assert(fd >= 0, "cannot make %s", path);
    struct test_process process;
    test_process_start(&process, argv, environment, path);
    int status = test_process_stop(&process, 0, 2 * (int64_t)TEST_TIMEOUT_MS);
    *ret_output = test_file_read(path, NULL);
    (void)unlink(path);
    cr_assert(status >= 0, "%s did not end in time and said: %s", argv[0], *ret_output);
    return status;
}

/* Parent and program name of `pid`, from /proc/PID/stat: "12 (name) S 1 ...". */
static pid_t parent_of(pid_t pid, char ret_name[NAME_MAX])
{
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    char *stat = test_file_read(path, NULL);
    char *open = strchr(stat, '(');
    char *close = strrchr(stat, ')');
    pid_t parent = -1;
    ret_name[0] = '\0';
    if (open != NULL && close != NULL && close[1] != '\0' && close[2] != 'Z') {
        (void)snprintf(ret_name, NAME_MAX, "%.*s", (int)(close - open - 1), open + 1);
        parent = (pid_t)strtol(close + 3, NULL, 10);
    }
    free(stat);
    return parent;
}

static int compare_pids(const void *left, const void *right)
{
    return *(const pid_t *)left - *(const pid_t *)right;
}

size_t test_process_children(pid_t parent, const char *name, pid_t ret_pids[TEST_MAX_MEMBERS])
{
    size_t count = 0;
    DIR *proc = opendir("/proc");
    cr_assert(proc != NULL, "no /proc");
    for (struct dirent *entry = readdir(proc); entry != NULL; entry = readdir(proc)) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        char found[NAME_MAX];
        if (pid > 0 && count < TEST_MAX_MEMBERS && parent_of(pid, found) == parent &&
            strcmp(found, name) == 0)
            ret_pids[count++] = pid;
    }
    (void)closedir(proc);
    qsort(ret_pids, count, sizeof(ret_pids[0]), compare_pids);
    return count;
}

void test_process_limit_descriptors(pid_t pid, int count)
{
    struct rlimit limit;
    cr_assert_eq(prlimit(pid, RLIMIT_NOFILE, NULL, &limit), 0, "no process %d", (int)pid);
    limit.rlim_cur = count < 0 ? limit.rlim_max : (rlim_t)count;
    cr_assert_eq(prlimit(pid, RLIMIT_NOFILE, &limit, NULL), 0, "no limit for %d", (int)pid);
}

int test_process_free_descriptor(pid_t pid)
{
    char path[64];
    int fd = -1;
    do {
        fd++;
        (void)snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", (int)pid, fd);
    } while (access(path, F_OK) == 0);
    return fd;
}

size_t test_process_sockets(pid_t pid)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *directory = opendir(path);
    if (directory == NULL)
        return 0;
    static const char kind[] = "socket:";
    size_t count = 0;
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
        char target[64];
        ssize_t length = readlinkat(dirfd(directory), entry->d_name, target, sizeof(target));
        count += length >= (ssize_t)strlen(kind) && memcmp(target, kind, strlen(kind)) == 0 ? 1 : 0;
    }
    (void)closedir(directory);
    return count;
}

char *test_file_read(const char *path, size_t *ret_length)
{
    size_t length = 0;
    char *text = calloc(1, READ_CHUNK + 1);
    int fd CLEANUP(fd_close) = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t count = fd < 0 ? 0 : 1;
    while (count > 0 && text != NULL) {
        count = read(fd, text + length, READ_CHUNK);
        if (count > 0) {
            length += (size_t)count;
            text = realloc(text, length + READ_CHUNK + 1);
        }
    }
    cr_assert(text != NULL, "out of memory");
    text[length] = '\0';
    if (ret_length != NULL)
        *ret_length = length;
    return text;
}

void test_file_write(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");
    cr_assert(file != NULL, "cannot write %s", path);
    cr_assert(fputs(text, file) >= 0 && fclose(file) == 0, "cannot write %s", path);
}
