#include "tests/harness/test_userd.h"

#include <criterion/criterion.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "user/user.pb-c.h"
#include "user_post/user_post.pb-c.h"

/* Nobody listens on the discard port of a test machine. */
#define CLOSED_SERVERS "127.0.0.1:9"

static const char *or_empty(const char *text)
{
    return text != NULL ? text : "";
}

static void write_config(const struct test_userd *userd, const struct test_userd_options *options)
{
    char *text = NULL;
    /* "off": a run of the same tests without it, see tests/CMakeLists.txt */
    const char *core_bridge = getenv("USERD_TEST_CORE_BRIDGE");
    int length = asprintf(&text,
        "workers = %d;\n"
        "run_dir = \"%s/run\";\n"
        "listeners = (\n"
        "  { name = \"gateway\"; address = \"127.0.0.1:0\"; services = [ \"user.User\" ]; },\n"
        "  { name = \"post\"; address = \"127.0.0.1:0\"; services = [ \"user_post.UserPost\" ]; }\n"
        ");\n"
        "%s\n"
        "database = { url = \"%s\"; %s };\n"
        "kafka = { bootstrap_servers = \"%s\"; session_timeout_ms = 4000; %s };\n"
        "limits = { %s };\n"
        "log = { level = \"debug\"; };\n"
        "core_bridge = \"%s\";\n",
        userd->workers, userd->directory, or_empty(options->top_settings), userd->database.url,
        or_empty(options->database_settings),
        options->has_broker ? userd->broker.servers : CLOSED_SERVERS,
        or_empty(options->kafka_settings), or_empty(options->limit_settings),
        core_bridge != NULL ? core_bridge : "auto");
    cr_assert(length > 0, "out of memory");
    test_file_write(userd->config_path, text);
    free(text);
}

int when_userd_is_told(struct test_userd *userd, const char *const *arguments, char **ret_output)
{
    static const char *const environment[] = {"DB_URL", "KAFKA_BOOTSTRAP_SERVERS", NULL};
    const char *argv[16] = {userd->program};
    size_t count = 1;
    for (size_t i = 0; arguments[i] != NULL && count < ARRAY_LENGTH(argv) - 3; i++)
        argv[count++] = arguments[i];
    argv[count++] = "-c";
    argv[count++] = userd->config_path;
    argv[count] = NULL;
    return test_process_run(argv, environment, userd->directory, ret_output);
}

void when_config_changes(struct test_userd *userd, const char *from, const char *to)
{
    char *text = test_file_read(userd->config_path, NULL);
    char *place = strstr(text, from);
    cr_assert(place != NULL, "no %s in the configuration", from);
    char *changed = NULL;
    cr_assert(
        asprintf(&changed, "%.*s%s%s", (int)(place - text), text, to, place + strlen(from)) > 0);
    test_file_write(userd->config_path, changed);
    free(changed);
    free(text);
}

void test_userd_listener(
    const struct test_userd *userd, const char *name, char ret_address[TEST_ADDRESS_SIZE])
{
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/run/listeners", userd->directory);
    char *text = test_file_read(path, NULL);
    ret_address[0] = '\0';
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        size_t length = strlen(name);
        if (strncmp(line, name, length) == 0 && line[length] == ' ')
            (void)snprintf(ret_address, TEST_ADDRESS_SIZE, "%s", line + length + 1);
    }
    free(text);
}

static void migrate(struct test_userd *userd)
{
    const char *const arguments[] = {"migrate", "up", NULL};
    char *output = NULL;
    int status = when_userd_is_told(userd, arguments, &output);
    cr_assert(status == 0, "migrate up ended with %d: %s", status, output);
    free(output);
}

