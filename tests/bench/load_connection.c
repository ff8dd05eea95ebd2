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

#include "tests/bench/load_request.h"

#define READ_BYTES   ((size_t)256 * 1024)
#define WRITE_BYTES  ((size_t)1024 * 1024)
#define WINDOW_BYTES (64 * 1024 * 1024)
#define RETRY_US     20000 /* between two tries to connect */

struct call {
    struct load_connection *connection;
    uint64_t started_us; /* by the clock: when it was due */
    int status;
    bool is_cancelled;
    size_t sent;
    size_t answer_length;
    uint8_t *answer; /* owned: load_request_answer_capacity() */
    struct load_request request;
};

struct load_connection {
    struct load_plan *plan;
    struct sockaddr_in address;
    char authority[32];
    int epoll_fd;
    int fd; /* -1: not connected */
    nghttp2_session *session;
    struct load_random random;
    size_t under_way;
    uint64_t failed; /* calls on this connection, not on those before it */
    uint16_t port;   /* our end of it */
    bool is_ended;   /* by the peer, or by an error */
    bool is_dirty;   /* calls were begun and not yet sent */
    uint64_t retry_us;
    size_t answer_capacity;
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

/* ---- a call ---- */

static ssize_t read_message(nghttp2_session *session, int32_t stream_id, uint8_t *bytes,
    size_t length, uint32_t *data_flags, nghttp2_data_source *source, void *userdata)
{
    struct call *call = source->ptr;
    (void)session;
    (void)stream_id;
    (void)userdata;
    size_t left = call->request.length - call->sent;
    size_t taken = left < length ? left : length;
    memcpy(bytes, call->request.bytes + call->sent, taken);
    call->sent += taken;
    if (call->sent == call->request.length)
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

static bool has_room(const struct load_connection *connection)
{
    const struct load_plan *plan = connection->plan;
    if (plan->calls > 0 && plan->begun == plan->calls)
        return false;
    return connection->fd >= 0 && !connection->is_ended && connection->free_count > 0 &&
           nghttp2_session_check_request_allowed(connection->session) != 0;
}

/* False: the connection takes no more streams. */
static bool start_call(struct load_connection *connection, uint64_t started_us)
{
    struct load_plan *plan = connection->plan;
    struct call *call = connection->free_calls[--connection->free_count];
    call->connection = connection;
    call->started_us = started_us;
    call->status = -1;
    call->sent = 0;
    call->answer_length = 0;
    load_request_fill(&call->request, plan, &connection->random);
    call->is_cancelled =
        plan->cancel_mill > 0 && load_random_below(&connection->random, 1000) < plan->cancel_mill;
    nghttp2_nv headers[8];
    size_t header_count = 0;
    headers[header_count++] = header(":method", "POST");
    headers[header_count++] = header(":scheme", "http");
    headers[header_count++] = header(":path", load_request_path(call->request.method));
    headers[header_count++] = header(":authority", connection->authority);
    headers[header_count++] = header("te", "trailers");
    headers[header_count++] = header("content-type", "application/grpc");
    headers[header_count++] = header("user-agent", "userd-load");
    if (plan->timeout != NULL)
        headers[header_count++] = header("grpc-timeout", plan->timeout);
    const nghttp2_data_provider provider = {.source.ptr = call, .read_callback = read_message};
    if (nghttp2_submit_request(connection->session, NULL, headers, header_count, &provider, call) <
        0) {
        connection->free_calls[connection->free_count++] = call;
        return false;
    }
    connection->under_way++;
    plan->begun++;
    plan->report->started += plan->is_measuring;
    return true;
}

bool load_connection_start(struct load_connection *connection, uint64_t due_us)
{
    if (!has_room(connection) || !start_call(connection, due_us))
        return false;
    connection->is_dirty = true;
    return true;
}

/* Closed loop. */
static void start_calls(struct load_connection *connection)
{
    const struct load_plan *plan = connection->plan;
    while (plan->rate == 0 && !plan->is_stopping && has_room(connection))
        if (!start_call(connection, monotonic_clock_us()))
            return;
}

static bool is_wrong(struct load_plan *plan, struct load_counts *counts, const struct call *call)
{
    uint32_t names = 0;
    if (call->status == 5 /* NOT_FOUND */)
        return plan->verifies && !load_request_may_miss(&call->request, plan);
    if (call->status != 0)
        return false;
    bool is_right =
        load_request_check(&call->request, plan, call->answer, call->answer_length, &names);
    counts->names += names;
    return plan->verifies && !is_right;
}

static void count_into(struct load_counts *counts, const struct call *call, uint64_t now_us)
{
    if (call->is_cancelled && call->status != 0) {
        counts->cancelled++;
    } else if (call->status < 0) {
        counts->unanswered++;
    } else {
        counts->by_status[call->status < LOAD_STATUSES ? call->status : 2 /* UNKNOWN */]++;
        if (call->status == 0)
            load_report_add_latency(counts, now_us - call->started_us);
    }
}

static void count_call(struct load_connection *connection, const struct call *call)
{
    struct load_plan *plan = connection->plan;
    connection->failed += call->status != 0 && !call->is_cancelled;
    if (!plan->is_measuring)
        return;
    struct load_counts *all = &plan->report->all;
    struct load_counts *of_method = &plan->report->by_method[call->request.method];
    uint64_t names_before = all->names;
    uint64_t now_us = monotonic_clock_us();
    if (is_wrong(plan, all, call)) {
        all->wrong++;
        of_method->wrong++;
    }
    of_method->names += all->names - names_before;
    count_into(all, call, now_us);
    count_into(of_method, call, now_us);
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
    /* What does not fit is no right answer: its length shows it. */
    size_t room = call->connection->answer_capacity - call->answer_length;
    size_t taken = length < room ? length : room;
    memcpy(call->answer + call->answer_length, bytes, taken);
    call->answer_length += taken;
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

static uint16_t own_port(int fd)
{
    struct sockaddr_in address = {0};
    socklen_t length = sizeof(address);
    if (getsockname(fd, (struct sockaddr *)&address, &length) != 0)
        die("getsockname");
    return ntohs(address.sin_port);
}

/* Whether there is a connection now. */
static bool open_socket(struct load_connection *connection)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket");
    if (connect(fd, (struct sockaddr *)&connection->address, sizeof(connection->address)) != 0) {
        if (!connection->plan->reconnects)
            die("connect");
        (void)close(fd);
        connection->plan->report->refused++;
        connection->retry_us = monotonic_clock_us() + RETRY_US;
        return false;
    }
    const int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    connection->fd = fd;
    connection->port = own_port(fd);
    connection->retry_us = 0;
    return true;
}

static void open_session(struct load_connection *connection)
{
    if (!open_socket(connection))
        return;
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
    connection->fd = -1;
    if (connection->plan->is_measuring)
        connection->plan->report->all.unanswered += connection->under_way;
    connection->failed += connection->under_way;
    if (connection->failed > 0)
        load_report_add_loss(connection->plan->report, connection->port, connection->failed);
    connection->failed = 0;
    connection->under_way = 0;
    free_all_calls(connection);
}

/* After GOAWAY no stream can be opened any more: the rest is waited for, then it is made anew. */
static void renew_if_over(struct load_connection *connection)
{
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
    renew_if_over(connection);
}

void load_connection_flush(struct load_connection *connection)
{
    if (!connection->is_dirty || connection->fd < 0)
        return;
    connection->is_dirty = false;
    flush(connection);
    renew_if_over(connection);
}

void load_connection_retry(struct load_connection *connection, uint64_t now_us)
{
    if (connection->retry_us == 0 || now_us < connection->retry_us || connection->plan->is_stopping)
        return;
    open_session(connection);
}

size_t load_connection_under_way(const struct load_connection *connection)
{
    return connection->under_way;
}

/* ---- life ---- */

static struct call *new_call(const struct load_plan *plan)
{
    struct call *call = calloc(1, sizeof(*call));
    if (call == NULL)
        die("calloc");
    call->request.bytes = malloc(load_request_capacity(plan));
    call->answer = malloc(load_request_answer_capacity(plan));
    if (call->request.bytes == NULL || call->answer == NULL)
        die("malloc");
    return call;
}

struct load_connection *load_connection_new(
    struct load_plan *plan, const struct sockaddr_in *address, uint64_t seed, int epoll_fd)
{
    struct load_connection *connection = calloc(1, sizeof(*connection));
    if (connection == NULL)
        die("calloc");
    connection->plan = plan;
    connection->address = *address;
    connection->epoll_fd = epoll_fd;
    connection->fd = -1;
    connection->random.state = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
    connection->answer_capacity = load_request_answer_capacity(plan);
    (void)snprintf(connection->authority, sizeof(connection->authority), "127.0.0.1:%u",
        ntohs(address->sin_port));
    connection->calls = calloc(plan->streams, sizeof(struct call *));
    connection->free_calls = calloc(plan->streams, sizeof(struct call *));
    if (connection->calls == NULL || connection->free_calls == NULL)
        die("calloc");
    for (size_t i = 0; i < plan->streams; i++)
        connection->calls[i] = new_call(plan);
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
    for (size_t i = 0; i < connection->plan->streams; i++) {
        free(connection->calls[i]->request.bytes);
        free(connection->calls[i]->answer);
        free(connection->calls[i]);
    }
    free((void *)connection->calls);
    free((void *)connection->free_calls);
    free(connection);
    return NULL;
}
