/* What a person sees and does through run_dir/admin.sock, on the real programs. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sysexits.h>
#include <unistd.h>

#include "common/file_descriptor.h"

#include "ipc.pb-c.h"
#include "tests/harness/test_status.h"
#include "tests/harness/test_userd.h"

#define PATH_SIZE     192
#define CLIENTS_MAX   16
#define NOBODY        65534
#define CALLS         20
#define COMMAND_WAIT  20000
#define RECORD_INLINE 1 /* ipc_channel.c: in front of a frame that is in the record */

static struct test_userd userd;

static void fini(void)
{
    finally_userd(&userd);
}

TestSuite(admin, .fini = fini, .timeout = 120);

static void given_service(int workers)
{
    const struct test_userd_options options = {.workers = workers, .has_broker = true};
    given_userd(&userd, &options);
}

/* The output is the caller's to free. */
static int when_told(const char *command, const char *option, char **ret_output)
{
    const char *const arguments[] = {command, option, NULL};
    return when_userd_is_told(&userd, arguments, ret_output);
}

static void then_output_holds(const char *output, const char *text)
{
    cr_assert(strstr(output, text) != NULL, "\"%s\" is not in: %s", text, output);
}

static void socket_path(char ret_path[PATH_SIZE])
{
    (void)snprintf(ret_path, PATH_SIZE, "%s/run/admin.sock", userd.directory);
}

static int when_connected(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char path[PATH_SIZE];
    socket_path(path);
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%.100s", path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    cr_assert(fd >= 0);
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    fd_close(&fd);
    return -1;
}

static bool is_hung_up(int fd)
{
    char byte;
    return recv(fd, &byte, sizeof(byte), MSG_DONTWAIT) == 0;
}

/* ---- status ---- */

Test(admin, status_as_json_holds_the_numbers)
{
    given_service(2);
    given_user(&userd, 17, "trinity");
    for (int i = 0; i < CALLS; i++)
        then_name_is(&userd, 17, "trinity");
    json_t *root = test_status_read(&userd);
    cr_assert_eq(test_status_number(root, "master", "pid"), userd.master.pid);
    cr_assert_eq(test_status_number(root, "master", "generation"), 1);
    cr_assert_eq(json_array_size(json_object_get(json_object_get(root, "master"), "listeners")), 2);
    json_t *workers = json_object_get(root, "workers");
    cr_assert_eq(json_array_size(workers), 2);
    cr_assert_str_eq(
        json_string_value(json_object_get(json_array_get(workers, 0), "state")), "ready");
    cr_assert(json_is_true(json_object_get(json_array_get(workers, 0), "database_ready")));
    json_t *totals = json_object_get(root, "totals");
    cr_assert_geq(test_status_number(totals, NULL, "connections"), 1);
    cr_assert_geq(test_status_number(totals, "calls", "started"), CALLS);
    cr_assert_geq(test_status_number(totals, "calls", "ok"), CALLS);
    cr_assert_eq(test_status_number(totals, "calls", "failed"), 0);
    cr_assert_geq(test_status_number(totals, NULL, "batched_requests"), CALLS);
    cr_assert_gt(test_status_number(root, "eventd", "pid"), 0);
    json_t *method = test_status_method(root, "user.User/GetUser");
    cr_assert_geq(test_status_number(method, "statuses", "OK"), CALLS);
    cr_assert_gt(test_status_number(method, NULL, "p99_us"), 0);
    json_decref(root);
}

Test(admin, status_as_a_table_has_a_line_for_each_process)
{
    given_service(2);
    char *output = NULL;
    cr_assert_eq(when_told("status", NULL, &output), 0, "%s", output);
    then_output_holds(output, "generation 1, up for ");
    then_output_holds(output, "listener gateway: 127.0.0.1:");
    then_output_holds(output, "\n   1 ");
    then_output_holds(output, "\n   2 ");
    then_output_holds(output, "\ntotal ");
    then_output_holds(output, "\nmethod ");
    then_output_holds(output, "\nuser.User/GetUser ");
    then_output_holds(output, "\neventd: pid ");
    free(output);
}

