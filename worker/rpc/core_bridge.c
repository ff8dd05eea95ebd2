#include "worker/rpc/core_bridge.h"

#include <assert.h>
#include <dlfcn.h>
#include <errno.h>
#include <grpc/grpc_posix.h>
#include <grpc/grpc_security.h>
#include <grpc/support/time.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include "common/file_descriptor.h"
#include "common/log.h"

/* The release that all of this was proven with: gRPC 1.51. */
#define CORE_VERSION   "29.0.0"
#define CORE_NICK_NAME "galaxy"

/* void grpc_core::Server::SendGoaways() */
#define SYMBOL_SEND_GOAWAYS "_ZN9grpc_core6Server11SendGoawaysEv"
/* uint32_t grpc_call_test_only_get_message_flags(grpc_call *) */
#define SYMBOL_MESSAGE_FLAGS "_Z37grpc_call_test_only_get_message_flagsP9grpc_call"
#define FLAG_COMPRESSED      UINT32_C(0x80000000) /* GRPC_WRITE_INTERNAL_COMPRESS */
/* grpc_call_error grpc_core::FilterStackCall::StartBatch(const grpc_op *, size_t, void *, bool):
 * what every call of a server is; grpc_call_start_batch() is this with an execution context around
 * it. */
#define SYMBOL_START_BATCH "_ZN9grpc_core15FilterStackCall10StartBatchEPK7grpc_opmPvb"
/* void absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle), in Debian's inline namespace */
#define SYMBOL_DEADLOCK_MODE \
    "_ZN4absl7debian329SetMutexDeadlockDetectionModeENS0_15OnDeadlockCycleE"
#define DEADLOCK_IGNORE 0 /* absl::OnDeadlockCycle::kIgnore */

#define ACCEPTOR_NAME "external:userd"
/* grpc_core::TcpServerFdHandler: two destructors, then void Handle(int listener_fd, int fd,
 * grpc_byte_buffer *pending) */
#define ACCEPTOR_HANDLE 2

#define SELF_TEST_TIMEOUT_MS 1000
#define SELF_TEST_STEP_MS    10

/* RFC 9113: section 3.4 (the client's preface), 4.1 (frame header), 6.5 (SETTINGS), 6.8 (GOAWAY) */
#define PREFACE            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define PROBE_PATH         "/userd.Probe/Run"
#define FRAME_HEADER_BYTES 9
#define FRAME_HEADERS      1
#define FRAME_SETTINGS     4
#define FRAME_GOAWAY       7

/* ---- the acceptor ---- */

static void *keep_pointer(void *pointer)
{
    return pointer;
}

static void drop_pointer(void *pointer)
{
    (void)pointer;
}

static int compare_pointers(void *left, void *right)
{
    return left == right ? 0 : (uintptr_t)left < (uintptr_t)right ? -1 : 1;
}

grpc_arg core_bridge_acceptor_argument(struct core_acceptor *acceptor)
{
    static const grpc_arg_pointer_vtable vtable = {keep_pointer, drop_pointer, compare_pointers};
    static char name[] = ACCEPTOR_NAME; /* the C core's type is not const; it only reads */
    return (grpc_arg){
        .type = GRPC_ARG_POINTER,
        .key = name,
        .value.pointer = {.p = &acceptor->handler, .vtable = &vtable},
    };
}

bool core_bridge_open_acceptor(const struct core_bridge *bridge, struct core_acceptor *acceptor,
    grpc_server *server, grpc_server_credentials *credentials)
{
    if (!bridge->has_acceptor)
        return false;
    /* Returns the port, which such a listener does not have: 0, as for a failure. */
    (void)grpc_server_add_http2_port(server, ACCEPTOR_NAME, credentials);
    return acceptor->handler != NULL;
}

void core_bridge_accept(const struct core_acceptor *acceptor, int fd)
{
    typedef void (*handle_function)(
        void *handler, int listener_fd, int fd, grpc_byte_buffer *pending);
    const handle_function *vtable = *(const handle_function **)acceptor->handler;
    vtable[ACCEPTOR_HANDLE](acceptor->handler, -1, fd, NULL);
}

/* ---- an execution context of our own ---- */

/* What runs with the C core's execution context on the thread; calling into it without one crashes.
 */
struct run_request {
    void (*function)(void *state);
    void *state;
};

