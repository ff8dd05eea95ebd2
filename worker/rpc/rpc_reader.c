#include "worker/rpc/rpc_reader.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/log.h"
#include "common/monotonic_clock.h"
#include "worker/rpc/rpc_core.h"
#include "worker/rpc/rpc_frames.h"
#include "worker/rpc/rpc_guard.h"
#include "worker/rpc/rpc_peer.h"

/* Who keeps to the size that we tell (RPC_CORE_METADATA_BYTES) needs less than that, since packing
 * makes fields shorter; who errs by a little gets the C core's answer that says so. */
#define BLOCK_BYTES (RPC_CORE_METADATA_BYTES * 4)
/* The C core holds the fields of each frame against its limit anew. A frame has 16 KiB. */
#define BLOCK_FRAMES 8

/* Streams whose message has come in part, for each that may be open: some are the server's to end,
 * which is not seen here. */
#define HALF_MESSAGES_FOR_STREAM 2

/* Of streams that are taken back, which the C core holds for a while longer: all that a client may
 * have, and once more, and its rate's part, is what it may take back at a time, whether or not
 * their deadlines have passed. What it takes back by and by is judged with them (rpc_guard.c). */
#define RESETS_FOR_STREAM 2
#define WINDOWS_OF_SECOND 10
#define RESETS_WINDOW_US  (1000000 / WINDOWS_OF_SECOND)

#define FDS_MAX          262144 /* what is not used takes no memory */
#define LINES_PER_SECOND 5

struct reader {
    uint64_t cookie;    /* the kernel's, of the socket; 0: not one of ours */
    uint64_t window_us; /* when the count of resets began */
    uint32_t listener;
    struct rpc_frames frames;
};

/* Our rule is to have no such thing; see rpc_reader_open(). */
static struct reader_table {
    struct rpc_frames_limits limits;
    struct scoreboard_slot *slot;
    size_t count;
    size_t used;            /* the highest descriptor that was ever added, and one; loop thread */
    struct reader *readers; /* owned; by descriptor */
} table;

static uint64_t cookie_of(int fd)
{
    uint64_t cookie = 0;
    socklen_t length = sizeof(cookie);
    if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &length) != 0)
        return 0;
    return cookie;
}

static void end_window(struct reader *reader)
{
    if (monotonic_clock_us() - reader->window_us >= RESETS_WINDOW_US)
        reader->frames.resets = 0;
}

static enum rpc_frames_verdict follow(
    struct reader *reader, const struct msghdr *message, size_t length)
{
    enum rpc_frames_verdict verdict = RPC_FRAMES_FINE;
    if (reader->frames.resets > 0)
        end_window(reader);
    bool is_first = reader->frames.resets == 0;
    for (size_t i = 0; i < message->msg_iovlen && length > 0 && verdict == RPC_FRAMES_FINE; i++) {
        const struct iovec *part = &message->msg_iov[i];
        size_t taken = part->iov_len < length ? part->iov_len : length;
        verdict = rpc_frames_follow(&reader->frames, &table.limits, part->iov_base, taken);
        length -= taken;
    }
    if (is_first && reader->frames.resets > 0)
        reader->window_us = monotonic_clock_us();
    return verdict;
}

static void end_connection(int fd, const struct reader *reader, enum rpc_frames_verdict verdict)
{
    static _Thread_local struct log_limit limit;
    char name[RPC_PEER_NAME_BYTES];
    unsigned int suppressed = 0;
    bool has_name = rpc_peer_write_name(fd, false, name) || rpc_peer_write_name(fd, true, name);
    assert(has_name);
    rpc_guard_reset_connection(fd); /* first: the guard counts none that has been reset */
    if (log_limit_allows(&limit, LINES_PER_SECOND, &suppressed))
        log_warn("connection reset reason=%s listener=%u peer=\"%s\" suppressed=%u",
            rpc_frames_verdict_name(verdict), reader->listener, name, suppressed);
    atomic_fetch_add_explicit(&table.slot->connections_reset, 1, memory_order_relaxed);
}

/* In the place of the C library's, for all of the process. A descriptor's connection is read by one
 * thread at a time. */
__attribute__((visibility("default"))) ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    ssize_t length = syscall(SYS_recvmsg, fd, message, flags);
    /* The error queue holds none of the client's bytes, and another thread may be reading those. */
    if ((flags & MSG_ERRQUEUE) != 0)
        return length;
    if (length <= 0 || fd < 0 || (size_t)fd >= table.count || table.readers[fd].cookie == 0)
        return length;
    struct reader *reader = &table.readers[fd];
    enum rpc_frames_verdict verdict = follow(reader, message, (size_t)length);
    if (verdict == RPC_FRAMES_FINE)
        return length;
    /* The descriptor may be another socket's by now, which we were not told of. */
    bool is_same = reader->cookie == cookie_of(fd);
    reader->cookie = 0;
    if (!is_same)
        return length;
    end_connection(fd, reader, verdict);
    errno = ECONNRESET;
    return -1;
}

void rpc_reader_add(int fd, uint32_t listener)
{
    if ((size_t)fd >= table.count)
        return;
    struct reader *reader = &table.readers[fd];
    rpc_frames_cleanup(&reader->frames); /* of the descriptor's connection before this one */
    *reader = (struct reader){.cookie = cookie_of(fd), .listener = listener};
    rpc_frames_init(&reader->frames);
    if ((size_t)fd >= table.used)
        table.used = (size_t)fd + 1;
}

static uint32_t resets_limit(const struct settings *settings)
{
    if (settings->limits.cancels_per_second == 0)
        return 0;
    return (uint32_t)settings->limits.streams_per_connection * RESETS_FOR_STREAM +
           (uint32_t)settings->limits.cancels_per_second / WINDOWS_OF_SECOND;
}

int rpc_reader_open(const struct settings *settings, struct scoreboard_slot *slot)
{
    struct rlimit limit = {.rlim_cur = FDS_MAX};
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    size_t count = limit.rlim_cur < FDS_MAX ? (size_t)limit.rlim_cur : FDS_MAX;
    assert(table.readers == NULL);
    struct reader *readers = calloc(count, sizeof(*readers));
    if (readers == NULL)
        return -ENOMEM;
    table = (struct reader_table){
        .limits =
            {
                .block_bytes = BLOCK_BYTES,
                .block_frames = BLOCK_FRAMES,
                .streams = (uint32_t)settings->limits.streams_per_connection,
                .resets = resets_limit(settings),
                .half_messages =
                    (uint32_t)settings->limits.streams_per_connection * HALF_MESSAGES_FOR_STREAM,
            },
        .slot = slot,
        .count = count,
        .readers = readers,
    };
    return 0;
}

void rpc_reader_close(void)
{
    for (size_t i = 0; i < table.used; i++)
        rpc_frames_cleanup(&table.readers[i].frames);
    free(table.readers);
    table = (struct reader_table){0};
}