/* ---- metrics ---- */

Test(admin, metrics_are_the_same_numbers_for_prometheus)
{
    given_service(2);
    given_user(&userd, 17, "trinity");
    for (int i = 0; i < CALLS; i++)
        then_name_is(&userd, 17, "trinity");
    char *output = NULL;
    cr_assert_eq(when_told("metrics", NULL, &output), 0, "%s", output);
    then_output_holds(output, "# TYPE userd_calls_total counter\n");
    then_output_holds(output, "\nuserd_calls_total{result=\"failed\",worker=\"1\"} 0\n");
    then_output_holds(output, "\nuserd_database_up{worker=\"2\"} 1\n");
    then_output_holds(output, "\nuserd_workers_ready 2\n");
    then_output_holds(output, "\nuserd_generation 1\n");
    unsigned long calls = 0;
    for (int worker = 1; worker <= 2; worker++) {
        char name[64];
        (void)snprintf(
            name, sizeof(name), "\nuserd_calls_total{result=\"ok\",worker=\"%d\"} ", worker);
        const char *place = strstr(output, name);
        cr_assert(place != NULL, "no%s", name);
        calls += strtoul(place + strlen(name), NULL, 10);
    }
    cr_assert_geq(calls, CALLS);
    free(output);
}

/* ---- the socket ---- */

/* Even where the file lets everyone in. False where we are not root and cannot be anyone else. */
static bool given_others_reach_the_socket(void)
{
    char path[PATH_SIZE];
    socket_path(path);
    struct stat info;
    cr_assert_eq(stat(path, &info), 0);
    cr_assert_eq(info.st_mode & 07777, 0660);
    if (geteuid() != 0)
        return false;
    cr_assert_eq(chmod(userd.directory, 0755), 0);
    cr_assert_eq(chmod(path, 0666), 0);
    return true;
}

static int when_connected_as(uid_t user, gid_t group)
{
    cr_assert_eq(setgroups(0, NULL), 0);
    cr_assert_eq(setegid(group), 0);
    cr_assert_eq(seteuid(user), 0);
    int fd = when_connected();
    cr_assert_eq(seteuid(0), 0);
    cr_assert_eq(setegid(0), 0);
    cr_assert(fd >= 0);
    return fd;
}

Test(admin, a_stranger_is_not_heard)
{
    given_service(1);
    if (!given_others_reach_the_socket())
        return;
    int fd CLEANUP(fd_close) = when_connected_as(NOBODY, NOBODY);
    cr_assert(TEST_WAIT_FOR(is_hung_up(fd), COMMAND_WAIT), "a stranger is listened to");
    then_log_says(&userd, "admin client refused uid=65534");
}

/* The answer is the caller's to free. *ret_fd: what came with it, or -1. */
static Userd__Ipc__Frame *when_asked(int fd, Userd__Ipc__AdminRequest__Kind kind, int *ret_fd)
{
    Userd__Ipc__AdminRequest request;
    userd__ipc__admin_request__init(&request);
    request.id = 1;
    request.kind = kind;
    Userd__Ipc__Frame frame;
    userd__ipc__frame__init(&frame);
    frame.body_case = USERD__IPC__FRAME__BODY_ADMIN_REQUEST;
    frame.admin_request = &request;
    uint8_t bytes[4096] = {RECORD_INLINE};
    size_t size = 1 + userd__ipc__frame__pack(&frame, bytes + 1);
    cr_assert_eq(send(fd, bytes, size, MSG_NOSIGNAL), (ssize_t)size);
    char control[CMSG_SPACE(sizeof(int))];
    struct iovec part = {.iov_base = bytes, .iov_len = sizeof(bytes)};
    struct msghdr message = {.msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = control,
        .msg_controllen = sizeof(control)};
    struct pollfd entry = {.fd = fd, .events = POLLIN};
    cr_assert_eq(poll(&entry, 1, COMMAND_WAIT), 1);
    ssize_t length = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    cr_assert_gt(length, 1);
    *ret_fd = -1;
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header != NULL)
        memcpy(ret_fd, CMSG_DATA(header), sizeof(*ret_fd));
    Userd__Ipc__Frame *answer = userd__ipc__frame__unpack(NULL, (size_t)length - 1, bytes + 1);
    cr_assert(answer != NULL && answer->body_case == USERD__IPC__FRAME__BODY_ADMIN_RESULT);
    return answer;
}