static void run_request(void *request_pointer)
{
    const struct run_request *request = request_pointer;
    request->function(request->state);
}

/* NOLINTNEXTLINE(readability-function-size): the parameters are the C core's */
static int refuse_metadata(void *state, grpc_auth_metadata_context context,
    grpc_credentials_plugin_metadata_cb callback, void *userdata,
    grpc_metadata metadata[GRPC_METADATA_CREDENTIALS_PLUGIN_SYNC_MAX], size_t *metadata_count,
    grpc_status_code *status, const char **error_details)
{
    (void)state;
    (void)context;
    (void)callback;
    (void)userdata;
    (void)metadata;
    *metadata_count = 0;
    *status = GRPC_STATUS_UNIMPLEMENTED;
    *error_details = NULL;
    return 1;
}

/* A public way to an execution context: credentials whose plugin is destroyed at their release run
 * our function there; the context is flushed when the release returns. */
static void run_in_context(void (*function)(void *state), void *state)
{
    struct run_request request = {.function = function, .state = state};
    grpc_metadata_credentials_plugin plugin = {
        .get_metadata = refuse_metadata,
        .destroy = run_request,
        .state = &request,
        .type = "userd",
    };
    grpc_call_credentials *credentials =
        grpc_metadata_credentials_create_from_plugin(plugin, GRPC_SECURITY_NONE, NULL);
    grpc_call_credentials_release(credentials);
}

/* ---- GOAWAY ---- */

struct goaway_request {
    void (*send_goaways)(void *server);
    grpc_server *server;
};

static void send_goaways(void *state)
{
    const struct goaway_request *request = state;
    request->send_goaways(request->server);
}

bool core_bridge_send_goaways(const struct core_bridge *bridge, grpc_server *server)
{
    if (!bridge->has_goaway)
        return false;
    struct goaway_request request = {.send_goaways = bridge->send_goaways, .server = server};
    run_in_context(send_goaways, &request);
    return true;
}

/* ---- bursts ---- */

bool core_bridge_run_burst(
    const struct core_bridge *bridge, void (*function)(void *state), void *state)
{
    if (!bridge->has_burst)
        return false;
    run_in_context(function, state);
    return true;
}

grpc_call_error core_bridge_start_batch(const struct core_bridge *bridge, grpc_call *call,
    const grpc_op *operations, size_t operation_count, void *tag)
{
    return bridge->start_batch(call, operations, operation_count, tag, false);
}

/* ---- flags of messages ---- */

bool core_bridge_is_compressed(const struct core_bridge *bridge, grpc_call *call)
{
    return bridge->has_message_flags && (bridge->get_message_flags(call) & FLAG_COMPRESSED) != 0;
}

void core_bridge_mark_compression(
    const struct core_bridge *bridge, grpc_call *call, grpc_byte_buffer *message)
{
    if (message->data.raw.compression == GRPC_COMPRESS_NONE &&
        core_bridge_is_compressed(bridge, call))
        message->data.raw.compression = GRPC_COMPRESS_ALGORITHMS_COUNT;
}

/* ---- the self-test: a server of its own with one connection over a socket pair ---- */

struct self_test {
    const struct core_bridge *bridge;
    grpc_completion_queue *queue;
    grpc_server *server;
    int client_fd;
    /* filled in by the C core when the probe's call arrives, or when the server is shut down before
     * that */
    grpc_call *call;
    gpr_timespec deadline;
    grpc_metadata_array metadata;
    grpc_byte_buffer *payload;
    bool has_started; /* the answer of the probe's call; also its tag */
};

/* Lets the C core work for a moment; true when `tag` came back. */
static bool run_queue(const struct self_test *test, const void *tag)
{
    gpr_timespec deadline = gpr_time_add(
        gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(SELF_TEST_STEP_MS, GPR_TIMESPAN));
    grpc_event event = grpc_completion_queue_next(test->queue, deadline, NULL);
    return event.type == GRPC_OP_COMPLETE && event.tag == tag;
}

static bool wait_for_tag(const struct self_test *test, const void *tag)
{
    for (int waited_ms = 0; waited_ms < SELF_TEST_TIMEOUT_MS; waited_ms += SELF_TEST_STEP_MS) {
        if (run_queue(test, tag))
            return true;
    }
    return false;
}

