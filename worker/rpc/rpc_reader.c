#include "worker/rpc/rpc_reader.h"

#include <assert.h>
#include <errno.h>
#include <linux/sockios.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/log.h"
#include "common/monotonic_clock.h"
#include "worker/rpc/rpc_account.h"
#include "worker/rpc/rpc_budget.h"
#include "worker/rpc/rpc_core.h"
#include "worker/rpc/rpc_frames.h"
#include "worker/rpc/rpc_guard.h"
#include "worker/rpc/rpc_open_limit.h"
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
#define RESETS_FOR_STREAM  2
#define WINDOWS_OF_SECOND  10
#define SETTINGS_WINDOW_US 1000000

/* What the watch cannot wait for: all open requests, and those that begin in a short while, since
 * the C core needs longer to end one than a client to begin it. So many of the limit; who has few
 * is let alone. */
#define OPEN_WINDOW_US   100000
#define OPEN_FOR_WINDOW  4
#define RESETS_WINDOW_US (1000000 / WINDOWS_OF_SECOND)

#define FDS_MAX          262144 /* what is not used takes no memory */
#define LINES_PER_SECOND 5

#define SWEEP_INTERVAL_US 100000

#define HEARTBEAT_US 1000000

/* A stretch of a thread's work: a call into the C core. Ends at the thread's next one, or when all
 * that was read is worked through. */
struct turn {
    uint64_t number;
    bool is_rpc_thread;
    uint64_t last_beat_us;
};

struct reader {
    uint64_t cookie;    /* the kernel's, of the socket; 0: not one of ours */
    uint64_t window_us; /* when the count of resets began */
    uint32_t listener;
    bool has_read;
    struct rpc_peer *peer; /* NULL: not known */
    uint16_t peer_serial;
    _Atomic uint32_t open_units; /* as they count in the table's total */
    bool has_ended;              /* for all but the C core; loop thread, as the next */
    uint64_t socket;             /* the cookie */
    uint64_t settings_us;        /* when the count of SETTINGS began */
    const struct turn *turn;     /* the thread that read it last; NULL: a new turn begins */
    uint64_t turn_number;
    uint64_t turn_us; /* when it began with this connection */
    struct rpc_frames frames;
    struct rpc_budget budget;
};

/* Our rule is to have no such thing; see rpc_reader_open(). */
static struct reader_table {
    struct rpc_frames_limits limits;
    struct rpc_budget_limits budget_limits;
    struct rpc_open_limits open_limits;
    _Atomic uint64_t open;            /* units of all connections that the C core has not ended */
    _Atomic uint64_t open_window_us;  /* when the next one began, */
    _Atomic uint64_t open_window_new; /* units that have come in it */
    struct scoreboard_slot *slot;
    struct rpc_account_set *accounts; /* NULL: nobody is told of who was reset */
    size_t ended; /* connections that the C core had not closed yet; loop thread */
    uint64_t swept_us;
    size_t count;
    size_t used;            /* the highest descriptor that was ever added, and one; loop thread */
    struct reader *readers; /* owned; by descriptor */
} table;

static _Thread_local struct turn this_turn;

static uint64_t cookie_of(int fd)
{
    uint64_t cookie = 0;
    socklen_t length = sizeof(cookie);
    if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &length) != 0)
        return 0;
    return cookie;
}

/* ---- turns ---- */

void rpc_reader_begin_turn(void)
{
    this_turn.number++;
}

void rpc_reader_beat_here(void)
{
    this_turn.is_rpc_thread = true;
}

static void beat(uint64_t now_us)
{
    if (!this_turn.is_rpc_thread || now_us - this_turn.last_beat_us < HEARTBEAT_US)
        return;
    this_turn.last_beat_us = now_us;
    atomic_store_explicit(&table.slot->rpc_heartbeat_us, now_us, memory_order_relaxed);
}

