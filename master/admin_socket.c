#include "master/admin_socket.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/file_descriptor.h"
#include "common/ipc_channel.h"
#include "common/log.h"
#include "master/handover.h"

#define SOCKET_UMASK        0117 /* leaves 0660 */
#define GROUPS_MAX          64   /* of a peer that are looked at */
#define BACKLOG             ADMIN_SOCKET_CLIENTS
#define CLIENT_TIMEOUT_MS   10000 /* to send a request, and after an answer to leave */
#define TIMER_ACCURACY_US   100000
#define ACCEPTS_PER_SECOND  100 /* then the loop's other sources have their turn */
#define RATE_WINDOW_US      1000000
#define REQUEST_NONE        USERD__IPC__ADMIN_REQUEST__KIND__KIND_UNSPECIFIED
#define MICROSECONDS_PER_MS UINT64_C(1000)

struct admin_socket_client {
    struct admin_socket *socket;
    struct ipc_channel *channel;         /* owned; NULL: the place is free */
    sd_event_source *deadline;           /* owned */
    Userd__Ipc__AdminRequest__Kind open; /* the request that has no answer yet, or REQUEST_NONE */
    bool is_trusted;                     /* with more than STATUS */
    uint64_t request_id;
};

struct admin_socket {
    sd_event *event;
    int directory_fd;
    int fd;                  /* owned */
    sd_event_source *source; /* owned */
    const struct admin_socket_handlers *handlers;
    void *userdata;
    struct admin_socket_client clients[ADMIN_SOCKET_CLIENTS];
};

static void close_client(struct admin_socket_client *client)
{
    client->deadline = sd_event_source_disable_unref(client->deadline);
    client->channel = ipc_channel_free(client->channel);
    client->open = REQUEST_NONE;
}

static int on_deadline(sd_event_source *source, uint64_t time_us, void *userdata)
{
    (void)source;
    (void)time_us;
    log_debug("admin client closed reason=\"out of time\"");
    close_client(userdata);
    return 0;
}

/* A client without a deadline could hold its place for ever: when none can be set it goes. */
static int set_deadline(struct admin_socket_client *client, unsigned int timeout_ms)
{
    client->deadline = sd_event_source_disable_unref(client->deadline);
    return sd_event_add_time_relative(client->socket->event, &client->deadline, CLOCK_MONOTONIC,
        timeout_ms * MICROSECONDS_PER_MS, TIMER_ACCURACY_US, on_deadline, client);
}

void admin_socket_wait(struct admin_socket_client *client, unsigned int timeout_ms)
{
    if (client->channel != NULL && set_deadline(client, timeout_ms) < 0)
        close_client(client);
}

void admin_socket_answer(
    struct admin_socket_client *client, Userd__Ipc__AdminResult *result, int fd)
{
    if (client->channel == NULL || client->open == REQUEST_NONE)
        return;
    result->id = client->request_id;
    client->open = REQUEST_NONE;
    Userd__Ipc__Frame frame = USERD__IPC__FRAME__INIT;
    frame.body_case = USERD__IPC__FRAME__BODY_ADMIN_RESULT;
    frame.admin_result = result;
    int error = ipc_channel_send(client->channel, &frame, fd);
    if (error == 0)
        error = set_deadline(client, CLIENT_TIMEOUT_MS);
    if (error < 0) {
        log_warn("admin answer not sent error=\"%s\"", strerror(-error));
        close_client(client);
    }
}

void admin_socket_conclude(struct admin_socket *socket, Userd__Ipc__AdminRequest__Kind kind,
    const char *reason, const char *warning)
{
    for (size_t i = 0; i < ADMIN_SOCKET_CLIENTS; i++) {
        if (socket->clients[i].open != kind)
            continue;
        Userd__Ipc__AdminResult result;
        userd__ipc__admin_result__init(&result);
        result.is_done = reason == NULL;
        if (reason != NULL)
            result.reason = borrow_const(reason);
        if (warning != NULL)
            result.warning = borrow_const(warning);
        admin_socket_answer(&socket->clients[i], &result, -1);
    }
}

/* --- requests --- */

static void refuse(struct admin_socket_client *client)
{
    Userd__Ipc__AdminResult result;
    userd__ipc__admin_result__init(&result);
    result.reason = borrow_const("userd: this is for root and the service's own user");
    admin_socket_answer(client, &result, -1);
}

