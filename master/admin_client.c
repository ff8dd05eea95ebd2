#include "master/admin_client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/file_descriptor.h"
#include "common/ipc_channel.h"
#include "common/monotonic_clock.h"
#include "master/admin_socket.h"

#define MICROSECONDS_PER_MS UINT64_C(1000)

struct admin_client {
    sd_event *event;             /* owned */
    struct ipc_channel *channel; /* owned */
    int master_pid_fd;           /* owned; -1: its pid is not visible here */
    uint64_t last_id;
    Userd__Ipc__Frame *answer; /* owned */
    int answer_fd;             /* owned */
    bool has_ended;
};

static void forget_answer(struct admin_client *client)
{
    if (client->answer != NULL)
        userd__ipc__frame__free_unpacked(client->answer, NULL);
    client->answer = NULL;
    fd_close(&client->answer_fd);
}

/* The channel's frame ends with the handler: a copy, by way of its bytes. */
static Userd__Ipc__Frame *copy_frame(const Userd__Ipc__Frame *frame)
{
    size_t size = userd__ipc__frame__get_packed_size(frame);
    uint8_t *bytes = malloc(size);
    if (bytes == NULL)
        return NULL;
    (void)userd__ipc__frame__pack(frame, bytes);
    Userd__Ipc__Frame *copy = userd__ipc__frame__unpack(NULL, size, bytes);
    free(bytes);
    return copy;
}

static int on_frame(
    struct ipc_channel *channel, const Userd__Ipc__Frame *frame, int *fd, void *userdata)
{
    struct admin_client *client = userdata;
    (void)channel;
    if (frame->body_case != USERD__IPC__FRAME__BODY_ADMIN_RESULT || client->answer != NULL ||
        frame->admin_result->id != client->last_id)
        return -EPROTO;
    client->answer = copy_frame(frame);
    if (client->answer == NULL)
        return -ENOMEM;
    client->answer_fd = fd_take(fd);
    return 0;
}

static void on_closed(struct ipc_channel *channel, int error, void *userdata)
{
    struct admin_client *client = userdata;
    (void)channel;
    (void)error;
    client->has_ended = true;
}

static const struct ipc_channel_handlers channel_handlers = {
    .on_frame = on_frame,
    .on_closed = on_closed,
};

static int connect_to(const char *run_dir, int *ret_fd)
{
    int directory_fd CLEANUP(fd_close) = open(run_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (directory_fd < 0)
        return -errno;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", directory_fd,
        ADMIN_SOCKET_FILE);
    int fd CLEANUP(fd_close) = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        return -errno;
    *ret_fd = fd_take(&fd);
    return 0;
}

static int open_master(int fd)
{
    struct ucred peer = {0};
    socklen_t length = sizeof(peer);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0 || peer.pid <= 0)
        return -1;
    return (int)syscall(SYS_pidfd_open, peer.pid, 0);
}

int admin_client_open(const char *run_dir, struct admin_client **ret_client)
{
    int fd CLEANUP(fd_close) = -1;
    int result = connect_to(run_dir, &fd);
    if (result < 0)
        return result;
    struct admin_client *client CLEANUP(admin_client_closep) = calloc(1, sizeof(*client));
    if (client == NULL)
        return -ENOMEM;
    client->answer_fd = -1;
    client->master_pid_fd = open_master(fd);
    result = sd_event_new(&client->event);
    if (result >= 0)
        result = ipc_channel_new(
            client->event, fd_take(&fd), "master", &channel_handlers, client, &client->channel);
    if (result < 0)
        return result;
    *ret_client = TAKE_PTR(client);
    return 0;
}

struct admin_client *admin_client_close(struct admin_client *client)
{
    if (client == NULL)
        return NULL;
    forget_answer(client);
    client->channel = ipc_channel_free(client->channel);
    client->event = sd_event_unref(client->event);
    fd_close(&client->master_pid_fd);
    free(client);
    return NULL;
}

void admin_client_closep(struct admin_client **client)
{
    *client = admin_client_close(*client);
}

/* Runs the loop until there is an answer (when one is awaited) or the channel has ended. */
static int run_until(struct admin_client *client, bool wants_answer, unsigned int timeout_ms)
{
    uint64_t deadline_us = monotonic_clock_us() + timeout_ms * MICROSECONDS_PER_MS;
    while (!client->has_ended && !(wants_answer && client->answer != NULL)) {
        uint64_t now = monotonic_clock_us();
        if (now >= deadline_us)
            return -ETIMEDOUT;
        int result = sd_event_run(client->event, deadline_us - now);
        if (result < 0)
            return result;
    }
    return 0;
}

int admin_client_ask(struct admin_client *client, Userd__Ipc__AdminRequest__Kind kind,
    unsigned int timeout_ms, const Userd__Ipc__AdminResult **ret_result, int *ret_fd)
{
    forget_answer(client);
    Userd__Ipc__AdminRequest request = USERD__IPC__ADMIN_REQUEST__INIT;
    request.id = ++client->last_id;
    request.kind = kind;
    Userd__Ipc__Frame frame = USERD__IPC__FRAME__INIT;
    frame.body_case = USERD__IPC__FRAME__BODY_ADMIN_REQUEST;
    frame.admin_request = &request;
    int result = ipc_channel_send(client->channel, &frame, -1);
    if (result == -EPIPE)
        return -ECONNRESET;
    if (result == 0)
        result = run_until(client, true, timeout_ms);
    if (result < 0)
        return result;
    if (client->answer == NULL)
        return -ECONNRESET;
    *ret_result = client->answer->admin_result;
    *ret_fd = fd_take(&client->answer_fd);
    return 0;
}

int admin_client_await_end(struct admin_client *client, unsigned int timeout_ms)
{
    uint64_t deadline_us = monotonic_clock_us() + timeout_ms * MICROSECONDS_PER_MS;
    int result = run_until(client, false, timeout_ms);
    if (result < 0 || client->master_pid_fd < 0)
        return result;
    /* The socket closes a little before the process is gone. */
    struct pollfd entry = {.fd = client->master_pid_fd, .events = POLLIN};
    for (;;) {
        uint64_t now = monotonic_clock_us();
        int left_ms = now >= deadline_us ? 0 : (int)((deadline_us - now) / MICROSECONDS_PER_MS) + 1;
        int ready = poll(&entry, 1, left_ms);
        if (ready > 0)
            return 0;
        if (ready == 0)
            return -ETIMEDOUT;
        if (errno != EINTR)
            return -errno;
    }
}