static bool has_frame(const uint8_t *bytes, size_t length, uint8_t type)
{
    size_t position = 0;
    while (position + FRAME_HEADER_BYTES <= length) {
        size_t payload =
            (size_t)bytes[position] << 16 | (size_t)bytes[position + 1] << 8 | bytes[position + 2];
        if (bytes[position + 3] == type)
            return true;
        position += FRAME_HEADER_BYTES + payload;
    }
    return false;
}

/* True when a frame of this type arrives before the time is over. Others are read past. */
static bool wait_for_frame(const struct self_test *test, uint8_t type)
{
    uint8_t bytes[4096];
    size_t length = 0;
    for (int waited_ms = 0; waited_ms < SELF_TEST_TIMEOUT_MS; waited_ms += SELF_TEST_STEP_MS) {
        (void)run_queue(test, NULL);
        ssize_t received =
            recv(test->client_fd, bytes + length, sizeof(bytes) - length, MSG_DONTWAIT);
        if (received == 0)
            return false;
        length += received > 0 ? (size_t)received : 0;
        if (has_frame(bytes, length, type))
            return true;
    }
    return false;
}

static bool send_bytes(const struct self_test *test, const char *bytes, size_t length)
{
    return send(test->client_fd, bytes, length, MSG_NOSIGNAL) == (ssize_t)length;
}

static bool test_greeting(const struct self_test *test)
{
    static const char greeting[] = PREFACE "\0\0\0\4\0\0\0\0\0"; /* and an empty SETTINGS frame */
    return send_bytes(test, greeting, sizeof(greeting) - 1) && wait_for_frame(test, FRAME_SETTINGS);
}

/* Sends a call with one message that says it is compressed, without saying how (the headers are
 * literal fields with new names: RFC 7541, section 6.2.2), and looks for the flag. */
static bool test_message_flags(struct self_test *test, void *method)
{
    static const char request[] =
        "\0\0\156\1\4\0\0\0\1" /* HEADERS of 110 bytes, END_HEADERS, stream 1 */
        "\0\7:method\4POST"
        "\0\7:scheme\4http"
        "\0\5:path\20" PROBE_PATH "\0\12:authority\1x"
        "\0\14content-type\20application/grpc"
        "\0\2te\10trailers"
        "\0\0\7\0\1\0\0\0\1" /* DATA of 7 bytes, END_STREAM, stream 1 */
        "\1\0\0\0\2..";
    if (grpc_server_request_registered_call(test->server, method, &test->call, &test->deadline,
            &test->metadata, &test->payload, test->queue, test->queue,
            &test->call) != GRPC_CALL_OK ||
        !send_bytes(test, request, sizeof(request) - 1) || !wait_for_tag(test, &test->call))
        return false;
    return test->call != NULL && test->payload != NULL &&
           core_bridge_is_compressed(test->bridge, test->call);
}

