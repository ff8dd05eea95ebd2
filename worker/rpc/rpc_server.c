#include "worker/rpc/rpc_server.h"

#include <assert.h>
#include <errno.h>
#include <grpc/support/time.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/crash_report.h"
#include "common/file_descriptor.h"
#include "common/log.h"
#include "common/monotonic_clock.h"
#include "worker/rpc/rpc_core.h"
#include "worker/rpc/rpc_drain.h"
#include "worker/rpc/rpc_intake.h"
#include "worker/rpc/rpc_listener.h"
#include "worker/rpc/rpc_reader.h"
#include "worker/rpc/rpc_reader_check.h"

#define HEARTBEAT_US  1000000
#define STOP_GRACE_MS 400 /* for cancelled calls to come back */
#define HEARTBEAT_WAIT_US \
    1020000 /* over the coarse clock's step, or the wait would end too early */

/* One of each: the order is by what belongs together. */
/* NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding) */
struct rpc_server {
    struct rpc_server_options options;
    struct rpc_listener_context context;
    struct rpc_listener listeners[SETTINGS_MAX_LISTENERS];
    size_t listener_count;
    bool has_core;
    struct rpc_intake *intake; /* owned */
    pthread_t thread;
    bool has_thread;
    uint64_t last_beat_us; /* the rpc thread's */
    struct rpc_drain drain;
};

/* ---- the rpc thread ---- */

/* Shows the master that this thread goes round. Called at every event: the coarse clock costs no
 * system call, and the line that all may read is written once a second. Returns until when to wait
 * for the next event. */
static gpr_timespec beat(struct rpc_server *server, gpr_timespec deadline)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    uint64_t now_us = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
    if (now_us - server->last_beat_us < HEARTBEAT_US)
        return deadline;
    server->last_beat_us = now_us;
    atomic_store_explicit(&server->options.slot->rpc_heartbeat_us, now_us, memory_order_relaxed);
    return gpr_time_add(
        gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_micros(HEARTBEAT_WAIT_US, GPR_TIMESPAN));
}

/* Looks for a while before it sleeps (busy_poll_us). Whoever wants the core has it between two
 * looks: what is looked for comes from others, a database session and clients among them. */
static grpc_event wait_for_event(const struct rpc_server *server, gpr_timespec deadline)
{
    uint64_t limit_us = (uint64_t)server->options.settings->busy_poll_us;
    uint64_t start_us = limit_us > 0 ? monotonic_clock_us() : 0;
    while (limit_us > 0 && monotonic_clock_us() - start_us < limit_us) {
        grpc_event event = grpc_completion_queue_next(
            server->context.queue, gpr_inf_past(GPR_CLOCK_MONOTONIC), NULL);
        if (event.type != GRPC_QUEUE_TIMEOUT)
            return event;
        (void)sched_yield();
    }
    return grpc_completion_queue_next(server->context.queue, deadline, NULL);
}

static void *run_queue(void *server_pointer)
{
    struct rpc_server *server = server_pointer;
    (void)pthread_setname_np(pthread_self(), "rpc");
    rpc_reader_beat_here();
    gpr_timespec deadline = gpr_now(GPR_CLOCK_MONOTONIC);
    for (;;) {
        deadline = beat(server, deadline);
        rpc_reader_begin_turn();
        grpc_event event = wait_for_event(server, deadline);
        if (event.type == GRPC_QUEUE_SHUTDOWN)
            return NULL;
        if (event.type != GRPC_OP_COMPLETE)
            continue;
        struct rpc_tag *tag = event.tag;
        tag->on_event(tag, event.success != 0);
    }
}

static int start_thread(struct rpc_server *server)
{
    sigset_t all;
    sigset_t before;
    crash_report_fill_mask(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&server->thread, NULL, run_queue, server);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    server->has_thread = error == 0;
    return -error;
}

