#include "worker/rpc/rpc_core.h"

#include <grpc/support/log.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "common/attributes.h"
#include "common/log.h"

/* A message over its limit is noticed only when all of it is buffered: this bounds how much can be
 * buffered. */
#define QUOTA_BYTES ((size_t)128 * 1024 * 1024)

/* A client may ping this often without being sent away: keepalive as clients of mobile and mesh
 * networks set it. */
#define PING_INTERVAL_MS 10000

/* A peer that vanished without a word is found this long after its last sign of life. */
#define KEEPALIVE_MS         60000
#define KEEPALIVE_TIMEOUT_MS 20000

/* What is read is worked through before anybody else's turn, and before the guard's verdict counts:
 * by default up to four megabytes, which take a tenth of a second. */
#define READ_BYTES 65536

/* Where connections are not looked into. A client may then open as many streams as it likes until
 * it has acknowledged the settings, and send as many header blocks: each is smaller. */
#define BLIND_STREAMS 32
#define BLIND_PART    4

/* Connections end this often within the time of a drain: with their jitter of a tenth, and calls
 * that are under way, once at least. */
#define DRAIN_AGES 2

#define LINES_PER_SECOND 5

/* Any thread. What the C core calls an error is nearly always a peer's: nobody must act on it. */
static void write_log(gpr_log_func_args *line)
{
    static _Thread_local struct log_limit limit;
    unsigned int suppressed = 0;
    if (!log_limit_allows(&limit, LINES_PER_SECOND, &suppressed))
        return;
    const char *slash = strrchr(line->file, '/');
    log_write(line->severity == GPR_LOG_SEVERITY_ERROR ? LOG_LEVEL_WARN : LOG_LEVEL_DEBUG,
        "grpc core says file=%s line=%d suppressed=%u message=\"%s\"",
        slash == NULL ? line->file : slash + 1, line->line, suppressed, line->message);
}

void rpc_core_init(void)
{
    /* Workers are exec'd, never forked with a running C core. */
    (void)setenv("GRPC_ENABLE_FORK_SUPPORT", "0", 1);
    (void)setenv("GRPC_POLL_STRATEGY", "epoll1", 1);
    gpr_set_log_function(write_log);
    gpr_set_log_verbosity(GPR_LOG_SEVERITY_ERROR);
    grpc_init();
}

void rpc_core_cleanup(void)
{
    /* Not grpc_shutdown(): that leaves a thread behind that may still be running when the process
     * ends. */
    grpc_shutdown_blocking();
}

grpc_resource_quota *rpc_core_new_quota(void)
{
    grpc_resource_quota *quota = grpc_resource_quota_create("userd");
    grpc_resource_quota_resize(quota, QUOTA_BYTES);
    return quota;
}

static grpc_arg integer_argument(const char *key, int value)
{
    union {
        const char *text;
        char *key; /* the C core's type is not const; it only reads */
    } name = {.text = key};
    return (grpc_arg){.type = GRPC_ARG_INTEGER, .key = name.key, .value.integer = value};
}

static grpc_arg quota_argument(grpc_resource_quota *quota)
{
    grpc_arg argument = integer_argument(GRPC_ARG_RESOURCE_QUOTA, 0);
    argument.type = GRPC_ARG_POINTER;
    argument.value.pointer.p = quota;
    argument.value.pointer.vtable = grpc_resource_quota_arg_vtable();
    return argument;
}

/* Without a setting the filter that counts it is left out: it costs a tenth of a call's time. Where
 * a drain cannot ask clients to leave, their connections' age is what makes them leave within it.
 */
static int connection_age_ms(const struct settings *settings, bool has_goaway)
{
    int age_ms =
        settings->limits.connection_age_ms > 0 ? settings->limits.connection_age_ms : INT_MAX;
    int drain_age_ms = settings->shutdown.drain_timeout_ms / DRAIN_AGES;
    if (has_goaway || age_ms <= drain_age_ms)
        return age_ms;
    return drain_age_ms > 0 ? drain_age_ms : 1;
}

static int streams(const struct settings *settings, bool is_blind)
{
    int most = settings->limits.streams_per_connection;
    return is_blind && most > BLIND_STREAMS ? BLIND_STREAMS : most;
}

/* Ratios are of a worker's CPU for a call, 8 x 32 reads, against the C core's default; two copies
 * of one build differ by 0.05 (HACKING.md). Arguments without one are there for what they do. */
grpc_server *rpc_core_new_server(const struct settings *settings, grpc_resource_quota *quota,
    struct core_acceptor *acceptor, bool has_goaway, bool is_blind)
{
    grpc_arg arguments[] = {
        core_bridge_acceptor_argument(acceptor),
        quota_argument(quota),
        /* Judged by us (rpc_message.c). The C core too would have all of it in memory before it
         * looks, and then take the call back, as if its client had done so. */
        integer_argument(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, -1),
        /* Inflated by us (rpc_message.c), within a bound that the C core does not have. */
        integer_argument(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0),
        integer_argument(GRPC_ARG_MAX_CONCURRENT_STREAMS, streams(settings, is_blind)),
        integer_argument(
            GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, settings->limits.handshake_timeout_ms),
        integer_argument(GRPC_ARG_MAX_METADATA_SIZE,
            is_blind ? RPC_CORE_METADATA_BYTES / BLIND_PART : RPC_CORE_METADATA_BYTES),
        /* The C core adds a jitter of a tenth either way, and waits for calls that are under way.
         */
        integer_argument(GRPC_ARG_MAX_CONNECTION_AGE_MS, connection_age_ms(settings, has_goaway)),
        integer_argument(GRPC_ARG_KEEPALIVE_TIME_MS, KEEPALIVE_MS),
        integer_argument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, KEEPALIVE_TIMEOUT_MS),
        integer_argument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
        integer_argument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0),
        integer_argument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, PING_INTERVAL_MS),
        integer_argument(GRPC_ARG_MAX_CHANNEL_TRACE_EVENT_MEMORY_PER_NODE, 0),
        integer_argument("grpc.enable_channelz", 0), /* 0.97 */
        /* Windows stay at 64 KiB, so that who sends DATA is told of room all the time: rpc_guard.c
         * knows by that who sends something else: 1.00. */
        integer_argument(GRPC_ARG_HTTP2_BDP_PROBE, 0),
        /* For the guard too; with an eighth of it: 0.95. */
        integer_argument(
            GRPC_ARG_TCP_MAX_READ_CHUNK_SIZE, is_blind ? READ_BYTES / BLIND_PART : READ_BYTES),
    };
    const grpc_channel_args all = {.num_args = ARRAY_LENGTH(arguments), .args = arguments};
    return grpc_server_create(&all, NULL);
}