/* Whether the connection has had the thread for long enough. */
static bool is_turn_over(struct reader *reader, uint64_t now_us)
{
    if (this_turn.number == 0)
        return false; /* the C core's own thread: nobody waits for it */
    if (reader->turn != &this_turn || reader->turn_number != this_turn.number) {
        reader->turn = &this_turn;
        reader->turn_number = this_turn.number;
        reader->turn_us = now_us;
    }
    return now_us - reader->turn_us > RPC_READER_SLICE_US;
}

/* The C core is told of a socket by the edge (EPOLLET): what waits there already is no news. The
 * kernel looks for waiting bytes anew when these options are set, and tells all that wait for the
 * socket. The values are those that they have. */
static bool announce_again(int fd)
{
    const int one = 1;
    int size = 0;
    socklen_t length = sizeof(size);
    int domain = 0;
    socklen_t domain_length = sizeof(domain);
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &domain_length) != 0)
        return false;
    if (domain != AF_UNIX)
        return setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &one, sizeof(one)) == 0;
    /* The kernel says twice what it was told (socket(7)). */
    if (getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, &length) != 0)
        return false;
    size /= 2;
    return setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) == 0;
}

/* True: the C core is to come back for what waits. Where nothing waits the kernel tells nobody
 * anew, and the end of a connection may be among what it has told already. */
static bool defer(int fd, struct reader *reader)
{
    int waiting = 0;
    if (reader->cookie != cookie_of(fd)) {
        reader->cookie = 0;
        return false;
    }
    if (ioctl(fd, SIOCINQ, &waiting) != 0 || waiting == 0)
        return false;
    reader->turn = NULL;
    return announce_again(fd);
}

/* ---- what is read ---- */

static enum rpc_frames_verdict follow_frames(
    struct reader *reader, const struct msghdr *message, size_t length, uint64_t now_us)
{
    enum rpc_frames_verdict verdict = RPC_FRAMES_FINE;
    if (reader->frames.resets > 0 && now_us - reader->window_us >= RESETS_WINDOW_US)
        reader->frames.resets = 0;
    if (reader->frames.settings > 0 && now_us - reader->settings_us >= SETTINGS_WINDOW_US) {
        reader->frames.settings = 0;
        reader->settings_us = now_us;
    }
    reader->frames.now_ms = (uint32_t)(now_us / MONOTONIC_CLOCK_US_PER_MS);
    bool is_first = reader->frames.resets == 0;
    if (is_first)
        reader->frames.headers_then = reader->frames.headers;
    for (size_t i = 0; i < message->msg_iovlen && length > 0 && verdict == RPC_FRAMES_FINE; i++) {
        const struct iovec *part = &message->msg_iov[i];
        size_t taken = part->iov_len < length ? part->iov_len : length;
        verdict = rpc_frames_follow(&reader->frames, &table.limits, part->iov_base, taken);
        length -= taken;
    }
    if (is_first && reader->frames.resets > 0)
        reader->window_us = now_us;
    return verdict;
}

static enum rpc_budget_verdict judge_budget(struct reader *reader, uint64_t now_us)
{
    const struct rpc_frames *frames = &reader->frames;
    struct rpc_budget_sample sample = {
        .now_us = now_us,
        .headers = frames->headers,
        .messages = frames->messages.begun,
    };
    if (sample.headers == reader->budget.headers && sample.messages == reader->budget.messages)
        return RPC_BUDGET_FINE;
    /* Where it is not known what becomes of calls, all count as answered. */
    sample.answered = reader->peer == NULL
                          ? sample.headers
                          : atomic_load_explicit(&reader->peer->use.served, memory_order_relaxed);
    return rpc_budget_judge(&reader->budget, &table.budget_limits, &sample);
}

static uint64_t change_open(struct reader *reader, uint32_t units)
{
    uint32_t before = atomic_exchange(&reader->open_units, units);
    uint64_t more = (uint64_t)units - before; /* goes round where it is less */
    return atomic_fetch_add_explicit(&table.open, more, memory_order_relaxed) + more;
}

/* So many more units have come: whether there are too many for one while. Threads that begin it
 * anew at once lose some of their counts. */