/* From run_dir/listeners, "name address" a line: the ports were asked for as 0. */
static bool read_listeners(struct test_userd *userd)
{
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/run/listeners", userd->directory);
    char *text = test_file_read(path, NULL);
    char *gateway = strstr(text, "gateway 127.0.0.1:");
    char *post = strstr(text, "post 127.0.0.1:");
    bool is_complete = gateway != NULL && post != NULL;
    if (is_complete) {
        userd->gateway_port = (int)strtol(gateway + strlen("gateway 127.0.0.1:"), NULL, 10);
        userd->post_port = (int)strtol(post + strlen("post 127.0.0.1:"), NULL, 10);
        (void)snprintf(userd->gateway_address, sizeof(userd->gateway_address), "127.0.0.1:%d",
            userd->gateway_port);
        (void)snprintf(
            userd->post_address, sizeof(userd->post_address), "127.0.0.1:%d", userd->post_port);
    }
    free(text);
    return is_complete && userd->gateway_port > 0 && userd->post_port > 0;
}

void when_userd_starts(struct test_userd *userd)
{
    static const char *const environment[] = {"DB_URL", "KAFKA_BOOTSTRAP_SERVERS", NULL};
    char limit[32];
    (void)snprintf(limit, sizeof(limit), "--nofile=%d", userd->descriptor_limit);
    const char *const argv[] = {"/usr/bin/prlimit", limit, userd->program, "run", "-c",
        userd->config_path, userd->runs_migration ? "--migrate" : NULL, NULL};
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/run/listeners", userd->directory);
    (void)unlink(path);
    test_process_start(&userd->master, userd->descriptor_limit > 0 ? argv : argv + 2, environment,
        userd->log_path);
    userd->is_started = true;
    bool is_listening = TEST_WAIT_FOR(
        read_listeners(userd) || !test_process_is_running(&userd->master), TEST_TIMEOUT_MS);
    cr_assert(is_listening && test_process_is_running(&userd->master), "userd does not listen");
    test_rpc_open(&userd->gateway, userd->gateway_address, false);
    test_rpc_open(&userd->post, userd->post_address, false);
}

static bool log_says(const struct test_userd *userd, const char *text)
{
    char *log = test_file_read(userd->log_path, NULL);
    bool is_there = strstr(log, text) != NULL;
    free(log);
    return is_there;
}

void then_log_says(struct test_userd *userd, const char *text)
{
    bool is_there = TEST_WAIT_FOR(log_says(userd, text), TEST_TIMEOUT_MS);
    cr_assert(is_there, "the log does not say: %s", text);
}

static enum test_health ask_health(struct test_rpc *rpc)
{
    struct test_reply reply;
    test_rpc_finish(test_rpc_start(rpc, METHOD_HEALTH_CHECK, "", 0, 2000), &reply);
    enum test_health health = TEST_HEALTH_NO_ANSWER;
    /* HealthCheckResponse{status=1}: a varint of one byte */
    if (reply.status == GRPC_STATUS_OK && reply.length == 2)
        health = (enum test_health)reply.bytes[1];
    else if (reply.status == GRPC_STATUS_OK)
        health = TEST_HEALTH_UNKNOWN;
    test_reply_cleanup(&reply);
    return health;
}

void then_every_worker_serves(struct test_userd *userd)
{
    struct test_rpc connections[TEST_MAX_WORKERS];
    cr_assert(userd->workers <= TEST_MAX_WORKERS);
    /* Until all are ready, one may get all connections. */
    then_log_says(userd, "serving workers=");
    for (int i = 0; i < userd->workers; i++)
        test_rpc_open(&connections[i], userd->gateway_address, false);
    /* All of them at once: the master gives each to another worker. */
    for (int i = 0; i < userd->workers; i++) {
        bool is_serving =
            TEST_WAIT_FOR(ask_health(&connections[i]) == TEST_HEALTH_SERVING, TEST_TIMEOUT_MS);
        cr_assert(is_serving, "worker %d does not serve", i);
    }
    for (int i = 0; i < userd->workers; i++)
        test_rpc_close(&connections[i]);
}

