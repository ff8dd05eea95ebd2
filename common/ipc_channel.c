#include "common/ipc_channel.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "common/file_descriptor.h"
#include "common/log.h"

/* A record:
 *
 *   +------+--------------------------+
 *   | kind | Frame, packed            |   RECORD_INLINE: 1 + 1..IPC_RECORD_MAX bytes, at most one
 * descriptor
 *   +------+--------------------------+
 *   | kind |                              RECORD_MEMFD: 1 byte; the Frame is in the one descriptor,
 * a sealed memfd
 *   +------+
 */
enum record_kind { RECORD_INLINE = 1, RECORD_MEMFD = 2 };

#define RECORD_SIZE_MAX         (1 + IPC_RECORD_MAX)
#define PEER_NAME_SIZE          32
#define FRAMES_OF_A_FULL_SOCKET 65536 /* more than any socket holds */
#define FRAMES_PER_DISPATCH     64    /* then the loop's other sources have their turn */
#define BODY_SEALS              (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

struct queued_record {
    struct queued_record *next;
    int fd; /* owned, or -1 */
    size_t length;
    uint8_t bytes[];
};

struct ipc_channel {
    int fd; /* owned; -1 once the channel has ended */
    sd_event_source *source;
    char peer[PEER_NAME_SIZE];
    const struct ipc_channel_handlers *handlers;
    void *userdata;
    struct queued_record *queue_head; /* owned */
    struct queued_record **queue_tail;
    size_t queued_bytes;
    bool is_dispatching;
    bool is_freed; /* while dispatching: freed when the dispatch returns */
    uint8_t buffer[RECORD_SIZE_MAX];
};

/* ---- sending ---- */

static int send_record(int socket_fd, uint8_t *bytes, size_t length, int fd)
{
    struct iovec vector = {.iov_base = bytes, .iov_len = length};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    if (fd >= 0) {
        message.msg_control = control.space;
        message.msg_controllen = sizeof(control.space);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &fd, sizeof(fd));
    }
    ssize_t sent;
    do {
        sent = sendmsg(socket_fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0)
        return errno == EPIPE || errno == ECONNRESET ? -EPIPE : -errno;
    return 0;
}

static void free_record(struct queued_record *record)
{
    fd_close(&record->fd);
    free(record);
}

static int enqueue(struct ipc_channel *channel, size_t length, int fd)
{
    if (channel->queued_bytes + length > IPC_QUEUE_MAX_BYTES)
        return -ENOBUFS;
    struct queued_record *record = malloc(sizeof(*record) + length);
    if (record == NULL)
        return -ENOMEM;
    *record = (struct queued_record){.fd = -1, .length = length};
    memcpy(record->bytes, channel->buffer, length);
    if (fd >= 0) {
        record->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (record->fd < 0) {
            int error = errno;
            free_record(record);
            return -error;
        }
    }
    *channel->queue_tail = record;
    channel->queue_tail = &record->next;
    channel->queued_bytes += length;
    return sd_event_source_set_io_events(channel->source, EPOLLIN | EPOLLOUT);
}

/* Sends what is in channel->buffer, behind all that waits already. */
static int send_or_queue(struct ipc_channel *channel, size_t length, int fd)
{
    if (channel->queue_head == NULL) {
        int result = send_record(channel->fd, channel->buffer, length, fd);
        if (result != -EAGAIN)
            return result;
    }
    return enqueue(channel, length, fd);
}

static int write_body(int fd, const Userd__Ipc__Frame *frame, size_t size)
{
    if (ftruncate(fd, (off_t)size) != 0)
        return -errno;
    void *body = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (body == MAP_FAILED)
        return -errno;
    (void)userd__ipc__frame__pack(frame, body);
    (void)munmap(body, size); /* a writable map would forbid the seal */
    return fcntl(fd, F_ADD_SEALS, BODY_SEALS) == 0 ? 0 : -errno;
}

