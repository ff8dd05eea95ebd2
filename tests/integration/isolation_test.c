/* The processes as they run: what each links and knows, how connections are spread over them, and
 * how they end. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/file_descriptor.h"
#include "common/process_protocol.h"
#include "common/scoreboard.h"

#include "tests/harness/test_userd.h"

#define CONNECTIONS 8
#define CHUNK_BYTES (1024 * 1024)

static struct test_userd userd;
static struct test_rpc clients[CONNECTIONS];

static void fini(void)
{
    for (size_t i = 0; i < CONNECTIONS; i++)
        test_rpc_close(&clients[i]);
    finally_userd(&userd);
}

TestSuite(isolation, .fini = fini, .timeout = 120);

static void given_service(int workers, bool has_broker)
{
    const struct test_userd_options options = {.workers = workers, .has_broker = has_broker};
    given_userd(&userd, &options);
}

static void then_links_none_of(const char *program, const char *const *libraries)
{
    const char *const argv[] = {"/usr/bin/ldd", program, NULL};
    char *output = NULL;
    cr_assert_eq(test_process_run(argv, NULL, "/tmp", &output), 0, "%s", output);
    for (size_t i = 0; libraries[i] != NULL; i++)
        cr_assert(strstr(output, libraries[i]) == NULL, "%s links %s", program, libraries[i]);
    free(output);
}

Test(isolation, each_program_links_only_what_its_part_needs)
{
    given_service(1, false);
    then_links_none_of(TEST_USERD, (const char *const[]){"libgrpc", "libpq", "librdkafka", NULL});
    then_links_none_of(TEST_USERD_WORKER, (const char *const[]){"librdkafka", NULL});
    then_links_none_of(TEST_USERD_EVENTD, (const char *const[]){"libgrpc", "libpq", NULL});
}

/* Whether the memory of a process holds the text: all of its writable mappings. */
static bool memory_holds(pid_t pid, const char *text)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/%d/maps", pid);
    char *maps = test_file_read(path, NULL);
    (void)snprintf(path, sizeof(path), "/proc/%d/mem", pid);
    int fd CLEANUP(fd_close) = open(path, O_RDONLY | O_CLOEXEC);
    cr_assert(fd >= 0, "cannot read %s", path);
    char *chunk = malloc(CHUNK_BYTES);
    cr_assert(chunk != NULL);
    bool is_found = false;
    char *rest = NULL;
    for (char *line = strtok_r(maps, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        unsigned long start = 0;
        unsigned long end = 0;
        char rights[5];
        /* What is shared is the scoreboard; shadow memory of a sanitizer is huge and holds nothing.
         */
        if (sscanf(line, "%lx-%lx %4s", &start, &end, rights) != 3 || strcmp(rights, "rw-p") != 0 ||
            end - start > 1024UL * CHUNK_BYTES)
            continue;
        for (unsigned long at = start; at < end && !is_found; at += CHUNK_BYTES / 2) {
            size_t size = end - at < CHUNK_BYTES ? end - at : CHUNK_BYTES;
            ssize_t count = pread(fd, chunk, size, (off_t)at);
            is_found = count > 0 && memmem(chunk, (size_t)count, text, strlen(text)) != NULL;
        }
    }
    free(chunk);
    free(maps);
    return is_found;
}

static bool environment_holds(pid_t pid, const char *text)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/%d/environ", pid);
    size_t length = 0;
    char *environment = test_file_read(path, &length);
    bool is_found = memmem(environment, length, text, strlen(text)) != NULL;
    free(environment);
    return is_found;
}