static void copy_programs(struct test_userd *userd)
{
    char bin[80];
    (void)snprintf(bin, sizeof(bin), "%s/bin", userd->directory);
    cr_assert_eq(mkdir(bin, 0755), 0);
    const char *const argv[] = {
        "/bin/cp", TEST_USERD, TEST_USERD_WORKER, TEST_USERD_EVENTD, bin, NULL};
    char *output = NULL;
    cr_assert_eq(test_process_run(argv, NULL, userd->directory, &output), 0, "%s", output);
    free(output);
    (void)snprintf(userd->program, sizeof(userd->program), "%s/userd", bin);
}

void given_userd(struct test_userd *userd, const struct test_userd_options *options)
{
    *userd = (struct test_userd){.directory = "/tmp/userd-test.XXXXXX"};
    cr_assert(mkdtemp(userd->directory) != NULL, "no temporary directory");
    userd->workers = options->workers > 0 ? options->workers : 1;
    userd->descriptor_limit = options->descriptor_limit;
    userd->runs_migration = options->runs_migration;
    (void)snprintf(
        userd->config_path, sizeof(userd->config_path), "%s/userd.conf", userd->directory);
    (void)snprintf(userd->log_path, sizeof(userd->log_path), "%s/userd.log", userd->directory);
    (void)snprintf(userd->program, sizeof(userd->program), "%s", TEST_USERD);
    if (options->has_own_programs)
        copy_programs(userd);
    test_database_create(&userd->database, options->has_own_cluster ? userd->directory : NULL);
    if (options->has_broker)
        test_broker_start(&userd->broker, userd->directory);
    write_config(userd, options);
    if (!options->skips_migration)
        migrate(userd);
    if (options->skips_start)
        return;
    when_userd_starts(userd);
    if (!options->skips_migration)
        then_every_worker_serves(userd);
}

void given_user(struct test_userd *userd, int32_t auth_id, const char *username)
{
    PGconn *connection = test_database_connect(&userd->database);
    char id_text[16];
    (void)snprintf(id_text, sizeof(id_text), "%d", auth_id);
    const char *const values[] = {id_text, username};
    PGresult *result = PQexecParams(connection,
        "WITH made AS (INSERT INTO \"user\" (id_auth, username) VALUES ($1::int4, $2) RETURNING *)"
        " INSERT INTO username_claim (id_auth, canonical, username)"
        " SELECT id_auth, lower(username), username FROM made",
        2, NULL, values, NULL, NULL, 0);
    cr_assert(PQresultStatus(result) == PGRES_COMMAND_OK, "%s", PQresultErrorMessage(result));
    PQclear(result);
    PQfinish(connection);
}

void when_userd_stops(struct test_userd *userd)
{
    if (!userd->is_started)
        return;
    test_rpc_close(&userd->gateway);
    test_rpc_close(&userd->post);
    int status = test_process_stop(&userd->master, SIGTERM, 2 * (int64_t)TEST_TIMEOUT_MS);
    userd->is_started = false;
    cr_expect(status == 0, "userd ended with %d after SIGTERM", status);
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void)info;
    (void)kind;
    (void)place;
    return remove(path);
}