static void on_shut_down(struct rpc_tag *tag, bool is_ok)
{
    struct rpc_listener *listener = CONTAINER_OF(tag, struct rpc_listener, shut_down);
    struct rpc_server *server = CONTAINER_OF(listener->context, struct rpc_server, context);
    (void)is_ok;
    rpc_drain_count_shut_down(&server->drain);
}

/* ---- drain ---- */

static void on_intake_empty(void *userdata)
{
    struct rpc_server *server = userdata;
    rpc_drain_on_empty(&server->drain);
}

void rpc_server_drain(struct rpc_server *server, unsigned int timeout_ms, bool is_stop,
    void (*on_drained)(bool is_clean, void *userdata), void *userdata)
{
    rpc_drain_begin(&server->drain, timeout_ms, is_stop, on_drained, userdata);
}

void rpc_server_stop(struct rpc_server *server)
{
    rpc_drain_stop(&server->drain);
}

/* ---- connections and health ---- */

static void on_offence(uint64_t address, const char *reason, void *userdata)
{
    const struct rpc_server *server = userdata;
    server->options.on_offence(address, reason, server->options.userdata);
}

static struct rpc_peer *on_connection_ready(uint32_t listener, int fd, void *userdata)
{
    struct rpc_server *server = userdata;
    return rpc_listener_accept(&server->listeners[listener], fd);
}

static void on_connection_settled(uint64_t number, bool is_returned, void *userdata)
{
    const struct rpc_server *server = userdata;
    server->options.on_connection_settled(number, is_returned, server->options.userdata);
}

void rpc_server_add_connection(
    struct rpc_server *server, uint32_t listener, uint64_t number, int *fd)
{
    assert(listener < server->listener_count);
    rpc_intake_add(server->intake, listener, number, fd);
}

void rpc_server_ban_address(struct rpc_server *server, uint64_t address, unsigned int duration_ms)
{
    uint64_t until_us = monotonic_clock_us() + (uint64_t)duration_ms * MONOTONIC_CLOCK_US_PER_MS;
    rpc_account_ban(&server->context.accounts, address, until_us);
}

void rpc_server_flush(struct rpc_server *server)
{
    rpc_burst_flush(&server->context.calls.burst);
}

void rpc_server_set_serving(struct rpc_server *server, bool is_serving)
{
    bool was_serving =
        atomic_exchange_explicit(&server->context.is_serving, is_serving, memory_order_acq_rel);
    if (was_serving != is_serving)
        rpc_stream_set_wake(&server->context.streams);
}

/* ---- life ---- */

/* Ends what a drain has not ended. False: calls are still with their handlers, nothing may be
 * freed. */
static bool stop_servers(struct rpc_server *server)
{
    if (server->drain.step < RPC_DRAIN_SHUTDOWN) {
        rpc_drain_shut_down(&server->drain);
        rpc_drain_cancel(&server->drain);
    }
    for (int waited_ms = 0; atomic_load(&server->drain.running) > 0; waited_ms += 10) {
        if (waited_ms >= STOP_GRACE_MS)
            return false;
        const struct timespec step = {.tv_nsec = 10000000};
        (void)nanosleep(&step, NULL);
    }
    grpc_completion_queue_shutdown(server->context.queue);
    (void)pthread_join(server->thread, NULL);
    return true;
}

/* The servers were never started: there is no rpc thread. */
static void discard_servers(struct rpc_server *server)
{
    for (size_t i = 0; i < server->listener_count; i++)
        grpc_server_shutdown_and_notify(
            server->listeners[i].core, server->context.queue, &server->listeners[i].shut_down);
    grpc_completion_queue_shutdown(server->context.queue);
    while (
        grpc_completion_queue_next(server->context.queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL)
            .type != GRPC_QUEUE_SHUTDOWN)
        continue;
}

static void free_core(struct rpc_server *server)
{
    for (size_t i = 0; i < server->listener_count; i++)
        rpc_listener_close(&server->listeners[i]);
    grpc_completion_queue_destroy(server->context.queue);
    rpc_stream_set_cleanup(&server->context.streams);
    rpc_account_set_cleanup(&server->context.accounts);
    grpc_resource_quota_unref(server->context.quota);
    (void)descriptor_index_free(server->context.descriptors);
    rpc_core_cleanup();
    rpc_reader_close();
    rpc_call_pool_cleanup(&server->context.calls); /* the reader has looked at its connections */
}