Test(isolation, a_worker_knows_nothing_of_kafka_and_eventd_nothing_of_the_database)
{
    given_service(1, true);
    /* With something to do behind them, so that what would be passed on has been. */
    test_broker_send(&userd.broker, "registration", "{\"id\": 17, \"username\": \"trinity\"}");
    then_name_becomes(&userd, 17, "trinity");
    pid_t workers[TEST_MAX_MEMBERS];
    pid_t eventds[TEST_MAX_MEMBERS];
    cr_assert_eq(test_process_children(userd.master.pid, "userd-worker", workers), 1, "no worker");
    cr_assert_eq(test_process_children(userd.master.pid, "userd-eventd", eventds), 1);
    /* The check itself must be able to find what is there. */
    cr_assert(memory_holds(eventds[0], userd.broker.servers), "eventd does not know its broker");
    cr_assert(memory_holds(workers[0], userd.database.name), "a worker does not know its database");
    cr_assert(!memory_holds(workers[0], userd.broker.servers), "a worker knows the broker");
    cr_assert(!memory_holds(eventds[0], userd.database.name), "eventd knows the database");
    cr_assert(!environment_holds(workers[0], "KAFKA") && !environment_holds(eventds[0], "DB_URL"));
}

Test(isolation, a_secret_of_kafka_reaches_eventd_alone_and_no_log)
{
    static const struct test_userd_options options = {
        .has_broker = true, .kafka_settings = "options = { sasl_password = \"open-sesame-42\"; };"};
    given_userd(&userd, &options);
    pid_t workers[TEST_MAX_MEMBERS];
    pid_t eventds[TEST_MAX_MEMBERS];
    cr_assert_eq(test_process_children(userd.master.pid, "userd-worker", workers), 1, "no worker");
    cr_assert_eq(test_process_children(userd.master.pid, "userd-eventd", eventds), 1);
    cr_assert(memory_holds(eventds[0], "open-sesame-42"), "eventd does not know the password");
    cr_assert(!memory_holds(workers[0], "open-sesame-42"), "a worker knows the password");
    char *log = test_file_read(userd.log_path, NULL);
    cr_assert(strstr(log, "open-sesame-42") == NULL, "the log holds the password");
    free(log);
}

Test(isolation, a_property_that_librdkafka_does_not_know_ends_the_start_with_its_name)
{
    static const struct test_userd_options options = {
        .skips_start = true, .kafka_settings = "options = { securty_protocol = \"SSL\"; };"};
    given_userd(&userd, &options);
    const char *const argv[] = {TEST_USERD, "run", "-c", userd.config_path, NULL};
    test_process_start(&userd.master, argv, NULL, userd.log_path);
    int status = test_process_wait(&userd.master, TEST_TIMEOUT_MS);
    cr_assert(status > 0, "userd ended with %d", status);
    then_log_says(&userd, "kafka.options.securty_protocol: librdkafka ");
    then_log_says(&userd, "did you mean security_protocol?");
}

Test(isolation, a_childs_environment_holds_neither_url_nor_servers)
{
    static const struct test_userd_options options = {.skips_start = true};
    given_userd(&userd, &options);
    char database_url[600];
    (void)snprintf(database_url, sizeof(database_url), "DB_URL=%s", userd.database.url);
    const char *const environment[] = {database_url, "KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:9", NULL};
    const char *const argv[] = {TEST_USERD, "run", "-c", userd.config_path, NULL};
    test_process_start(&userd.master, argv, environment, userd.log_path);
    userd.is_started = true;
    pid_t workers[TEST_MAX_MEMBERS];
    pid_t eventds[TEST_MAX_MEMBERS];
    bool is_started =
        TEST_WAIT_FOR(test_process_children(userd.master.pid, "userd-worker", workers) == 1 &&
                          test_process_children(userd.master.pid, "userd-eventd", eventds) == 1,
            TEST_TIMEOUT_MS);
    cr_assert(is_started, "no children");
    cr_assert(environment_holds(userd.master.pid, "DB_URL"), "the check finds nothing");
    cr_assert(!environment_holds(workers[0], "DB_URL") && !environment_holds(workers[0], "KAFKA"));
    cr_assert(!environment_holds(eventds[0], "DB_URL") && !environment_holds(eventds[0], "KAFKA"));
}

/* Established connections of a listener's port that a process holds, by the inodes of its sockets.
 */
