#include "worker/rpc/rpc_server.h"

#include <assert.h>
#include <errno.h>
#include <grpc/support/time.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>

#include "common/file_descriptor.h"
#include "common/log.h"
#include "common/monotonic_clock.h"
#include "worker/rpc/rpc_core.h"
#include "worker/rpc/rpc_intake.h"
#include "worker/rpc/rpc_listener.h"
#include "worker/rpc/rpc_reader.h"

/* After the time for clients to leave by themselves: for calls to finish, then for those that came
 * while these did not, and for cancelled ones to come back. Together less than the second after
 * which the master kills a worker that has not left. */
#define SHUTDOWN_GRACE_US 300000
#define LATE_GRACE_US     150000
#define CANCEL_GRACE_US   400000
#define CALLS_CHECK_US    5000

/* Connections that have no call and are still there, so long after GOAWAY, are those of clients
 * that do not look at them (one that is stopped, one whose host is gone): the C core itself waits
 * 20 seconds for the acknowledgement of its PING. In a reload the time is long enough for one that
 * is slow, and nobody waits for it; in a stop their clients are served by nobody until it is over.
 * Nothing may have come for a while either: it could be the first part of a call. */
#define IDLE_US           UINT64_C(4000000)
#define STOP_IDLE_US      UINT64_C(400000)
#define IDLE_CHECK_US     20000
#define IDLE_QUIET_MS     100
#define BUSY_LIMIT_US     UINT64_C(1000000) /* of clients that are not quiet, and have no call */
#define TIMER_ACCURACY_US 5000
#define HEARTBEAT_US      1000000
#define HEARTBEAT_WAIT_US \
    1020000 /* over the coarse clock's step, or the wait would end too early */

/* The drain, step by step; each is left by what it waits for or by its time limit.
 *
 * A server that is shut down answers every new call CANCELLED, and a client that has no call under
 * way may not read GOAWAY before its next one. As long as such connections are left, servers are
 * therefore not shut down: they serve until a moment without a call, and then end all connections
 * with a last GOAWAY, which says how far they got. Whatever a client sends later it may send again
 * elsewhere, and does so by itself. Where calls do not end, the moment is one without any other:
 * who comes late, and is answered at once, does not fail for them.
 */
enum drain_step {
    DRAIN_NOT_BEGUN,
    DRAIN_CONNECTIONS, /* clients were asked to leave */
    DRAIN_CALLS,       /* their time is over: waits for a moment without a call */
    DRAIN_SHUTDOWN,    /* the servers are shut down: calls in progress may finish */
    DRAIN_CANCEL,      /* all connections are ended, calls in progress with them */
    DRAIN_DONE,
};

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
    /* drain */
    enum drain_step step;
    uint64_t drain_deadline_us; /* of DRAIN_CONNECTIONS */
    uint64_t idle_since_us;     /* from when on a connection without a call is ended */
    uint64_t calls_deadline_us; /* of DRAIN_CALLS */
    _Atomic size_t running;     /* servers that are not shut down: counted down by the rpc thread */
    int shut_down_fd;           /* owned: eventfd, written by the rpc thread when `running` is 0 */
    sd_event_source *shut_down_source; /* owned */
    sd_event_source *timer;            /* owned */
    void (*on_drained)(void *userdata);
    void *on_drained_userdata;
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
    gpr_timespec deadline = gpr_now(GPR_CLOCK_MONOTONIC);
    for (;;) {
        deadline = beat(server, deadline);
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
    (void)sigfillset(&all);
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
    if (atomic_fetch_sub(&server->running, 1) == 1)
        (void)eventfd_write(server->shut_down_fd, 1);
}

/* ---- drain ---- */

static void arm_timer(struct rpc_server *server, uint64_t delay_us)
{
    int error = sd_event_source_set_time_relative(server->timer, delay_us);
    if (error >= 0)
        error = sd_event_source_set_enabled(server->timer, SD_EVENT_ONESHOT);
    if (error < 0)
        log_error("timer failed where=rpc_server error=%d", -error);
}