/* Answers the probe's call within a burst: the answer arrives, and its tag comes back. */
static void answer_probe(void *test_pointer)
{
    struct self_test *test = test_pointer;
    grpc_op operations[2];
    memset(operations, 0, sizeof(operations));
    operations[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    operations[1].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
    operations[1].data.send_status_from_server.status = GRPC_STATUS_UNIMPLEMENTED;
    test->has_started = core_bridge_start_batch(test->bridge, test->call, operations,
                            ARRAY_LENGTH(operations), &test->has_started) == GRPC_CALL_OK;
}

static bool test_burst(struct self_test *test)
{
    return test->call != NULL && core_bridge_run_burst(test->bridge, answer_probe, test) &&
           test->has_started && wait_for_tag(test, &test->has_started) &&
           wait_for_frame(test, FRAME_HEADERS);
}

static void self_test_cleanup(struct self_test *test)
{
    if (test->call != NULL)
        grpc_call_unref(test->call);
    fd_close(&test->client_fd);
    grpc_server_shutdown_and_notify(test->server, test->queue, test);
    grpc_server_cancel_all_calls(test->server);
    (void)wait_for_tag(test, test);
    grpc_server_destroy(test->server);
    grpc_completion_queue_shutdown(test->queue);
    while (
        grpc_completion_queue_next(test->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).type !=
        GRPC_QUEUE_SHUTDOWN)
        continue;
    grpc_completion_queue_destroy(test->queue);
    grpc_byte_buffer_destroy(test->payload);
    grpc_metadata_array_destroy(&test->metadata);
}

/* Leaves true only for what was seen to work. */
static void run_self_test(struct core_bridge *bridge, int client_fd, int server_fd)
{
    struct core_acceptor acceptor = {0};
    /* Compressed messages are not inflated by the C core, as in our servers. */
    static char no_decompression[] = GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION;
    grpc_arg arguments[] = {
        core_bridge_acceptor_argument(&acceptor),
        {.type = GRPC_ARG_INTEGER, .key = no_decompression, .value.integer = 0},
    };
    const grpc_channel_args all = {.num_args = ARRAY_LENGTH(arguments), .args = arguments};
    struct self_test test = {
        .bridge = bridge,
        .queue = grpc_completion_queue_create_for_next(NULL),
        .server = grpc_server_create(&all, NULL),
        .client_fd = client_fd,
    };
    grpc_metadata_array_init(&test.metadata);
    grpc_server_register_completion_queue(test.server, test.queue, NULL);
    void *method = grpc_server_register_method(
        test.server, PROBE_PATH, NULL, GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER, 0);
    grpc_server_credentials *credentials = grpc_insecure_server_credentials_create();
    bool is_open = core_bridge_open_acceptor(bridge, &acceptor, test.server, credentials);
    grpc_server_start(test.server);
    if (is_open)
        core_bridge_accept(&acceptor, server_fd);
    else
        grpc_server_add_channel_from_fd(test.server, server_fd, credentials);
    grpc_server_credentials_release(credentials);

    bool has_greeting = test_greeting(&test);
    bridge->has_acceptor = is_open && has_greeting;
    bridge->has_message_flags = has_greeting && method != NULL && test_message_flags(&test, method);
    bridge->has_burst = has_greeting && test_burst(&test);
    bridge->has_goaway = has_greeting && core_bridge_send_goaways(bridge, test.server) &&
                         wait_for_frame(&test, FRAME_GOAWAY);
    self_test_cleanup(&test);
}

/* ---- opening ---- */

/* POSIX wants this detour from an object pointer to a function pointer. */
static bool find_function(const char *symbol, void *ret_function, size_t size)
{
    void *address = dlsym(RTLD_DEFAULT, symbol);
    assert(size == sizeof(address));
    memcpy(ret_function, &address, size);
    return address != NULL;
}

static bool turn_deadlock_detection_off(void)
{
    void (*set_mode)(int mode) = NULL;
    if (!find_function(SYMBOL_DEADLOCK_MODE, &set_mode, sizeof(set_mode)))
        return false;
    set_mode(DEADLOCK_IGNORE);
    return true;
}

void core_bridge_open(struct core_bridge *bridge, enum core_bridge_mode mode)
{
    *bridge = (struct core_bridge){0};
    if (mode == CORE_BRIDGE_OFF) {
        log_info("core bridge off reason=setting");
        return;
    }
    if (strcmp(grpc_version_string(), CORE_VERSION) != 0 ||
        strcmp(grpc_g_stands_for(), CORE_NICK_NAME) != 0) {
        log_warn(
            "core bridge off reason=version found=%s wanted=%s effect=\"public entry points only\"",
            grpc_version_string(), CORE_VERSION);
        return;
    }
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) != 0) {
        log_warn("core bridge off reason=socketpair error=%d effect=\"public entry points only\"",
            errno);
        return;
    }
    bridge->has_acceptor = true;
    bridge->has_goaway =
        find_function(SYMBOL_SEND_GOAWAYS, &bridge->send_goaways, sizeof(bridge->send_goaways));
    bridge->has_message_flags = find_function(
        SYMBOL_MESSAGE_FLAGS, &bridge->get_message_flags, sizeof(bridge->get_message_flags));
    bridge->has_burst =
        find_function(SYMBOL_START_BATCH, &bridge->start_batch, sizeof(bridge->start_batch));
    run_self_test(bridge, fds[0], fds[1]);
    bool is_detection_off = turn_deadlock_detection_off();
    if (!bridge->has_acceptor || !bridge->has_goaway || !bridge->has_message_flags ||
        !bridge->has_burst || !is_detection_off)
        log_warn("core bridge incomplete acceptor=%d goaway=%d message_flags=%d burst=%d "
                 "deadlock_detection_off=%d effect=\"public entry points instead\"",
            bridge->has_acceptor, bridge->has_goaway, bridge->has_message_flags, bridge->has_burst,
            is_detection_off);
    else
        log_debug("core bridge on");
}
