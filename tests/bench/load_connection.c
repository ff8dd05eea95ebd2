#include "tests/bench/load_connection.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/attributes.h"
#include "common/monotonic_clock.h"

#define READ_BYTES    ((size_t)256 * 1024)
#define REPLY_BYTES   64 /* kept of a reply, to look at */
#define MESSAGE_BYTES ((size_t)8 * 1024)
#define WRITE_BYTES   ((size_t)1024 * 1024)
#define WINDOW_BYTES  (64 * 1024 * 1024)

struct call {
    struct load_connection *connection;
    uint64_t started_us;
    uint32_t id;
    int status;
    bool is_cancelled;
    size_t sent;
    size_t message_length;
    size_t reply_length;
    char reply[REPLY_BYTES];
    uint8_t message[]; /* with gRPC's five bytes before it */
};

struct load_connection {
    const struct load_plan *plan;
    struct sockaddr_in address;
    char authority[32];
    int epoll_fd;
    int fd;
    nghttp2_session *session;
    uint64_t random;
    size_t under_way;
    bool is_ended;            /* by the peer, or by an error */
    struct call **calls;      /* owned, with the calls: all of them */
    struct call **free_calls; /* owned: those that are not under way */
    size_t free_count;
    uint8_t input[READ_BYTES];
};

static void die(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

/* xorshift64*: plenty for drawing keys. */
static uint32_t draw(struct load_connection *connection, uint32_t count)
{
    uint64_t state = connection->random;
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    connection->random = state;
    return (uint32_t)((state * UINT64_C(0x2545F4914F6CDD1D)) >> 32) % count;
}

/* ---- a call ---- */

static size_t put_varint(uint8_t *bytes, uint32_t value)
{
    size_t length = 0;
    for (; value >= 0x80; value >>= 7)
        bytes[length++] = (uint8_t)(value | 0x80);
    bytes[length++] = (uint8_t)value;
    return length;
}

/* gRPC's length-prefixed message: field 1, the id or the packed list of ids. */
static void fill_message(struct load_connection *connection, struct call *call)
{
    uint8_t list[MESSAGE_BYTES - 16];
    size_t list_length = 0;
    size_t length = 5;
    for (size_t i = 0; i < connection->plan->ids_per_call; i++) {
        call->id = 1 + draw(connection, connection->plan->id_count);
        list_length += put_varint(list + list_length, call->id);
    }
    if (connection->plan->ids_per_call == 1) {
        call->message[length++] = 0x08;
    } else {
        call->message[length++] = 0x0A;
        length += put_varint(call->message + length, (uint32_t)list_length);
    }
    memcpy(call->message + length, list, list_length);
    length += list_length;
    uint32_t size = htonl((uint32_t)length - 5);
    call->message[0] = 0;
    memcpy(call->message + 1, &size, sizeof(size));
    call->message_length = length;
    call->sent = 0;
}

static ssize_t read_message(nghttp2_session *session, int32_t stream_id, uint8_t *bytes,
    size_t length, uint32_t *data_flags, nghttp2_data_source *source, void *userdata)
{
    struct call *call = source->ptr;
    (void)session;
    (void)stream_id;
    (void)userdata;
    size_t left = call->message_length - call->sent;
    size_t taken = left < length ? left : length;
    memcpy(bytes, call->message + call->sent, taken);
    call->sent += taken;
    if (call->sent == call->message_length)
        *data_flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)taken;
}

static nghttp2_nv header(const char *name, const char *value)
{
    union {
        const char *text;
        uint8_t *bytes; /* nghttp2 only reads */
    } names = {.text = name}, values = {.text = value};
    return (nghttp2_nv){
        .name = names.bytes,
        .value = values.bytes,
        .namelen = strlen(name),
        .valuelen = strlen(value),
        .flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE,
    };
}

