#include "worker/rpc/rpc_guard.h"

#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/file_descriptor.h"
#include "common/monotonic_clock.h"
#include "worker/rpc/rpc_allowance.h"

/* A client that sends DATA has room for 64 KiB (rpc_core.c) until it is told of more, which takes
 * 13 bytes; an answer takes more than that. What is not DATA and brings no call gets nothing. Only
 * a large message has room for all of it at once: it is told from harm by the memory that it takes.
 */
#define BYTES_FOR_ACKNOWLEDGED 8192
/* Header fields, tokens among them, that come with a call: our limit is four times this. */
#define BYTES_FOR_CALL 4096
/* Growth of the worker while a connection sends one way: a few large messages at a time may cause
 * it, a hundred thousand header fields always do. */
#define HARM_BYTES ((uint64_t)24 * 1024 * 1024)
/* However little it takes: this many large messages. */
#define MESSAGES 2
/* A connection that was idle is not looked at. Looks further apart than this: what the worker took
 * in between was for others. */
#define PAUSE_US MONOTONIC_CLOCK_US_PER_S

/* A client that acknowledges our settings keeps to their number of streams; what it has taken back
 * or seen expire may be under way here for a moment longer. */
#define CALLS_FOR_STREAM 4
/* While the database stands still, all calls expire, and a client makes others in their place. */
#define CALLS_MIN 4000
/* All that it has under way may be taken back at once, and again. */
#define CANCELS_FOR_STREAM 2
#define MILLIONTHS         UINT64_C(1000000)

static uint64_t calls_limit(uint64_t streams)
{
    uint64_t calls = streams * CALLS_FOR_STREAM;
    return calls > CALLS_MIN ? calls : CALLS_MIN;
}

struct rpc_guard_rules rpc_guard_rules_of(const struct settings *settings)
{
    return (struct rpc_guard_rules){
        .one_way_bytes = (uint64_t)settings->limits.one_way_bytes,
        .message_bytes = (uint64_t)settings->limits.message_bytes,
        .cancels_per_second = (uint64_t)settings->limits.cancels_per_second,
        .cancel_burst = (uint64_t)settings->limits.streams_per_connection * CANCELS_FOR_STREAM,
        .calls = calls_limit((uint64_t)settings->limits.streams_per_connection),
        .unread_timeout_us =
            (uint64_t)settings->limits.unread_timeout_ms * MONOTONIC_CLOCK_US_PER_MS,
    };
}

static void read_socket(int fd, struct rpc_guard_sample *sample)
{
    struct tcp_info info;
    socklen_t length = sizeof(info);
    memset(&info, 0, sizeof(info));
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) != 0)
        return; /* a Unix socket */
    sample->received = info.tcpi_bytes_received;
    sample->acknowledged = info.tcpi_bytes_acked;
}

