/* Children that hang are replaced, a master that stood still kills nobody, and the service manager
 * is told how things are. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/file_descriptor.h"

#include "tests/harness/test_userd.h"

#define TIMEOUT_SETTING "supervision = { hang_timeout_ms = 6000; };"
#define WATCHED_MS      2500
#define STANDSTILL_MS   8000
#define NOTICE_SIZE     4096
#define NOTICES_SIZE    65536

static struct test_userd userd;
static char notify_directory[] = "/tmp/userd-notify.XXXXXX";
static int notify_fd = -1;
static char notices[NOTICES_SIZE]; /* all that was said, a record after the other */
static size_t notices_length;

static void fini(void)
{
    finally_userd(&userd);
    fd_close(&notify_fd);
}

TestSuite(liveness, .fini = fini, .timeout = 120);

static void given_service(int workers)
{
    const struct test_userd_options options = {
        .workers = workers, .has_broker = true, .top_settings = TIMEOUT_SETTING};
    given_userd(&userd, &options);
}

/* A signal to -1 would go to every process there is. */
static void when_signalled(pid_t pid, int number)
{
    cr_assert_gt(pid, 0, "no such child");
    cr_assert_eq(kill(pid, number), 0);
}

static pid_t only_child(const char *name)
{
    pid_t pids[TEST_MAX_MEMBERS];
    return test_process_children(userd.master.pid, name, pids) == 1 ? pids[0] : -1;
}

/* ---- the children ---- */

Test(liveness, a_stopped_worker_is_killed_and_replaced)
{
    given_service(1);
    given_user(&userd, 17, "trinity");
    pid_t worker = only_child("userd-worker");
    when_signalled(worker, SIGSTOP);
    then_log_says(&userd, "child hangs, killed role=worker slot=1");
    then_log_says(&userd, "thread=both");
    then_log_says(
        &userd, "child hangs on, killed role=worker slot=1"); /* SIGABRT does not wake it */
    bool is_replaced = TEST_WAIT_FOR(
        only_child("userd-worker") > 0 && only_child("userd-worker") != worker, TEST_TIMEOUT_MS);
    cr_assert(is_replaced, "no new worker");
    then_health_becomes(&userd, TEST_HEALTH_SERVING);
    then_name_is(&userd, 17, "trinity");
}

/* The number of a process's thread, by its name; -1: there is none of that name. */
static pid_t thread_of(pid_t pid, const char *name)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *tasks = opendir(path);
    cr_assert(tasks != NULL);
    pid_t found = -1;
    for (const struct dirent *entry = readdir(tasks); entry != NULL; entry = readdir(tasks)) {
        char comm[384];
        char line[32] = "";
        (void)snprintf(comm, sizeof(comm), "%s/%s/comm", path, entry->d_name);
        FILE *file = fopen(comm, "re");
        if (file == NULL)
            continue;
        if (fgets(line, sizeof(line), file) != NULL) {
            line[strcspn(line, "\n")] = '\0';
            found = strcmp(line, name) == 0 ? (pid_t)strtol(entry->d_name, NULL, 10) : found;
        }
        (void)fclose(file);
    }
    (void)closedir(tasks);
    return found;
}

/* As a thread that goes round for ever is: the others live on. Its tracer has to reap it. */
static void when_thread_stands_still(pid_t thread)
{
    cr_assert_gt(thread, 0, "no such thread");
    if (ptrace(PTRACE_SEIZE, thread, NULL, NULL) != 0 && errno == EPERM)
        cr_skip("a thread cannot be traced here: %s", strerror(errno));
    cr_assert_eq(ptrace(PTRACE_INTERRUPT, thread, NULL, NULL), 0, "%s", strerror(errno));
}

static void then_thread_is_reaped(pid_t thread)
{
    bool is_reaped = TEST_WAIT_FOR(
        waitpid(thread, NULL, __WALL | WNOHANG) < 0 && errno == ECHILD, TEST_TIMEOUT_MS);
    cr_assert(is_reaped, "the thread lives on");
}

static void then_worker_is_replaced(pid_t worker, pid_t thread, const char *said)
{
    then_log_says(&userd, "child hangs, killed role=worker slot=1");
    then_log_says(&userd, said);
    then_thread_is_reaped(thread);
    then_log_says(&userd, "crash signal=ABRT");
    then_log_says(&userd, "signal=ABRT");
    bool is_replaced = TEST_WAIT_FOR(
        only_child("userd-worker") > 0 && only_child("userd-worker") != worker, TEST_TIMEOUT_MS);
    cr_assert(is_replaced, "no new worker");
    then_health_becomes(&userd, TEST_HEALTH_SERVING);
}