static bool is_window_full(uint64_t more, uint64_t now_us)
{
    uint64_t since_us = atomic_load_explicit(&table.open_window_us, memory_order_relaxed);
    if (now_us - since_us >= OPEN_WINDOW_US) {
        atomic_store_explicit(&table.open_window_us, now_us, memory_order_relaxed);
        atomic_store_explicit(&table.open_window_new, 0, memory_order_relaxed);
    }
    uint64_t before = atomic_fetch_add_explicit(&table.open_window_new, more, memory_order_relaxed);
    uint64_t most = table.open_limits.units / OPEN_FOR_WINDOW;
    if (most < table.limits.streams)
        most = table.limits.streams; /* a client may begin all of its calls at once */
    return before + more > most;
}

/* Says what has changed to the watch, which judges it. Mostly nothing has: a request comes whole.
 * False: there are so many that this cannot wait. */
static bool say_open(struct reader *reader, uint64_t now_us)
{
    const struct rpc_open_requests *open = &reader->frames.open;
    struct rpc_peer_open said = {
        .units = rpc_open_units(&table.open_limits, open->count, open->bytes),
    };
    if (said.units > 0)
        said.since_ms = rpc_open_requests_oldest_ms(open);
    uint32_t before = atomic_load_explicit(&reader->open_units, memory_order_relaxed);
    uint64_t all = said.units == before ? 0 : change_open(reader, said.units);
    if (reader->peer != NULL)
        rpc_peer_say_open(reader->peer, reader->peer_serial, said, reader->frames.headers);
    if (said.units <= before)
        return true;
    /* Who has sent messages sends these too: their HEADERS came ahead of them. They take no room
     * from others. */
    if (reader->frames.messages.begun >= said.units)
        return true;
    bool is_full = is_window_full(said.units - before, now_us);
    return said.units < RPC_OPEN_LIMIT_FEW || (all <= table.open_limits.units && !is_full);
}

/* The C core learns now that the connection has ended, and lets go of all that it had of it. */
static void end_reading(struct reader *reader)
{
    reader->cookie = 0;
    (void)change_open(reader, 0);
    rpc_frames_cleanup(&reader->frames);
}

/* NULL: nothing is wrong; otherwise for what the connection is to be reset. */
static const char *judge(
    struct reader *reader, const struct msghdr *message, size_t length, uint64_t now_us)
{
    enum rpc_frames_verdict frames = follow_frames(reader, message, length, now_us);
    if (frames != RPC_FRAMES_FINE)
        return rpc_frames_verdict_name(frames);
    enum rpc_budget_verdict budget = judge_budget(reader, now_us);
    if (budget != RPC_BUDGET_FINE)
        return rpc_budget_verdict_name(budget);
    if (!say_open(reader, now_us)) {
        atomic_fetch_add_explicit(&table.slot->connections_open, 1, memory_order_relaxed);
        return rpc_open_verdict_name(RPC_OPEN_OF_WORKER);
    }
    return NULL;
}

static void end_connection(int fd, const struct reader *reader, const char *reason)
{
    static _Thread_local struct log_limit limit;
    char name[RPC_PEER_NAME_BYTES];
    unsigned int suppressed = 0;
    bool has_name = rpc_peer_write_name(fd, false, name) || rpc_peer_write_name(fd, true, name);
    assert(has_name);
    if (table.accounts != NULL)
        rpc_account_report_descriptor(table.accounts, fd, reason);
    rpc_guard_reset_connection(fd); /* first: the guard counts none that has been reset */
    if (log_limit_allows(&limit, LINES_PER_SECOND, &suppressed))
        log_warn("connection reset reason=%s listener=%u peer=\"%s\" suppressed=%u", reason,
            reader->listener, name, suppressed);
    atomic_fetch_add_explicit(&table.slot->connections_reset, 1, memory_order_relaxed);
}