static size_t count_connections(pid_t pid, int port)
{
    char *table = test_file_read("/proc/net/tcp", NULL);
    size_t count = 0;
    char *rest = NULL;
    for (char *line = strtok_r(table, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        unsigned int local_port = 0;
        unsigned int state = 0;
        unsigned long inode = 0;
        int fields = sscanf(line, " %*d: %*x:%x %*x:%*x %x %*x:%*x %*x:%*x %*x %*d %*d %lu",
            &local_port, &state, &inode);
        if (fields != 3 || local_port != (unsigned int)port || state != 1)
            continue;
        char command[128];
        (void)snprintf(command, sizeof(command),
            "ls -l /proc/%d/fd 2>/dev/null | grep -q 'socket:\\[%lu\\]'", pid, inode);
        const char *const argv[] = {"/bin/sh", "-c", command, NULL};
        char *output = NULL;
        count += test_process_run(argv, NULL, "/tmp", &output) == 0 ? 1 : 0;
        free(output);
    }
    free(table);
    return count;
}

static void when_clients_connect(size_t first, size_t count)
{
    for (size_t i = first; i < first + count; i++) {
        struct test_reply reply;
        test_rpc_open(&clients[i], userd.post_address, false);
        test_rpc_call(&clients[i], METHOD_GET_BY_ID, "\x08\x11", 2, &reply);
        cr_assert_eq(
            reply.status, GRPC_STATUS_NOT_FOUND, "%d %s", (int)reply.status, reply.message);
        test_reply_cleanup(&reply);
    }
}

/* Within one of each other, and none beside them: a connection that a slow machine made a client
 * give up may take a moment to be gone. */
static bool are_spread(const pid_t *workers, size_t expected)
{
    size_t left = count_connections(workers[0], userd.post_port);
    size_t right = count_connections(workers[1], userd.post_port);
    return left + right == expected && left <= right + 1 && right <= left + 1;
}

Test(isolation, connections_are_spread_evenly_over_the_workers)
{
    given_service(2, false);
    pid_t workers[TEST_MAX_MEMBERS];
    cr_assert_eq(test_process_children(userd.master.pid, "userd-worker", workers), 2);
    when_clients_connect(0, 3);
    cr_assert(TEST_WAIT_FOR(are_spread(workers, 3), TEST_TIMEOUT_MS), "3 are not 2 and 1");
    when_clients_connect(3, CONNECTIONS - 3);
    cr_assert(TEST_WAIT_FOR(are_spread(workers, CONNECTIONS), TEST_TIMEOUT_MS),
        "%d are not spread evenly", CONNECTIONS);
    cr_assert_eq(count_connections(userd.master.pid, userd.post_port), 0,
        "the master keeps a client's connection");
}

Test(isolation, a_stop_lets_an_open_call_finish_and_takes_no_new_one)
{
    given_service(2, false);
    given_user(&userd, 17, "trinity");
    PGconn *locker = test_database_lock_users(&userd.database);
    struct test_call *call =
        test_rpc_start(&userd.gateway, METHOD_GET_USER, "\x08\x11", 2, TEST_TIMEOUT_MS);
    test_database_wait_for_waiter(&userd.database);
    cr_assert_eq(kill(userd.master.pid, SIGTERM), 0);
    then_log_says(&userd, "drain");
    cr_assert(test_process_is_running(&userd.master), "ended with a call open");
    PQfinish(locker);
    struct test_reply reply;
    test_rpc_finish(call, &reply);
    cr_assert_eq(reply.status, GRPC_STATUS_OK, "%d %s", (int)reply.status, reply.message);
    test_reply_cleanup(&reply);
    cr_assert_eq(test_process_wait(&userd.master, TEST_TIMEOUT_MS), 0);
}

Test(isolation, a_stop_while_the_children_start_is_clean)
{
    static const struct test_userd_options options = {.workers = 2, .skips_start = true};
    given_userd(&userd, &options);
    /* At other moments of the start each time. */
    for (int pause_ms = 0; pause_ms < 100; pause_ms += 10) {
        when_userd_starts(&userd);
        test_pause_ms(pause_ms);
        when_userd_stops(&userd);
    }
    char *log = test_file_read(userd.log_path, NULL);
    bool is_killed = strstr(log, "killed by signal") != NULL;
    free(log);
    cr_assert(!is_killed, "a child crashed");
}

/* A child as the master makes it, but for the Start frame, which has not come yet. */
static void given_child_without_start(
    const char *program, const char *role, struct test_process *ret_child, int *ret_control_fd)
{
    int ends[2];
    struct scoreboard *scoreboard = NULL;
    int scoreboard_fd = -1;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, ends), 0);
    cr_assert_eq(scoreboard_create(&scoreboard, &scoreboard_fd), 0);
    sigset_t blocked;
    (void)sigemptyset(&blocked);
    (void)sigaddset(&blocked, SIGTERM);
    sigset_t before;
    (void)sigprocmask(SIG_SETMASK, &blocked, &before);
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        int control_fd = fcntl(ends[1], F_DUPFD, PROCESS_FD_OUTBOX_WAKE + 1);
        int board_fd = fcntl(scoreboard_fd, F_DUPFD, PROCESS_FD_OUTBOX_WAKE + 1);
        (void)dup2(control_fd, PROCESS_FD_CONTROL);
        (void)dup2(board_fd, PROCESS_FD_SCOREBOARD);
        (void)dup2(board_fd, PROCESS_FD_OUTBOX_WAKE); /* any that is open: nobody reads it */
        (void)execl(program, program, role, "status", NULL);
        _exit(127);
    }
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    *ret_child = (struct test_process){.pid = pid};
    *ret_control_fd = ends[0];
    fd_close(&ends[1]);
    fd_close(&scoreboard_fd);
    scoreboard_close(scoreboard);
}