static int send_by_memfd(struct ipc_channel *channel, const Userd__Ipc__Frame *frame, size_t size)
{
    int body CLEANUP(fd_close) = memfd_create("userd-ipc", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (body < 0)
        return -errno;
    int result = write_body(body, frame, size);
    if (result < 0)
        return result;
    channel->buffer[0] = RECORD_MEMFD;
    return send_or_queue(channel, 1, body);
}

int ipc_channel_send(struct ipc_channel *channel, const Userd__Ipc__Frame *frame, int fd)
{
    if (channel->fd < 0 || channel->is_freed)
        return -EPIPE;
    size_t size = userd__ipc__frame__get_packed_size(frame);
    assert(size > 0);
    if (size > IPC_BODY_MAX)
        return -EMSGSIZE;
    if (size > IPC_RECORD_MAX) {
        assert(fd < 0); /* a record has room for one descriptor, and the body takes it */
        return send_by_memfd(channel, frame, size);
    }
    channel->buffer[0] = RECORD_INLINE;
    (void)userd__ipc__frame__pack(frame, channel->buffer + 1);
    return send_or_queue(channel, 1 + size, fd);
}

static int flush_queue(struct ipc_channel *channel)
{
    while (channel->queue_head != NULL) {
        struct queued_record *record = channel->queue_head;
        int result = send_record(channel->fd, record->bytes, record->length, record->fd);
        if (result == -EAGAIN)
            return 0;
        if (result < 0)
            return result;
        channel->queue_head = record->next;
        if (channel->queue_head == NULL)
            channel->queue_tail = &channel->queue_head;
        channel->queued_bytes -= record->length;
        free_record(record);
    }
    return sd_event_source_set_io_events(channel->source, EPOLLIN);
}

/* ---- receiving ---- */

/* The kernel installs every descriptor that was sent: keep the first, close the rest. Returns how
 * many came. */
static size_t take_descriptors(struct msghdr *message, int *ret_fd)
{
    size_t count = 0;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header != NULL;
         header = CMSG_NXTHDR(message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
            continue;
        size_t received = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < received; i++, count++) {
            int fd;
            memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(fd));
            if (count == 0)
                *ret_fd = fd;
            else
                fd_close(&fd);
        }
    }
    return count;
}

/* Reads one record into channel->buffer. Returns its length, 0 at the end, -EAGAIN, or another
 * negative errno. *ret_fd: its descriptor; IPC_FD_CUT_OFF: the kernel had one to give, and found no
 * room for it here; untouched: none came with it. */
static ssize_t receive_record(struct ipc_channel *channel, int *ret_fd)
{
    struct iovec vector = {.iov_base = channel->buffer, .iov_len = sizeof(channel->buffer)};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(4 * sizeof(int))];
    } control;
    struct msghdr message = {.msg_iov = &vector,
        .msg_iovlen = 1,
        .msg_control = control.space,
        .msg_controllen = sizeof(control.space)};
    ssize_t length;
    /* ECONNRESET: the peer has gone and had not read all. It is said once, ahead of what the peer
     * has left for us. */
    do {
        length = recvmsg(channel->fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    } while (length < 0 && (errno == EINTR || errno == ECONNRESET));
    if (length < 0)
        return -errno;
    size_t descriptors = take_descriptors(&message, ret_fd);
    bool is_cut_off = (message.msg_flags & MSG_CTRUNC) != 0;
    if (descriptors > (is_cut_off ? 0 : 1) || (message.msg_flags & MSG_TRUNC) != 0)
        return -EPROTO;
    if (is_cut_off)
        *ret_fd = IPC_FD_CUT_OFF;
    return length;
}

static int dispatch_frame(struct ipc_channel *channel, const uint8_t *bytes, size_t size, int *fd)
{
    Userd__Ipc__Frame *frame = userd__ipc__frame__unpack(NULL, size, bytes);
    if (frame == NULL)
        return -EPROTO;
    int result = frame->body_case == USERD__IPC__FRAME__BODY__NOT_SET
                     ? -EPROTO
                     : channel->handlers->on_frame(channel, frame, fd, channel->userdata);
    userd__ipc__frame__free_unpacked(frame, NULL);
    return result;
}

static int dispatch_memfd(struct ipc_channel *channel, int body)
{
    struct stat status;
    int seals = fcntl(body, F_GET_SEALS);
    /* unsealed, the sender could shrink it under our map */
    if (seals < 0 || (seals & BODY_SEALS) != BODY_SEALS || fstat(body, &status) != 0)
        return -EPROTO;
    if (status.st_size <= 0 || status.st_size > (off_t)IPC_BODY_MAX)
        return -EPROTO;
    size_t size = (size_t)status.st_size;
    void *bytes = mmap(NULL, size, PROT_READ, MAP_PRIVATE, body, 0);
    if (bytes == MAP_FAILED)
        return -errno;
    int no_fd = -1;
    int result = dispatch_frame(channel, bytes, size, &no_fd);
    (void)munmap(bytes, size);
    return result;
}