Test(admin, a_member_of_the_group_may_ask_and_change_nothing)
{
    given_service(1);
    if (!given_others_reach_the_socket())
        return;
    int fd CLEANUP(fd_close) = when_connected_as(NOBODY, 0);
    int board CLEANUP(fd_close) = -1;
    Userd__Ipc__Frame *answer = when_asked(fd, USERD__IPC__ADMIN_REQUEST__KIND__STATUS, &board);
    cr_assert(answer->admin_result->is_done);
    cr_assert(board >= 0);
    userd__ipc__frame__free_unpacked(answer, NULL);
    /* what may be read cannot be opened once more to be written */
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", board);
    cr_assert_eq(seteuid(NOBODY), 0);
    int writable = open(path, O_RDWR | O_CLOEXEC);
    cr_assert_eq(seteuid(0), 0);
    cr_assert_eq(writable, -1, "the scoreboard can be written");
    int none = -1;
    answer = when_asked(fd, USERD__IPC__ADMIN_REQUEST__KIND__STOP, &none);
    cr_assert(!answer->admin_result->is_done);
    cr_assert_str_eq(
        answer->admin_result->reason, "userd: this is for root and the service's own user");
    userd__ipc__frame__free_unpacked(answer, NULL);
    json_t *root = test_status_read(&userd);
    json_decref(root);
}

Test(admin, the_seventeenth_client_is_turned_away_and_the_others_run_out_of_time)
{
    given_service(1);
    int clients[CLIENTS_MAX];
    for (int i = 0; i < CLIENTS_MAX; i++) {
        clients[i] = when_connected();
        cr_assert(clients[i] >= 0);
    }
    int fd CLEANUP(fd_close) = when_connected();
    cr_assert(fd >= 0);
    cr_assert(TEST_WAIT_FOR(is_hung_up(fd), COMMAND_WAIT), "one more is let in");
    cr_assert(!is_hung_up(clients[0]));
    cr_assert(
        TEST_WAIT_FOR(is_hung_up(clients[CLIENTS_MAX - 1]), COMMAND_WAIT), "a silent client stays");
    json_t *root = test_status_read(&userd);
    json_decref(root);
    for (int i = 0; i < CLIENTS_MAX; i++)
        fd_close(&clients[i]);
}

Test(admin, nonsense_ends_the_client_and_nothing_else)
{
    given_service(1);
    int fd CLEANUP(fd_close) = when_connected();
    cr_assert(fd >= 0);
    cr_assert_eq(send(fd, "\x01nonsense", 9, MSG_NOSIGNAL), 9);
    cr_assert(TEST_WAIT_FOR(is_hung_up(fd), COMMAND_WAIT), "nonsense is listened to");
    json_t *root = test_status_read(&userd);
    json_decref(root);
}

Test(admin, a_killed_masters_socket_is_taken_over)
{
    given_service(1);
    test_rpc_close(&userd.gateway);
    test_rpc_close(&userd.post);
    cr_assert_eq(test_process_stop(&userd.master, SIGKILL, TEST_TIMEOUT_MS), 128 + SIGKILL);
    char *output = NULL;
    cr_assert_eq(when_told("status", NULL, &output), 1);
    then_output_holds(output, "userd is not running (run_dir=");
    free(output);
    when_userd_starts(&userd);
    json_t *root = test_status_read(&userd);
    cr_assert_eq(test_status_number(root, "master", "pid"), userd.master.pid);
    json_decref(root);
}

/* ---- ready ---- */