void finally_userd(struct test_userd *userd)
{
    when_userd_stops(userd);
    test_broker_stop(&userd->broker);
    test_database_remove(&userd->database);
    char *log = test_file_read(userd->log_path, NULL);
    (void)fprintf(stderr, "---- log of userd\n%s----\n", log);
    /* The programs' sanitizers and assertions speak there. */
    cr_expect(strstr(log, "Sanitizer") == NULL && strstr(log, "runtime error:") == NULL,
        "a sanitizer complains");
    cr_expect(strstr(log, "Assertion") == NULL, "an assertion failed");
    free(log);
    (void)nftw(userd->directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

enum test_health test_userd_health(struct test_userd *userd)
{
    return ask_health(&userd->gateway);
}

void then_health_becomes(struct test_userd *userd, enum test_health expected)
{
    bool is_there = TEST_WAIT_FOR(test_userd_health(userd) == expected, TEST_TIMEOUT_MS);
    cr_assert(is_there, "health does not become %d", (int)expected);
}

grpc_status_code test_userd_name(struct test_userd *userd, int32_t auth_id, char ret_name[256])
{
    User__UserGetRequest request = USER__USER_GET_REQUEST__INIT;
    request.id = auth_id;
    struct test_reply reply;
    test_rpc_call_message(&userd->gateway, METHOD_GET_USER, &request.base, &reply);
    grpc_status_code status = reply.status;
    ret_name[0] = '\0';
    if (status == GRPC_STATUS_OK) {
        ProtobufCMessage *message = test_reply_decode(&reply, &user__user_out_response__descriptor);
        (void)snprintf(ret_name, 256, "%s", ((User__UserOutResponse *)(void *)message)->username);
        protobuf_c_message_free_unpacked(message, NULL);
    }
    test_reply_cleanup(&reply);
    return status;
}

void then_name_is(struct test_userd *userd, int32_t auth_id, const char *expected)
{
    char name[256];
    grpc_status_code status = test_userd_name(userd, auth_id, name);
    cr_assert(status == GRPC_STATUS_OK, "GetUser(%d): status %d", auth_id, (int)status);
    cr_assert_str_eq(name, expected);
}

static bool has_name(struct test_userd *userd, int32_t auth_id, const char *expected)
{
    char name[256];
    grpc_status_code status = test_userd_name(userd, auth_id, name);
    if (expected == NULL)
        return status == GRPC_STATUS_NOT_FOUND;
    return status == GRPC_STATUS_OK && strcmp(name, expected) == 0;
}

void then_name_becomes(struct test_userd *userd, int32_t auth_id, const char *expected)
{
    bool is_there = TEST_WAIT_FOR(has_name(userd, auth_id, expected), TEST_TIMEOUT_MS);
    cr_assert(is_there, "the name of %d does not become %s", auth_id,
        expected != NULL ? expected : "absent");
}

void when_renamed(
    struct test_userd *userd, int32_t auth_id, const char *username, struct test_reply *ret_reply)
{
    User__UserUpdateRequest request;
    user__user_update_request__init(&request);
    request.id = auth_id;
    request.username = borrow_const(username);
    test_rpc_call_message(&userd->gateway, METHOD_USER_UPDATE, &request.base, ret_reply);
}

void when_deleted(struct test_userd *userd, int32_t auth_id, struct test_reply *ret_reply)
{
    User__UserDeleteRequest request = USER__USER_DELETE_REQUEST__INIT;
    request.id = auth_id;
    test_rpc_call_message(&userd->gateway, METHOD_DELETE_USER, &request.base, ret_reply);
}

void when_asked_for_id(struct test_userd *userd, const char *username, struct test_reply *ret_reply)
{
    UserPost__GetByUsernameRequest request;
    user_post__get_by_username_request__init(&request);
    request.username = borrow_const(username);
    test_rpc_call_message(&userd->post, METHOD_GET_BY_USERNAME, &request.base, ret_reply);
}

void then_fails_with(struct test_reply *reply, grpc_status_code status, const char *message)
{
    cr_assert(reply->status == status, "status %d, expected %d (message: %s)", (int)reply->status,
        (int)status, reply->message);
    if (message != NULL)
        cr_assert_str_eq(reply->message, message);
    test_reply_cleanup(reply);
}

void then_database_says(struct test_userd *userd, const char *sql, const char *expected)
{
    bool is_so =
        TEST_WAIT_FOR(test_database_says(&userd->database, sql, expected), TEST_TIMEOUT_MS);
    if (!is_so) {
        char *value = test_database_value(&userd->database, sql);
        cr_assert(false, "%s: says \"%s\", expected \"%s\"", sql, value, expected);
        free(value);
    }
}