/* Returns 1 when a frame was handled, 0 when there is none now, -ENODATA at the end, other negative
 * errno when broken. */
static int receive_frame(struct ipc_channel *channel)
{
    int fd CLEANUP(fd_close) = -1;
    ssize_t length = receive_record(channel, &fd);
    if (length == -EAGAIN)
        return 0;
    if (length == 0)
        return -ENODATA;
    if (length < 0)
        return (int)length;
    int result = -EPROTO;
    if (channel->buffer[0] == RECORD_INLINE && length > 1)
        result = dispatch_frame(channel, channel->buffer + 1, (size_t)length - 1, &fd);
    else if (channel->buffer[0] == RECORD_MEMFD && length == 1 && fd != -1)
        result = fd == IPC_FD_CUT_OFF ? -EMFILE : dispatch_memfd(channel, fd);
    return result < 0 ? result : 1;
}

static void shut(struct ipc_channel *channel)
{
    channel->source = sd_event_source_disable_unref(channel->source);
    fd_close(&channel->fd);
    while (channel->queue_head != NULL) {
        struct queued_record *record = channel->queue_head;
        channel->queue_head = record->next;
        free_record(record);
    }
    channel->queue_tail = &channel->queue_head;
    channel->queued_bytes = 0;
}

static void end(struct ipc_channel *channel, int error)
{
    if (error == -ENODATA || error == -EPIPE)
        error = 0;
    if (error != 0)
        log_warn("ipc channel broken peer=%s error=\"%s\"", channel->peer, strerror(-error));
    shut(channel);
    channel->handlers->on_closed(channel, error, channel->userdata);
}

/* Handles up to `limit` frames. The channel may be gone afterwards. */
static void receive_frames(struct ipc_channel *channel, int result, int limit)
{
    channel->is_dispatching = true;
    for (int i = 0; i < limit && result > 0 && !channel->is_freed && channel->fd >= 0; i++)
        result = receive_frame(channel);
    if (result < 0 && !channel->is_freed)
        end(channel, result);
    channel->is_dispatching = false;
    if (channel->is_freed)
        free(channel);
}

static int on_io(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    struct ipc_channel *channel = userdata;
    (void)source;
    (void)fd;
    int result = 1;
    if ((events & EPOLLOUT) != 0) {
        int flushed = flush_queue(channel);
        /* a peer that has gone may have left frames for us to read first */
        if (flushed < 0 && flushed != -EPIPE)
            result = flushed;
    }
    receive_frames(channel, result, FRAMES_PER_DISPATCH);
    return 0;
}

void ipc_channel_receive_rest(struct ipc_channel *channel)
{
    if (channel->fd >= 0 && !channel->is_dispatching)
        receive_frames(channel, 1, FRAMES_OF_A_FULL_SOCKET);
}

/* ---- life ---- */

int ipc_channel_new(sd_event *event, int fd, const char *peer,
    const struct ipc_channel_handlers *handlers, void *userdata, struct ipc_channel **ret_channel)
{
    int owned_fd CLEANUP(fd_close) = fd;
    struct ipc_channel *channel = calloc(1, sizeof(*channel));
    if (channel == NULL)
        return -ENOMEM;
    channel->handlers = handlers;
    channel->userdata = userdata;
    channel->queue_tail = &channel->queue_head;
    strncpy(channel->peer, peer, sizeof(channel->peer) - 1);
    int result = sd_event_add_io(event, &channel->source, owned_fd, EPOLLIN, on_io, channel);
    if (result < 0) {
        free(channel);
        return result;
    }
    channel->fd = fd_take(&owned_fd);
    *ret_channel = channel;
    return 0;
}

struct ipc_channel *ipc_channel_free(struct ipc_channel *channel)
{
    if (channel == NULL || channel->is_freed)
        return NULL;
    shut(channel);
    if (channel->is_dispatching)
        channel->is_freed = true;
    else
        free(channel);
    return NULL;
}

void ipc_channel_freep(struct ipc_channel **channel)
{
    *channel = ipc_channel_free(*channel);
}

size_t ipc_channel_queued_bytes(const struct ipc_channel *channel)
{
    return channel->queued_bytes;
}

int ipc_channel_fd(const struct ipc_channel *channel)
{
    return channel->fd;
}

bool ipc_channel_is_open(const struct ipc_channel *channel)
{
    return channel->fd >= 0;
}

int ipc_channel_pair(int ret_fds[2])
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret_fds) != 0)
        return -errno;
    return 0;
}