static int on_frame(
    struct ipc_channel *channel, const Userd__Ipc__Frame *frame, int *fd, void *userdata)
{
    struct admin_socket_client *client = userdata;
    const struct admin_socket_handlers *handlers = client->socket->handlers;
    (void)channel;
    (void)fd;
    if (frame->body_case != USERD__IPC__FRAME__BODY_ADMIN_REQUEST || client->open != REQUEST_NONE)
        return -EPROTO;
    client->open = frame->admin_request->kind;
    client->request_id = frame->admin_request->id;
    if (!client->is_trusted && client->open != USERD__IPC__ADMIN_REQUEST__KIND__STATUS) {
        refuse(client);
        return 0;
    }
    switch ((int)client->open) {
    case USERD__IPC__ADMIN_REQUEST__KIND__STATUS:
        handlers->on_status(client, client->socket->userdata);
        return 0;
    case USERD__IPC__ADMIN_REQUEST__KIND__RELOAD:
        handlers->on_reload(client, client->socket->userdata);
        return 0;
    case USERD__IPC__ADMIN_REQUEST__KIND__STOP:
        handlers->on_stop(client, client->socket->userdata);
        return 0;
    case USERD__IPC__ADMIN_REQUEST__KIND__UPGRADE:
        handlers->on_upgrade(client, client->socket->userdata);
        return 0;
    default: /* of another release */
        client->open = REQUEST_NONE;
        return -EPROTO;
    }
}

static void on_closed(struct ipc_channel *channel, int error, void *userdata)
{
    (void)channel;
    (void)error;
    close_client(userdata);
}

static const struct ipc_channel_handlers channel_handlers = {
    .on_frame = on_frame,
    .on_closed = on_closed,
};

/* --- connections --- */

/* Ours, as the peer's own group or one of its further ones. */
static bool is_of_our_group(int fd, const struct ucred *peer)
{
    if (peer->gid == getegid())
        return true;
    gid_t groups[GROUPS_MAX];
    socklen_t length = sizeof(groups);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &length) != 0)
        return false; /* more than there is room for, too */
    for (size_t i = 0; i < length / sizeof(groups[0]); i++)
        if (groups[i] == getegid())
            return true;
    return false;
}

/* Root and our own user: everything. Our group: STATUS. Others: nothing. */
static bool is_allowed(int fd, bool *ret_is_trusted)
{
    struct ucred peer = {0};
    socklen_t length = sizeof(peer);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0)
        return false;
    bool is_trusted = peer.uid == 0 || peer.uid == geteuid();
    if (is_trusted || is_of_our_group(fd, &peer)) {
        *ret_is_trusted = is_trusted;
        return true;
    }
    log_warn("admin client refused uid=%u pid=%d", peer.uid, (int)peer.pid);
    return false;
}

static struct admin_socket_client *find_place(struct admin_socket *socket)
{
    for (size_t i = 0; i < ADMIN_SOCKET_CLIENTS; i++)
        if (socket->clients[i].channel == NULL)
            return &socket->clients[i];
    return NULL;
}

static int on_connection(sd_event_source *source, int listening_fd, uint32_t events, void *userdata)
{
    struct admin_socket *socket = userdata;
    (void)source;
    (void)events;
    int fd CLEANUP(fd_close) = accept4(listening_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
            log_warn("admin client not accepted error=\"%s\"", strerror(errno));
        return 0;
    }
    bool is_trusted = false;
    if (!is_allowed(fd, &is_trusted))
        return 0;
    struct admin_socket_client *client = find_place(socket);
    if (client == NULL) {
        log_warn("admin client refused reason=\"%d are connected\"", ADMIN_SOCKET_CLIENTS);
        return 0;
    }
    client->is_trusted = is_trusted;
    int error = ipc_channel_new(
        socket->event, fd_take(&fd), "admin", &channel_handlers, client, &client->channel);
    if (error == 0)
        error = set_deadline(client, CLIENT_TIMEOUT_MS);
    if (error < 0) {
        log_warn("admin client not accepted error=\"%s\"", strerror(-error));
        close_client(client);
    }
    return 0;
}

/* --- life --- */

/* Through /proc: sun_path has no room for a long run_dir, and the name means the directory that is
 * locked, not what its path means now. */