Test(admin, ready_says_whether_calls_are_served)
{
    static const struct test_userd_options options = {
        .workers = 1, .has_broker = true, .has_own_cluster = true, .skips_start = true};
    static const char *const now[] = {"ready", NULL};
    static const char *const soon[] = {"ready", "--wait", "30", NULL};
    given_userd(&userd, &options);
    char *output = NULL;
    cr_expect_eq(when_userd_is_told(&userd, now, &output), 1);
    then_output_holds(output, "not ready: userd is not running");
    free(output);
    when_userd_starts(&userd);
    cr_expect_eq(when_userd_is_told(&userd, soon, &output), 0, "%s", output);
    free(output);
    cr_expect_eq(when_userd_is_told(&userd, now, &output), 0, "%s", output);
    free(output);
    test_database_stop_cluster(&userd.database);
    then_health_becomes(&userd, TEST_HEALTH_NOT_SERVING);
    cr_expect_eq(when_userd_is_told(&userd, now, &output), 1);
    then_output_holds(output, "not ready: the database is away");
    free(output);
    test_database_start_cluster(&userd.database);
    cr_expect_eq(when_userd_is_told(&userd, soon, &output), 0, "%s", output);
    free(output);
}

/* ---- what is away ---- */

/* True: the report's entry says since when and why; both are the service's, not the test's. */
static bool says_away(json_t *object, const char *name, const char *reason)
{
    const json_t *away = json_object_get(object, name);
    return json_is_object(away) && json_real_value(json_object_get(away, "since")) > 1e9 &&
           strstr(json_string_value(json_object_get(away, "reason")), reason) != NULL;
}

static bool status_says(const char *group, const char *name, const char *reason)
{
    json_t *root = test_status_read(&userd);
    json_t *object = strcmp(group, "workers") == 0 ? json_array_get(json_object_get(root, group), 0)
                                                   : json_object_get(root, group);
    bool is_said = reason != NULL ? says_away(object, name, reason)
                                  : json_is_null(json_object_get(object, name));
    json_decref(root);
    return is_said;
}

Test(admin, status_says_what_is_away_and_why_and_since_when)
{
    static const struct test_userd_options options = {.workers = 1, .has_own_cluster = true};
    given_userd(&userd, &options);
    cr_expect(TEST_WAIT_FOR(status_says("eventd", "kafka_away", ""), TEST_TIMEOUT_MS));
    cr_expect(TEST_WAIT_FOR(status_says("workers", "database_away", NULL), TEST_TIMEOUT_MS));
    json_t *root = test_status_read(&userd);
    json_t *master = json_object_get(root, "master");
    cr_expect(json_is_string(json_object_get(master, "version")));
    cr_expect(json_is_integer(json_object_get(master, "uptime_s")));
    json_decref(root);
    test_database_stop_cluster(&userd.database);
    cr_expect(TEST_WAIT_FOR(
        status_says("workers", "database_away", "Connection refused"), TEST_TIMEOUT_MS));
    char *output = NULL;
    cr_expect_eq(when_told("status", NULL, &output), 0, "%s", output);
    then_output_holds(output, "database away for ");
    then_output_holds(output, "Connection refused");
    then_output_holds(output, "Kafka away for ");
    then_output_holds(output, ", up for ");
    free(output);
    test_database_start_cluster(&userd.database);
    cr_expect(TEST_WAIT_FOR(status_says("workers", "database_away", NULL), TEST_TIMEOUT_MS));
}

/* Neither is a fault of the service's. */
Test(admin, status_counts_what_is_not_found_and_names_that_are_taken_apart)
{
    given_service(1);
    given_user(&userd, 17, "trinity");
    given_user(&userd, 18, "morpheus");
    char name[256];
    cr_assert_eq(test_userd_name(&userd, 99, name), GRPC_STATUS_NOT_FOUND);
    struct test_reply reply;
    when_renamed(&userd, 18, "trinity", &reply);
    then_fails_with(&reply, GRPC_STATUS_INVALID_ARGUMENT, "username is already taken");
    when_renamed(&userd, 18, "x", &reply);
    cr_assert_eq(reply.status, GRPC_STATUS_INVALID_ARGUMENT);
    test_reply_cleanup(&reply);
    json_t *root = test_status_read(&userd);
    json_t *totals = json_object_get(root, "totals");
    cr_expect_eq(test_status_number(totals, "calls", "not_found"), 1);
    cr_expect_eq(test_status_number(totals, "calls", "name_taken"), 1);
    cr_expect_eq(test_status_number(totals, "calls", "failed"), 1);
    json_decref(root);
    char *output = NULL;
    cr_expect_eq(when_told("metrics", NULL, &output), 0, "%s", output);
    then_output_holds(output, "userd_calls_total{result=\"not_found\",worker=\"1\"} 1");
    then_output_holds(output, "userd_calls_total{result=\"name_taken\",worker=\"1\"} 1");
    then_output_holds(output, "userd_build_info{version=\"");
    free(output);
}