Test(liveness, a_worker_whose_rpc_thread_hangs_is_replaced)
{
    given_service(1);
    pid_t worker = only_child("userd-worker");
    pid_t thread = thread_of(worker, "rpc");
    when_thread_stands_still(thread);
    then_worker_is_replaced(worker, thread, "thread=rpc");
}

Test(liveness, a_worker_whose_loop_hangs_is_replaced)
{
    given_service(1);
    pid_t worker = only_child("userd-worker");
    when_thread_stands_still(worker); /* the loop is the first thread's */
    then_worker_is_replaced(worker, worker, "thread=loop");
}

/* A line of the log that begins with `head`, of the worker, and the frames below it. */
static void then_stack_is_said(pid_t worker, const char *thread)
{
    char end[64];
    (void)snprintf(end, sizeof(end), " thread=%s\n", thread);
    char head[64];
    (void)snprintf(head, sizeof(head), "stack pid=%d tid=", (int)worker);
    char *log = test_file_read(userd.log_path, NULL);
    const char *found = strstr(log, head);
    while (found != NULL && strncmp(strchr(found, ' ') == NULL ? "" : strstr(found, " thread="),
                                end, strlen(end)) != 0)
        found = strstr(found + 1, head);
    cr_assert(found != NULL, "there is no stack of %s", thread);
    const char *frame = strchr(found, '\n') + 1;
    cr_assert(strncmp(frame, "stack ", 6) != 0 && strstr(frame, "(+0x") != NULL &&
                  strstr(frame, "userd-worker(") != NULL,
        "no frames below %.60s", found);
    free(log);
}

/* As a person asks it of one that hangs; and the signal has its own effect. */
Test(liveness, a_worker_that_is_told_to_abort_says_where_its_threads_are)
{
    static const struct {
        int number;
        const char *name;
    } signals[] = {
        {SIGABRT, "ABRT"},
        {SIGQUIT, "QUIT"},
#ifndef __SANITIZE_ADDRESS__ /* which takes this one for itself */
        {SIGSEGV, "SEGV"},
#endif
    };
    given_service(1);
    for (size_t i = 0; i < ARRAY_LENGTH(signals); i++) {
        bool is_there = TEST_WAIT_FOR(
            only_child("userd-worker") > 0 && thread_of(only_child("userd-worker"), "rpc") > 0,
            TEST_TIMEOUT_MS);
        cr_assert(is_there);
        pid_t worker = only_child("userd-worker");
        when_signalled(worker, signals[i].number);
        char line[96];
        (void)snprintf(line, sizeof(line),
            "child killed by signal role=worker slot=1 pid=%d signal=%s", (int)worker,
            signals[i].name);
        then_log_says(&userd, line);
        (void)snprintf(line, sizeof(line), "crash signal=%s pid=%d sender_pid=%d\n",
            signals[i].name, (int)worker, (int)getpid());
        then_log_says(&userd, line);
        then_stack_is_said(worker, "userd-worker");
        then_stack_is_said(worker, "rpc");
        then_stack_is_said(worker, "watch");
        bool is_replaced =
            TEST_WAIT_FOR(only_child("userd-worker") > 0 && only_child("userd-worker") != worker,
                TEST_TIMEOUT_MS);
        cr_assert(is_replaced, "no new worker");
    }
}

/* A stack is asked for, and the process goes on. */
Test(liveness, a_worker_that_is_asked_for_a_stack_lives_on)
{
    given_service(1);
    pid_t worker = only_child("userd-worker");
    when_signalled(worker, SIGUSR1);
    char line[64];
    (void)snprintf(line, sizeof(line), "stack pid=%d tid=", (int)worker);
    then_log_says(&userd, line);
    given_user(&userd, 17, "trinity");
    then_name_is(&userd, 17, "trinity");
    cr_assert_eq(only_child("userd-worker"), worker);
}