uint64_t rpc_guard_memory_bytes(void)
{
    char text[64] = "";
    int fd CLEANUP(fd_close) = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
        return 0;
    /* "size resident ...", in pages */
    char *resident = strchr(text, ' ');
    return resident == NULL ? 0 : strtoull(resident, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
}

struct rpc_guard_sample rpc_guard_look(int fd, const struct rpc_peer *peer, uint64_t memory_bytes)
{
    struct rpc_guard_sample sample = {.now_us = monotonic_clock_us(), .memory = memory_bytes};
    const struct rpc_peer_use *use = &peer->use;
    read_socket(fd, &sample);
    if (peer->number == 0)
        return sample; /* many share it: nothing can be said of this one's calls */
    sample.arrived = atomic_load_explicit(&use->arrived, memory_order_relaxed);
    sample.cancelled = atomic_load_explicit(&use->cancelled, memory_order_relaxed);
    sample.finished = atomic_load_explicit(&use->finished, memory_order_relaxed);
    sample.waiting = rpc_peer_use_waiting(use);
    sample.unsent = rpc_peer_use_unsent(use);
    return sample;
}

bool rpc_guard_is_quiet(const struct rpc_guard *guard, const struct rpc_guard_sample *sample)
{
    return sample->received == guard->last.received && sample->arrived == guard->last.arrived &&
           sample->waiting == 0 && sample->unsent == 0;
}

static void leak(uint64_t *level, uint64_t amount)
{
    *level -= amount < *level ? amount : *level;
}

static uint64_t growth(uint64_t now, uint64_t before)
{
    return now > before ? now - before : 0;
}

/* Much has come, and nothing comes of it. */
static bool is_one_way(struct rpc_guard *guard, const struct rpc_guard_rules *rules,
    const struct rpc_guard_sample *sample)
{
    const struct rpc_guard_sample *last = &guard->last;
    if (sample->now_us - last->now_us > PAUSE_US)
        guard->memory_then += growth(sample->memory, last->memory);
    guard->byte_level += growth(sample->received, last->received);
    leak(&guard->byte_level,
        growth(sample->acknowledged, last->acknowledged) * BYTES_FOR_ACKNOWLEDGED);
    leak(&guard->byte_level, growth(sample->arrived, last->arrived) * BYTES_FOR_CALL);
    if (guard->byte_level == 0 || guard->memory_then == 0)
        guard->memory_then = sample->memory;
    if (rules->one_way_bytes == 0 || guard->byte_level <= rules->one_way_bytes)
        return false;
    return growth(sample->memory, guard->memory_then) > HARM_BYTES ||
           guard->byte_level > rules->one_way_bytes + rules->message_bytes * MESSAGES;
}

static bool cancels_too_much(struct rpc_guard *guard, const struct rpc_guard_rules *rules,
    const struct rpc_guard_sample *sample)
{
    uint64_t passed_us = growth(sample->now_us, guard->last.now_us);
    /* In millionths: looks come so often that a small rate leaks less than one in between. */
    guard->cancel_level += growth(sample->cancelled, guard->last.cancelled) * MILLIONTHS;
    leak(&guard->cancel_level, rules->cancels_per_second * passed_us);
    /* So many answered calls pay for one (rpc_allowance.h). */
    uint64_t finished = growth(sample->finished, guard->last.finished);
    leak(&guard->cancel_level, growth(finished, growth(sample->cancelled, guard->last.cancelled)) *
                                   MILLIONTHS / RPC_ALLOWANCE_USEFUL_FOR_ONE);
    return rules->cancels_per_second > 0 && guard->cancel_level > rules->cancel_burst * MILLIONTHS;
}

/* No answer has left for too long, though there are some. */
static bool does_not_read(struct rpc_guard *guard, const struct rpc_guard_rules *rules,
    const struct rpc_guard_sample *sample)
{
    bool moves = sample->finished != guard->last.finished;
    /* The last look may be long ago: what was not there then has come since. */
    bool was_waiting = guard->last.unsent > 0;
    if (sample->unsent == 0 || !was_waiting || moves)
        guard->stuck_since_us = sample->now_us;
    return sample->now_us - guard->stuck_since_us > rules->unread_timeout_us;
}

enum rpc_guard_verdict rpc_guard_judge(struct rpc_guard *guard, const struct rpc_guard_rules *rules,
    const struct rpc_guard_sample *sample)
{
    enum rpc_guard_verdict verdict = RPC_GUARD_FINE;
    if (does_not_read(guard, rules, sample))
        verdict = RPC_GUARD_UNREAD;
    if (is_one_way(guard, rules, sample))
        verdict = RPC_GUARD_ONE_WAY;
    if (sample->waiting + sample->unsent > rules->calls)
        verdict = RPC_GUARD_CALLS;
    if (cancels_too_much(guard, rules, sample))
        verdict = RPC_GUARD_CANCELS;
    guard->last = *sample;
    return verdict;
}

const char *rpc_guard_verdict_name(enum rpc_guard_verdict verdict)
{
    static const char *const names[] = {
        [RPC_GUARD_FINE] = "none",
        [RPC_GUARD_ONE_WAY] = "one_way_bytes",
        [RPC_GUARD_CANCELS] = "cancels",
        [RPC_GUARD_CALLS] = "calls",
        [RPC_GUARD_UNREAD] = "unread",
    };
    return names[verdict];
}

void rpc_guard_reset_connection(int fd)
{
    /* On a connected TCP socket this sends RST and drops what waits to be sent or read, whoever
     * else has the socket open: the C core has nothing more to read. */
    const struct sockaddr nobody = {.sa_family = AF_UNSPEC};
    (void)connect(fd, &nobody, sizeof(nobody));
    /* For Unix sockets. */
    (void)shutdown(fd, SHUT_RDWR);
}