/* ---- reload ---- */

Test(admin, reload_returns_when_the_new_generation_serves)
{
    given_service(2);
    given_user(&userd, 17, "trinity");
    char *output = NULL;
    cr_assert_eq(when_told("reload", NULL, &output), 0, "%s", output);
    free(output);
    json_t *root = test_status_read(&userd);
    cr_assert_eq(test_status_number(root, "master", "generation"), 2);
    cr_assert_geq(test_status_number(json_object_get(root, "totals"), NULL, "workers_ready"), 2);
    json_decref(root);
    then_name_is(&userd, 17, "trinity");
}

/* The command reads run_dir from a copy that is right, the service its own file that is not. */
Test(admin, a_reload_of_a_broken_file_says_what_the_service_says)
{
    given_service(1);
    char copy[PATH_SIZE];
    (void)snprintf(copy, sizeof(copy), "%s/copy.conf", userd.directory);
    char *text = test_file_read(userd.config_path, NULL);
    test_file_write(copy, text);
    free(text);
    when_config_changes(&userd, "workers", "workerz");
    const char *const argv[] = {TEST_USERD, "reload", "-c", copy, NULL};
    char *output = NULL;
    cr_assert_eq(test_process_run(argv, NULL, userd.directory, &output), 1, "%s", output);
    then_output_holds(output, userd.config_path);
    then_output_holds(output, ":1: ");
    free(output);
    then_log_says(&userd, "reload refused, the old configuration stays in force");
}

/* libconfig would end the master. */
Test(admin, a_reload_that_includes_a_directory_is_refused_and_the_service_goes_on)
{
    given_service(1);
    given_user(&userd, 17, "trinity");
    when_config_changes(&userd, "workers", "@include \"/etc\"\nworkers");
    cr_assert_eq(kill(userd.master.pid, SIGHUP), 0);
    then_log_says(&userd, ":1: the included /etc is a directory");
    then_log_says(&userd, "reload refused, the old configuration stays in force");
    cr_assert(test_process_is_running(&userd.master), "the master has ended");
    then_name_is(&userd, 17, "trinity");
}

/* ---- stop ---- */

Test(admin, a_stop_by_a_file_that_is_not_there_stops_nothing)
{
    given_service(1);
    char missing[PATH_SIZE];
    (void)snprintf(missing, sizeof(missing), "%s/userd.cnf", userd.directory);
    const char *const argv[] = {TEST_USERD, "stop", "-c", missing, NULL};
    char *output = NULL;
    cr_assert_eq(test_process_run(argv, NULL, userd.directory, &output), EX_CONFIG, "%s", output);
    then_output_holds(output, "userd.cnf: cannot be opened: No such file or directory");
    free(output);
    cr_assert(test_process_is_running(&userd.master), "the master has ended");
}

Test(admin, stop_waits_for_the_end_and_then_there_is_nothing_to_stop)
{
    given_service(2);
    char *output = NULL;
    cr_assert_eq(when_told("stop", NULL, &output), 0, "%s", output);
    free(output);
    cr_assert(!test_process_is_running(&userd.master), "the master lives");
    cr_assert_eq(userd.master.exit_status, 0);
    userd.is_started = false;
    test_rpc_close(&userd.gateway);
    test_rpc_close(&userd.post);
    char path[PATH_SIZE];
    socket_path(path);
    cr_assert_neq(access(path, F_OK), 0, "the socket file stays");
    cr_assert_eq(when_told("stop", NULL, &output), 1);
    then_output_holds(output, "userd is not running (run_dir=");
    free(output);
}