/* Its threads are still in the C core: they must not find it, or the scoreboard, gone. */
Test(liveness, a_worker_whose_drain_is_stuck_does_not_end_as_if_it_were_done)
{
    given_service(1);
    pid_t worker = only_child("userd-worker");
    pid_t thread = thread_of(worker, "rpc");
    when_thread_stands_still(thread);
    cr_assert_eq(kill(userd.master.pid, SIGTERM), 0);
    then_log_says(&userd, "drain stuck servers=");
    then_thread_is_reaped(thread);
    char line[64];
    (void)snprintf(line, sizeof(line), "slot=1 pid=%d status=70", (int)worker);
    then_log_says(&userd, line);
    char *log = test_file_read(userd.log_path, NULL);
    cr_assert(strstr(log, "rpc server leaked") == NULL, "it went on to free what its threads use");
    free(log);
}

Test(liveness, a_stopped_eventd_is_killed_and_replaced)
{
    given_service(1);
    pid_t eventd = only_child("userd-eventd");
    when_signalled(eventd, SIGSTOP);
    then_log_says(&userd, "child hangs, killed role=eventd slot=0");
    test_broker_send(&userd.broker, "registration", "{\"id\": 17, \"username\": \"trinity\"}");
    then_name_becomes(&userd, 17, "trinity");
    cr_assert_neq(only_child("userd-eventd"), eventd);
}

Test(liveness, nobody_is_killed_because_the_master_or_everyone_stood_still)
{
    given_service(1);
    pid_t worker = only_child("userd-worker");
    pid_t eventd = only_child("userd-eventd");
    /* the master watches them, and then has seen that they are silent */
    test_pause_ms(WATCHED_MS);
    when_signalled(worker, SIGSTOP);
    when_signalled(eventd, SIGSTOP);
    test_pause_ms(1200);
    cr_assert_eq(kill(userd.master.pid, SIGSTOP), 0);
    test_pause_ms(STANDSTILL_MS);
    cr_assert_eq(kill(userd.master.pid, SIGCONT), 0);
    /* long enough for the master to look, too short for a hang by its own watch */
    test_pause_ms(1000);
    when_signalled(worker, SIGCONT);
    when_signalled(eventd, SIGCONT);
    test_pause_ms(STANDSTILL_MS);
    cr_assert_eq(only_child("userd-worker"), worker, "the worker was killed");
    cr_assert_eq(only_child("userd-eventd"), eventd, "eventd was killed");
}

/* ---- the service manager ---- */

static void given_manager(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    cr_assert(mkdtemp(notify_directory) != NULL);
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/notify", notify_directory);
    notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    cr_assert(notify_fd >= 0);
    cr_assert_eq(bind(notify_fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    cr_assert_eq(setenv("NOTIFY_SOCKET", address.sun_path, 1), 0);
    cr_assert_eq(setenv("WATCHDOG_USEC", "5000000", 1), 0);
}

static bool was_said(const char *text)
{
    char notice[NOTICE_SIZE];
    for (;;) {
        ssize_t length = recv(notify_fd, notice, sizeof(notice), 0);
        if (length <= 0)
            break;
        cr_assert(notices_length + (size_t)length + 1 < sizeof(notices));
        memcpy(notices + notices_length, notice, (size_t)length);
        notices_length += (size_t)length;
        notices[notices_length++] = '\n';
    }
    return strstr(notices, text) != NULL;
}

static void then_manager_hears(const char *text)
{
    cr_assert(
        TEST_WAIT_FOR(was_said(text), TEST_TIMEOUT_MS), "\"%s\" is not in: %s", text, notices);
}

static void finally_no_manager(void)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "%s/notify", notify_directory);
    (void)unlink(path);
    (void)rmdir(notify_directory);
}

Test(liveness, the_manager_hears_of_every_phase)
{
    given_manager();
    given_service(2);
    then_manager_hears("READY=1\n");
    then_manager_hears("WATCHDOG=1\n");
    then_manager_hears("STATUS=2 workers, ");
    then_manager_hears(" calls/s, outbox 0\n");
    cr_assert(!was_said("RELOADING=1"));
    cr_assert_eq(kill(userd.master.pid, SIGHUP), 0);
    then_manager_hears("RELOADING=1\nMONOTONIC_USEC=");
    then_log_says(&userd, "serving workers=2 generation=2");
    cr_assert(!was_said("STOPPING=1"));
    when_userd_stops(&userd);
    then_manager_hears("STOPPING=1\nSTATUS=draining");
    then_manager_hears("EXTEND_TIMEOUT_USEC=");
    finally_no_manager();
}