/* False: the connection takes no more streams. */
static bool start_call(struct load_connection *connection)
{
    const struct load_plan *plan = connection->plan;
    nghttp2_nv headers[8];
    size_t header_count = 0;
    headers[header_count++] = header(":method", "POST");
    headers[header_count++] = header(":scheme", "http");
    headers[header_count++] = header(":path", plan->path);
    headers[header_count++] = header(":authority", connection->authority);
    headers[header_count++] = header("te", "trailers");
    headers[header_count++] = header("content-type", "application/grpc");
    headers[header_count++] = header("user-agent", "userd-load");
    if (plan->timeout != NULL)
        headers[header_count++] = header("grpc-timeout", plan->timeout);
    struct call *call = connection->free_calls[--connection->free_count];
    call->connection = connection;
    call->status = -1;
    call->reply_length = 0;
    call->is_cancelled = false;
    fill_message(connection, call);
    const nghttp2_data_provider provider = {.source.ptr = call, .read_callback = read_message};
    call->started_us = monotonic_clock_us();
    int32_t stream_id =
        nghttp2_submit_request(connection->session, NULL, headers, header_count, &provider, call);
    if (stream_id < 0) {
        connection->free_calls[connection->free_count++] = call;
        return false;
    }
    connection->under_way++;
    if (plan->cancel_mill > 0 && draw(connection, 1000) < plan->cancel_mill)
        call->is_cancelled = true;
    return true;
}

static void start_calls(struct load_connection *connection)
{
    while (!connection->plan->is_stopping && !connection->is_ended &&
           connection->under_way < connection->plan->streams &&
           nghttp2_session_check_request_allowed(connection->session) != 0)
        if (!start_call(connection))
            return;
}

/* The name that belongs to an id is "user" and the number. */
static bool is_right(const struct call *call)
{
    char name[16];
    int length = snprintf(name, sizeof(name), "user%u", call->id);
    return call->reply_length == (size_t)length + 7 &&
           memcmp(call->reply + 7, name, (size_t)length) == 0;
}

static void count_call(struct load_connection *connection, const struct call *call)
{
    const struct load_plan *plan = connection->plan;
    struct load_report *report = plan->report;
    if (!plan->is_measuring)
        return;
    if (call->is_cancelled && call->status != 0) {
        report->cancelled++;
        return;
    }
    if (call->status < 0) {
        report->unanswered++;
        return;
    }
    report->by_status[call->status < LOAD_STATUSES ? call->status : 2]++;
    if (call->status != 0)
        return;
    load_report_add_latency(report, monotonic_clock_us() - call->started_us);
    if (plan->verifies && !is_right(call))
        report->wrong++;
}

/* ---- what the session says ---- */

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
    size_t name_length, const uint8_t *value, size_t value_length, uint8_t flags, void *userdata)
{
    (void)flags;
    (void)userdata;
    if (name_length != 11 || memcmp(name, "grpc-status", 11) != 0)
        return 0;
    struct call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (call == NULL)
        return 0;
    call->status = 0;
    for (size_t i = 0; i < value_length; i++)
        call->status = call->status * 10 + (value[i] - '0');
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream_id, const uint8_t *bytes,
    size_t length, void *userdata)
{
    (void)flags;
    (void)userdata;
    struct call *call = nghttp2_session_get_stream_user_data(session, stream_id);
    if (call == NULL)
        return 0;
    size_t room = REPLY_BYTES - call->reply_length;
    size_t taken = length < room ? length : room;
    memcpy(call->reply + call->reply_length, bytes, taken);
    call->reply_length += taken;
    return 0;
}

static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *userdata)
{
    (void)userdata;
    if (frame->hd.type != NGHTTP2_DATA || (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0)
        return 0;
    const struct call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (call != NULL && call->is_cancelled)
        (void)nghttp2_submit_rst_stream(
            session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_CANCEL);
    return 0;
}

static int on_closed(
    nghttp2_session *session, int32_t stream_id, uint32_t error_code, void *userdata)
{
    struct load_connection *connection = userdata;
    (void)error_code;
    struct call *call = nghttp2_session_get_stream_user_data(session, stream_id);
    if (call == NULL)
        return 0;
    count_call(connection, call);
    connection->free_calls[connection->free_count++] = call;
    connection->under_way--;
    return 0;
}

/* ---- the socket ---- */

/* Sockets block on writing: a server that does not read is waited for. */
static bool send_all(struct load_connection *connection, const uint8_t *bytes, size_t length)
{
    size_t sent = 0;
    while (sent < length) {
        ssize_t written = send(connection->fd, bytes + sent, length - sent, MSG_NOSIGNAL);
        if (written < 0)
            return false;
        sent += (size_t)written;
    }
    return true;
}

/* Gathers what the session wants to say and sends it at once. */
static void flush(struct load_connection *connection)
{
    static uint8_t output[WRITE_BYTES];
    size_t length = 0;
    for (;;) {
        const uint8_t *bytes = NULL;
        ssize_t given = nghttp2_session_mem_send(connection->session, &bytes);
        if (given <= 0 || length + (size_t)given > sizeof(output)) {
            if (given < 0 || !send_all(connection, output, length))
                connection->is_ended = true;
            length = 0;
        }
        if (given <= 0 || connection->is_ended)
            return;
        memcpy(output + length, bytes, (size_t)given);
        length += (size_t)given;
    }
}

static void free_all_calls(struct load_connection *connection)
{
    connection->free_count = connection->plan->streams;
    memcpy((void *)connection->free_calls, (void *)connection->calls,
        connection->free_count * sizeof(struct call *));
}

static void open_session(struct load_connection *connection)
{
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection->fd < 0 || connect(connection->fd, (struct sockaddr *)&connection->address,
                                  sizeof(connection->address)) != 0)
        die("connect");
    const int on = 1;
    (void)setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    nghttp2_session_callbacks *callbacks = NULL;
    if (nghttp2_session_callbacks_new(&callbacks) != 0)
        die("nghttp2");
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_closed);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_sent);
    if (nghttp2_session_client_new(&connection->session, callbacks, connection) != 0)
        die("nghttp2");
    nghttp2_session_callbacks_del(callbacks);
    static const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1024 * 1024},
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
    };
    (void)nghttp2_submit_settings(
        connection->session, NGHTTP2_FLAG_NONE, settings, ARRAY_LENGTH(settings));
    (void)nghttp2_session_set_local_window_size(
        connection->session, NGHTTP2_FLAG_NONE, 0, WINDOW_BYTES);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    if (epoll_ctl(connection->epoll_fd, EPOLL_CTL_ADD, connection->fd, &event) != 0)
        die("epoll_ctl");
    connection->is_ended = false;
    start_calls(connection);
    flush(connection);
}

