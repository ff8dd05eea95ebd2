#include "common/crash_report.h"

#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/attributes.h"

/* Everything below that runs in a handler is async-signal-safe, but for backtrace(): it is once it
 * has loaded what it needs, which crash_report_install() sees to. */

#define FRAMES_MAX      64
#define THREADS_MAX     64
#define STACK_SIZE      65536
#define LINE_SIZE       160
#define ANSWER_STEPS    100 /* of a millisecond each: how long a thread is waited for */
#define DIRECTORY_BYTES 4096
#define THREAD_SIGNAL   SIGUSR1

static const int fault_signals[] = {SIGABRT, SIGQUIT, SIGSEGV, SIGBUS, SIGILL, SIGFPE};

static atomic_bool has_begun;
static atomic_uint stacks_written;

struct linux_dirent64 {
    uint64_t inode;
    int64_t offset;
    unsigned short length;
    unsigned char type;
    char name[];
};

struct line {
    char text[LINE_SIZE];
    size_t length;
};

static void add_text(struct line *line, const char *text)
{
    while (*text != '\0' && line->length < sizeof(line->text) - 1)
        line->text[line->length++] = *text++;
}

static void add_number(struct line *line, unsigned int number)
{
    char digits[12];
    size_t first = sizeof(digits) - 1;
    digits[first] = '\0';
    do {
        digits[--first] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    add_text(line, digits + first);
}

static void write_line(struct line *line)
{
    line->text[line->length++] = '\n';
    (void)!write(STDERR_FILENO, line->text, line->length);
}

static pid_t own_thread(void)
{
    return (pid_t)syscall(SYS_gettid);
}

static void write_stack(void)
{
    char name[16] = "";
    (void)prctl(PR_GET_NAME, name);
    struct line line = {.length = 0};
    add_text(&line, "stack pid=");
    add_number(&line, (unsigned int)getpid());
    add_text(&line, " tid=");
    add_number(&line, (unsigned int)own_thread());
    add_text(&line, " thread=");
    add_text(&line, name);
    write_line(&line);
    void *frames[FRAMES_MAX];
    int count = backtrace(frames, FRAMES_MAX);
    backtrace_symbols_fd(frames, count, STDERR_FILENO);
}

static void on_stack_wanted(int number)
{
    int error = errno;
    (void)number;
    write_stack();
    atomic_fetch_add(&stacks_written, 1);
    errno = error;
}

/* One that does not answer (it is stopped, or blocks the signal) is left out. */
static void ask_thread(pid_t thread)
{
    unsigned int before = atomic_load(&stacks_written);
    if (syscall(SYS_tgkill, getpid(), thread, THREAD_SIGNAL) < 0)
        return;
    for (int i = 0; i < ANSWER_STEPS && atomic_load(&stacks_written) == before; i++)
        (void)poll(NULL, 0, 1);
}

static void ask_other_threads(void)
{
    int fd = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    _Alignas(struct linux_dirent64) char bytes[DIRECTORY_BYTES];
    int asked = 0;
    for (;;) {
        long length = syscall(SYS_getdents64, fd, bytes, sizeof(bytes));
        if (length <= 0)
            break;
        for (long at = 0; at < length && asked < THREADS_MAX;) {
            const struct linux_dirent64 *entry = (const void *)(bytes + at);
            pid_t thread = (pid_t)strtol(entry->name, NULL, 10); /* 0: "." and ".." */
            at += entry->length;
            if (thread <= 0 || thread == own_thread())
                continue;
            ask_thread(thread);
            asked++;
        }
    }
    (void)close(fd);
}

static void write_head(int number, const siginfo_t *info, bool is_sent)
{
    const char *name = sigabbrev_np(number);
    struct line line = {.length = 0};
    add_text(&line, "crash signal=");
    add_text(&line, name != NULL ? name : "?");
    add_text(&line, " pid=");
    add_number(&line, (unsigned int)getpid());
    if (is_sent) {
        add_text(&line, " sender_pid=");
        add_number(&line, (unsigned int)info->si_pid);
    }
    write_line(&line);
}

static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)context;
    int error = errno;
    bool is_sent = info->si_code <= 0; /* by a process: signal(7), "SI_USER" and others */
    if (!atomic_exchange(&has_begun, true)) {
        write_head(number, info, is_sent);
        write_stack();
        if (is_sent)
            ask_other_threads();
    }
    /* The signal's own effect: of a fault the instruction is run again, what was sent is sent
     * again. */
    (void)signal(number, SIG_DFL);
    if (is_sent)
        (void)syscall(SYS_tgkill, getpid(), own_thread(), number);
    errno = error;
}

void crash_report_fill_mask(sigset_t *ret_mask)
{
    (void)sigfillset(ret_mask);
    (void)sigdelset(ret_mask, THREAD_SIGNAL);
    for (size_t i = 0; i < ARRAY_LENGTH(fault_signals); i++)
        (void)sigdelset(ret_mask, fault_signals[i]);
}

void crash_report_install(void)
{
    /* For a stack that has run over. Other threads' cannot say more than their core does then. */
    static char stack[STACK_SIZE];
    const stack_t alternate = {.ss_sp = stack, .ss_size = sizeof(stack)};
    (void)sigaltstack(&alternate, NULL);
    void *frames[1];
    (void)backtrace(frames, 1); /* loads the unwinder */

    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    (void)sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < ARRAY_LENGTH(fault_signals); i++) {
        struct sigaction before;
        /* a sanitizer's own report says more */
        if (sigaction(fault_signals[i], NULL, &before) == 0 && before.sa_handler == SIG_DFL)
            (void)sigaction(fault_signals[i], &action, NULL);
    }
    struct sigaction answer = {.sa_handler = on_stack_wanted, .sa_flags = SA_RESTART | SA_ONSTACK};
    (void)sigfillset(&answer.sa_mask);
    (void)sigaction(THREAD_SIGNAL, &answer, NULL);
}