struct rpc_server *rpc_server_free(struct rpc_server *server)
{
    if (server == NULL)
        return NULL;
    rpc_burst_close(&server->context.calls.burst);
    if (server->has_thread) {
        if (!stop_servers(server)) {
            log_error("rpc server leaked reason=\"calls were not answered\"");
            return NULL;
        }
    } else if (server->has_core) {
        discard_servers(server);
    }
    server->intake = rpc_intake_free(server->intake);
    if (server->has_core)
        free_core(server);
    rpc_drain_close(&server->drain);
    free(server);
    return NULL;
}

static void rpc_server_freep(struct rpc_server **server)
{
    (void)rpc_server_free(*server);
}

/* The parts on the loop. */
static int open_sources(struct rpc_server *server)
{
    static const struct rpc_intake_handlers intake_handlers = {
        .on_ready = on_connection_ready,
        .on_settled = on_connection_settled,
        .on_empty = on_intake_empty,
    };
    sd_event *event = server->options.event;
    int error = rpc_drain_open(&server->drain, event, &server->context, server->listeners);
    if (error < 0)
        return error;
    return rpc_intake_new(event, server->options.settings, server->options.slot, &intake_handlers,
        server, &server->intake);
}

static int open_core(struct rpc_server *server)
{
    struct rpc_listener_context *context = &server->context;
    const struct settings *settings = server->options.settings;
    rpc_core_init();
    server->has_core = true;
    context->options = &server->options;
    core_bridge_open(&context->bridge, (enum core_bridge_mode)settings->core_bridge);
    context->queue = grpc_completion_queue_create_for_next(NULL);
    context->quota = rpc_core_new_quota();
    rpc_call_pool_init(
        &context->calls, context->queue, &context->bridge, server->options.slot, settings);
    context->calls.is_blind = !rpc_reader_check();
    int error = rpc_burst_open(&context->calls.burst, server->options.event, &context->bridge);
    if (error < 0)
        return error;
    error = rpc_account_set_init(
        &context->accounts, server->options.event, settings, on_offence, server);
    if (error < 0)
        return error;
    rpc_reader_set_accounts(&context->accounts);
    rpc_stream_set_init(&context->streams, &context->calls);
    return descriptor_index_new(&context->descriptors);
}

int rpc_server_new(const struct rpc_server_options *options, struct rpc_server **ret_server)
{
    /* aligned_alloc: the calls' counters keep cache lines to themselves. */
    struct rpc_server *server CLEANUP(rpc_server_freep) =
        aligned_alloc(_Alignof(struct rpc_server), sizeof(*server));
    if (server == NULL)
        return -ENOMEM;
    memset((void *)server, 0, sizeof(*server));
    server->options = *options;
    server->drain.shut_down_fd = -1;
    int error = open_sources(server);
    if (error == 0)
        rpc_intake_set_shortage(server->intake, options->short_at_us);
    if (error == 0)
        error = rpc_reader_open(options->settings, options->slot);
    if (error == 0)
        error = open_core(server);
    for (size_t i = 0; i < options->settings->listener_count && error == 0; i++) {
        error = rpc_listener_open(&server->listeners[i], &server->context, (uint32_t)i);
        server->listeners[i].shut_down.on_event = on_shut_down;
        server->listener_count++;
    }
    if (error < 0)
        return error;
    rpc_drain_set(&server->drain, server->listener_count, server->intake);
    for (size_t i = 0; i < server->listener_count; i++)
        rpc_listener_start(&server->listeners[i]);
    error = start_thread(server);
    if (error < 0) {
        log_error("thread failed where=rpc_server error=%d", -error);
        abort(); /* the C core runs already and nobody is there to end it */
    }
    *ret_server = TAKE_PTR(server);
    return 0;
}