static void close_session(struct load_connection *connection)
{
    nghttp2_session_del(connection->session); /* does not call on_closed */
    connection->session = NULL;
    (void)close(connection->fd);
    if (connection->plan->is_measuring)
        connection->plan->report->unanswered += connection->under_way;
    connection->under_way = 0;
    free_all_calls(connection);
}

void load_connection_handle(struct load_connection *connection, uint32_t events)
{
    ssize_t length = recv(connection->fd, connection->input, READ_BYTES, MSG_DONTWAIT);
    bool is_dry = length < 0 && errno == EAGAIN && (events & (EPOLLERR | EPOLLHUP)) == 0;
    if (is_dry)
        return;
    if (length <= 0 ||
        nghttp2_session_mem_recv(connection->session, connection->input, (size_t)length) < 0)
        connection->is_ended = true;
    start_calls(connection);
    if (!connection->is_ended)
        flush(connection);
    /* After GOAWAY no stream can be opened any more: the rest is waited for, then it is made anew.
     */
    bool is_spent = nghttp2_session_check_request_allowed(connection->session) == 0 &&
                    connection->under_way == 0;
    if (!connection->is_ended && !is_spent)
        return;
    close_session(connection);
    if (connection->plan->is_stopping)
        return;
    connection->plan->report->reconnects++;
    open_session(connection);
}

size_t load_connection_under_way(const struct load_connection *connection)
{
    return connection->under_way;
}

/* ---- life ---- */

struct load_connection *load_connection_new(
    const struct load_plan *plan, const struct sockaddr_in *address, uint64_t seed, int epoll_fd)
{
    struct load_connection *connection = calloc(1, sizeof(*connection));
    if (connection == NULL)
        die("calloc");
    connection->plan = plan;
    connection->address = *address;
    connection->epoll_fd = epoll_fd;
    connection->random = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
    (void)snprintf(connection->authority, sizeof(connection->authority), "127.0.0.1:%u",
        ntohs(address->sin_port));
    connection->calls = calloc(plan->streams, sizeof(struct call *));
    connection->free_calls = calloc(plan->streams, sizeof(struct call *));
    if (connection->calls == NULL || connection->free_calls == NULL)
        die("calloc");
    for (size_t i = 0; i < plan->streams; i++) {
        connection->calls[i] =
            malloc(sizeof(struct call) + (plan->ids_per_call > 1 ? MESSAGE_BYTES : 16));
        if (connection->calls[i] == NULL)
            die("malloc");
    }
    free_all_calls(connection);
    open_session(connection);
    return connection;
}

struct load_connection *load_connection_free(struct load_connection *connection)
{
    if (connection == NULL)
        return NULL;
    if (connection->session != NULL)
        close_session(connection);
    for (size_t i = 0; i < connection->plan->streams; i++)
        free(connection->calls[i]);
    free((void *)connection->calls);
    free((void *)connection->free_calls);
    free(connection);
    return NULL;
}