static int listen_in(int directory_fd, int *ret_fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", directory_fd,
        ADMIN_SOCKET_FILE);
    int fd CLEANUP(fd_close) = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (unlinkat(directory_fd, ADMIN_SOCKET_FILE, 0) < 0 && errno != ENOENT)
        return -errno;
    mode_t before = umask(SOCKET_UMASK);
    int result = bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
    (void)umask(before);
    if (result == 0 && listen(fd, BACKLOG) < 0)
        result = -errno;
    if (result == 0)
        *ret_fd = fd_take(&fd);
    return result;
}

static int open_on(int *fd, sd_event *event, int directory_fd,
    const struct admin_socket_handlers *handlers, void *userdata, struct admin_socket **ret_socket)
{
    struct admin_socket *socket = calloc(1, sizeof(*socket));
    if (socket == NULL)
        return -ENOMEM;
    *socket = (struct admin_socket){.event = event,
        .directory_fd = directory_fd,
        .fd = fd_take(fd),
        .handlers = handlers,
        .userdata = userdata};
    for (size_t i = 0; i < ADMIN_SOCKET_CLIENTS; i++)
        socket->clients[i].socket = socket;
    int result =
        sd_event_add_io(event, &socket->source, socket->fd, EPOLLIN, on_connection, socket);
    if (result >= 0)
        result = sd_event_source_set_ratelimit(socket->source, RATE_WINDOW_US, ACCEPTS_PER_SECOND);
    if (result < 0) {
        (void)admin_socket_free(socket);
        return result;
    }
    *ret_socket = socket;
    return 0;
}

int admin_socket_new(sd_event *event, int directory_fd,
    const struct admin_socket_handlers *handlers, void *userdata, struct admin_socket **ret_socket)
{
    int fd CLEANUP(fd_close) = -1;
    int result = listen_in(directory_fd, &fd);
    if (result < 0)
        return result;
    return open_on(&fd, event, directory_fd, handlers, userdata, ret_socket);
}

void admin_socket_save(const struct admin_socket *socket, struct handover *handover)
{
    Userd__Handover__State *state = &handover->state;
    state->admin_fd = socket->fd;
    for (size_t i = 0; i < ADMIN_SOCKET_CLIENTS; i++) {
        const struct admin_socket_client *client = &socket->clients[i];
        if (client->channel == NULL || client->open == REQUEST_NONE)
            continue;
        Userd__Handover__Client *saved = &handover->clients[state->n_clients++];
        saved->fd = ipc_channel_fd(client->channel);
        saved->kind = client->open;
        saved->request_id = client->request_id;
    }
}

/* One that cannot be taken is closed: it asks again. */
static void take_client(
    struct admin_socket *socket, const Userd__Handover__Client *saved, unsigned int timeout_ms)
{
    struct admin_socket_client *client = find_place(socket);
    if (client == NULL)
        return;
    int result = ipc_channel_new(
        socket->event, saved->fd, "admin", &channel_handlers, client, &client->channel);
    client->open = (Userd__Ipc__AdminRequest__Kind)saved->kind;
    client->request_id = saved->request_id;
    if (result == 0)
        result = set_deadline(client, timeout_ms);
    if (result < 0)
        close_client(client);
}

int admin_socket_take_over(sd_event *event, const Userd__Handover__State *state,
    const struct admin_socket_handlers *handlers, void *userdata, unsigned int timeout_ms,
    struct admin_socket **ret_socket)
{
    int fd CLEANUP(fd_close) = state->admin_fd;
    int result = open_on(&fd, event, state->run_directory_fd, handlers, userdata, ret_socket);
    for (size_t i = 0; i < state->n_clients && result == 0; i++)
        take_client(*ret_socket, state->clients[i], timeout_ms);
    return result;
}

struct admin_socket *admin_socket_free(struct admin_socket *socket)
{
    if (socket == NULL)
        return NULL;
    for (size_t i = 0; i < ADMIN_SOCKET_CLIENTS; i++)
        close_client(&socket->clients[i]);
    (void)sd_event_source_disable_unref(socket->source);
    (void)unlinkat(socket->directory_fd, ADMIN_SOCKET_FILE, 0);
    fd_close(&socket->fd);
    free(socket);
    return NULL;
}