/* It has a loop by then: it has read the signal, and has no slot of the scoreboard. */
Test(isolation, a_child_that_is_ended_before_it_has_started_leaves)
{
    static const char *const children[][2] = {{TEST_USERD_WORKER, PROCESS_ROLE_MIGRATE},
        {TEST_USERD_WORKER, PROCESS_ROLE_WORKER}, {TEST_USERD_EVENTD, PROCESS_ROLE_EVENTD},
        {TEST_USERD_EVENTD, PROCESS_ROLE_CHECK}, {TEST_USERD_EVENTD, PROCESS_ROLE_DEAD_LETTERS}};
    for (size_t i = 0; i < ARRAY_LENGTH(children); i++) {
        struct test_process child;
        int control_fd = -1;
        given_child_without_start(children[i][0], children[i][1], &child, &control_fd);
        cr_assert_eq(kill(child.pid, SIGTERM), 0);
        int status = test_process_wait(&child, TEST_TIMEOUT_MS);
        cr_assert(status == EXIT_FAILURE, "%s ended with %d", children[i][1], status);
        fd_close(&control_fd);
    }
}

Test(isolation, a_second_signal_ends_at_once)
{
    given_service(1, false);
    given_user(&userd, 17, "trinity");
    PGconn *locker = test_database_lock_users(&userd.database);
    struct test_call *call =
        test_rpc_start(&userd.gateway, METHOD_GET_USER, "\x08\x11", 2, TEST_TIMEOUT_MS);
    cr_assert_eq(kill(userd.master.pid, SIGTERM), 0);
    then_log_says(&userd, "drain");
    cr_assert_eq(kill(userd.master.pid, SIGTERM), 0);
    cr_assert_geq(test_process_wait(&userd.master, TEST_TIMEOUT_MS), 0);
    then_log_says(&userd, "stopping at once signal=TERM");
    char *log = test_file_read(userd.log_path, NULL);
    cr_assert(strstr(log, "drain timeout") == NULL, "it has waited for the call");
    free(log);
    PQfinish(locker);
    struct test_reply reply;
    test_rpc_finish(call, &reply);
    test_reply_cleanup(&reply);
    test_rpc_close(&userd.gateway);
    test_rpc_close(&userd.post);
    userd.is_started = false;
}