static void finish_drain(struct rpc_server *server)
{
    server->step = DRAIN_DONE;
    (void)sd_event_source_set_enabled(server->timer, SD_EVENT_OFF);
    if (server->on_drained != NULL)
        server->on_drained(server->on_drained_userdata);
}

static void shut_down_servers(struct rpc_server *server)
{
    server->step = DRAIN_SHUTDOWN;
    for (size_t i = 0; i < server->listener_count; i++)
        grpc_server_shutdown_and_notify(
            server->listeners[i].core, server->context.queue, &server->listeners[i].shut_down);
    arm_timer(server, SHUTDOWN_GRACE_US);
}

static void cancel_calls(struct rpc_server *server)
{
    server->step = DRAIN_CANCEL;
    size_t calls = rpc_call_pool_in_progress(&server->context.calls);
    if (calls > 0)
        log_warn("drain cancels calls count=%zu", calls);
    for (size_t i = 0; i < server->listener_count; i++)
        grpc_server_cancel_all_calls(server->listeners[i].core);
    arm_timer(server, CANCEL_GRACE_US);
}

/* In this order: ended connections first, so that nobody is answered by a server that is shut
 * down. */
static void end_connections(struct rpc_server *server)
{
    cancel_calls(server);
    shut_down_servers(server);
    server->step = DRAIN_CANCEL;
    arm_timer(server, CANCEL_GRACE_US);
}

static void wait_for_calls(struct rpc_server *server)
{
    const struct rpc_call_pool *calls = &server->context.calls;
    uint64_t now_us = monotonic_clock_us();
    size_t awaited = now_us < server->calls_deadline_us ? rpc_call_pool_in_progress(calls)
                                                        : rpc_call_pool_late(calls);
    if (awaited > 0 && now_us < server->calls_deadline_us + LATE_GRACE_US) {
        arm_timer(server, CALLS_CHECK_US);
        return;
    }
    end_connections(server);
}

/* The worker's time is over. */
static void begin_last_calls(struct rpc_server *server)
{
    log_warn("drain timeout connections=%zu calls=%zu", rpc_intake_count(server->intake),
        rpc_call_pool_in_progress(&server->context.calls));
    server->step = DRAIN_CALLS;
    rpc_call_pool_count_late(&server->context.calls);
    server->calls_deadline_us = monotonic_clock_us() + SHUTDOWN_GRACE_US;
    wait_for_calls(server);
}

static void wait_for_idle(struct rpc_server *server)
{
    uint64_t now_us = monotonic_clock_us();
    if (now_us >= server->drain_deadline_us) {
        begin_last_calls(server);
        return;
    }
    if (now_us >= server->idle_since_us && rpc_call_pool_in_progress(&server->context.calls) == 0 &&
        (now_us >= server->idle_since_us + BUSY_LIMIT_US ||
            rpc_intake_is_quiet(server->intake, IDLE_QUIET_MS))) {
        log_info("drain ends idle connections count=%zu", rpc_intake_count(server->intake));
        end_connections(server);
        return;
    }
    uint64_t left_us = server->drain_deadline_us - now_us;
    uint64_t idle_us =
        now_us < server->idle_since_us ? server->idle_since_us - now_us : (uint64_t)IDLE_CHECK_US;
    arm_timer(server, left_us < idle_us ? left_us : idle_us);
}

static void set_idle_time(struct rpc_server *server, uint64_t idle_us)
{
    server->idle_since_us = monotonic_clock_us() + idle_us;
    wait_for_idle(server);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct rpc_server *server = userdata;
    (void)source;
    (void)usec;
    switch (server->step) {
    case DRAIN_CONNECTIONS:
        wait_for_idle(server);
        break;
    case DRAIN_CALLS:
        wait_for_calls(server);
        break;
    case DRAIN_SHUTDOWN:
        cancel_calls(server);
        break;
    case DRAIN_CANCEL:
        log_error("drain stuck servers=%zu", atomic_load(&server->running));
        finish_drain(server);
        break;
    case DRAIN_NOT_BEGUN:
    case DRAIN_DONE:
        break;
    }
    return 0;
}