/* The bytes are with the C core's buffers already, which it does not look at after an error. */
static ssize_t judge_read(
    int fd, struct reader *reader, const struct msghdr *message, ssize_t length, uint64_t now_us)
{
    reader->has_read = true;
    const char *reason = judge(reader, message, (size_t)length, now_us);
    if (reason == NULL)
        return length;
    /* The descriptor may be another socket's by now, which we were not told of. */
    bool is_same = reader->cookie == cookie_of(fd);
    end_reading(reader);
    if (!is_same)
        return length;
    end_connection(fd, reader, reason);
    errno = ECONNRESET;
    return -1;
}

ssize_t rpc_reader_receive(int fd, struct msghdr *message, int flags)
{
    struct reader *reader = &table.readers[fd];
    uint64_t now_us = monotonic_clock_us();
    beat(now_us);
    if (is_turn_over(reader, now_us) && defer(fd, reader)) {
        errno = EAGAIN;
        return -1;
    }
    ssize_t length = syscall(SYS_recvmsg, fd, message, flags);
    if (length > 0)
        return judge_read(fd, reader, message, length, now_us);
    if (length == 0 || (errno != EAGAIN && errno != EINTR)) {
        int error = errno;
        end_reading(reader);
        errno = error;
    }
    return length;
}

bool rpc_reader_follows(int fd)
{
    return fd >= 0 && (size_t)fd < table.count && table.readers[fd].cookie != 0;
}

/* ---- for the callers ---- */

/* What the C core has closed it has let go of, though it may not have read its end. */
static void sweep_ended(void)
{
    uint64_t now_us = table.ended == 0 ? 0 : monotonic_clock_us();
    if (table.ended == 0 || now_us - table.swept_us < SWEEP_INTERVAL_US)
        return;
    table.swept_us = now_us;
    table.ended = 0;
    for (size_t fd = 0; fd < table.used; fd++) {
        struct reader *reader = &table.readers[fd];
        if (!reader->has_ended)
            continue;
        reader->has_ended = cookie_of((int)fd) == reader->socket;
        if (reader->has_ended)
            table.ended++;
        else
            (void)change_open(reader, 0);
    }
}

void rpc_reader_add(int fd, uint32_t listener, struct rpc_peer *peer)
{
    if ((size_t)fd >= table.count)
        return;
    struct reader *reader = &table.readers[fd];
    sweep_ended();
    end_reading(reader); /* of the descriptor's connection before this one */
    /* Peer 0 is many connections'. */
    *reader = (struct reader){
        .cookie = cookie_of(fd),
        .listener = listener,
        .peer = peer != NULL && peer->number != 0 ? peer : NULL,
        .peer_serial = peer != NULL ? peer->serial : 0,
    };
    reader->socket = reader->cookie;
    rpc_frames_init(&reader->frames);
    if (reader->peer != NULL)
        reader->peer->descriptor = fd;
    if ((size_t)fd >= table.used)
        table.used = (size_t)fd + 1;
}

void rpc_reader_end(const struct rpc_peer *peer)
{
    size_t fd = (size_t)peer->descriptor;
    if (peer->number == 0 || fd >= table.count)
        return;
    struct reader *reader = &table.readers[fd];
    if (reader->peer == peer && reader->peer_serial == peer->serial) {
        reader->has_ended = true;
        table.ended++;
    } /* else: the descriptor is another connection's by now */
    sweep_ended();
}

bool rpc_reader_has_read(int fd)
{
    return (size_t)fd < table.count && table.readers[fd].has_read;
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
                .settings = (uint32_t)settings->limits.settings_per_second,
                .open_requests = rpc_open_limits_of(settings).of_connection,
                .half_messages =
                    (uint32_t)settings->limits.streams_per_connection * HALF_MESSAGES_FOR_STREAM,
            },
        .budget_limits = rpc_budget_limits_of(settings),
        .open_limits = rpc_open_limits_of(settings),
        .slot = slot,
        .count = count,
        .readers = readers,
    };
    return 0;
}

void rpc_reader_set_accounts(struct rpc_account_set *accounts)
{
    table.accounts = accounts;
}

void rpc_reader_close(void)
{
    for (size_t i = 0; i < table.used; i++)
        rpc_frames_cleanup(&table.readers[i].frames);
    free(table.readers);
    table = (struct reader_table){0};
}