static int on_shut_down_fd(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct rpc_server *server = userdata;
    eventfd_t value = 0;
    (void)source;
    (void)revents;
    (void)eventfd_read(fd, &value);
    if (server->step == DRAIN_SHUTDOWN || server->step == DRAIN_CANCEL)
        finish_drain(server);
    return 0;
}

static void on_intake_empty(void *userdata)
{
    struct rpc_server *server = userdata;
    if (server->step == DRAIN_CONNECTIONS || server->step == DRAIN_CALLS)
        shut_down_servers(server);
}

void rpc_server_drain(struct rpc_server *server, unsigned int timeout_ms, bool is_stop,
    void (*on_drained)(void *userdata), void *userdata)
{
    if (server->step != DRAIN_NOT_BEGUN)
        return;
    rpc_intake_drain(server->intake, is_stop); /* before the step: the last one's end is none yet */
    server->step = DRAIN_CONNECTIONS;
    server->on_drained = on_drained;
    server->on_drained_userdata = userdata;
    server->drain_deadline_us = monotonic_clock_us() + (uint64_t)timeout_ms * 1000;
    bool has_asked = true;
    for (size_t i = 0; i < server->listener_count; i++)
        has_asked = core_bridge_send_goaways(&server->context.bridge, server->listeners[i].core) &&
                    has_asked;
    rpc_stream_set_drain(&server->context.streams);
    log_info("drain begun connections=%zu goaway=%d timeout_ms=%u",
        rpc_intake_count(server->intake), has_asked, timeout_ms);
    /* Who cannot be asked leaves by age (rpc_core.c). */
    if (rpc_intake_count(server->intake) == 0)
        shut_down_servers(server);
    else
        set_idle_time(server, is_stop ? STOP_IDLE_US : IDLE_US);
}

void rpc_server_stop(struct rpc_server *server)
{
    if (server->step == DRAIN_CONNECTIONS)
        set_idle_time(server, STOP_IDLE_US);
}

/* ---- connections and health ---- */

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
    if (server->step < DRAIN_SHUTDOWN) {
        shut_down_servers(server);
        cancel_calls(server);
    }
    for (int waited_ms = 0; atomic_load(&server->running) > 0; waited_ms += 10) {
        if (waited_ms >= CANCEL_GRACE_US / 1000)
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
    rpc_call_pool_cleanup(&server->context.calls);
    rpc_stream_set_cleanup(&server->context.streams);
    grpc_resource_quota_unref(server->context.quota);
    (void)descriptor_index_free(server->context.descriptors);
    rpc_core_cleanup();
    rpc_reader_close();
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
    (void)sd_event_source_disable_unref(server->shut_down_source);
    (void)sd_event_source_disable_unref(server->timer);
    fd_close(&server->shut_down_fd);
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
    server->shut_down_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (server->shut_down_fd < 0)
        return -errno;
    int error = sd_event_add_io(
        event, &server->shut_down_source, server->shut_down_fd, EPOLLIN, on_shut_down_fd, server);
    if (error >= 0)
        error = sd_event_add_time(
            event, &server->timer, CLOCK_MONOTONIC, 0, TIMER_ACCURACY_US, on_timer, server);
    if (error >= 0)
        error = sd_event_source_set_enabled(server->timer, SD_EVENT_OFF);
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
    int error = rpc_burst_open(&context->calls.burst, server->options.event, &context->bridge);
    if (error < 0)
        return error;
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
    server->shut_down_fd = -1;
    int error = open_sources(server);
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
    atomic_store(&server->running, server->listener_count);
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
