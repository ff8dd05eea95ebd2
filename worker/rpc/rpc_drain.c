#include "worker/rpc/rpc_drain.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "common/file_descriptor.h"
#include "common/log.h"
#include "common/monotonic_clock.h"

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

static void arm_timer(struct rpc_drain *drain, uint64_t delay_us)
{
    int error = sd_event_source_set_time_relative(drain->timer, delay_us);
    if (error >= 0)
        error = sd_event_source_set_enabled(drain->timer, SD_EVENT_ONESHOT);
    if (error < 0)
        log_error("timer failed where=rpc_drain error=%d", -error);
}

static void finish_drain(struct rpc_drain *drain, bool is_clean)
{
    drain->step = RPC_DRAIN_DONE;
    (void)sd_event_source_set_enabled(drain->timer, SD_EVENT_OFF);
    if (drain->on_drained != NULL)
        drain->on_drained(is_clean, drain->userdata);
}

void rpc_drain_shut_down(struct rpc_drain *drain)
{
    drain->step = RPC_DRAIN_SHUTDOWN;
    for (size_t i = 0; i < drain->listener_count; i++)
        grpc_server_shutdown_and_notify(
            drain->listeners[i].core, drain->context->queue, &drain->listeners[i].shut_down);
    arm_timer(drain, SHUTDOWN_GRACE_US);
}

void rpc_drain_cancel(struct rpc_drain *drain)
{
    drain->step = RPC_DRAIN_CANCEL;
    size_t calls = rpc_call_pool_in_progress(&drain->context->calls);
    if (calls > 0)
        log_warn("drain cancels calls count=%zu", calls);
    for (size_t i = 0; i < drain->listener_count; i++)
        grpc_server_cancel_all_calls(drain->listeners[i].core);
    arm_timer(drain, CANCEL_GRACE_US);
}

/* In this order: ended connections first, so that nobody is answered by a server that is shut
 * down. */
static void end_connections(struct rpc_drain *drain)
{
    rpc_drain_cancel(drain);
    rpc_drain_shut_down(drain);
    drain->step = RPC_DRAIN_CANCEL;
    arm_timer(drain, CANCEL_GRACE_US);
}

static void wait_for_calls(struct rpc_drain *drain)
{
    const struct rpc_call_pool *calls = &drain->context->calls;
    uint64_t now_us = monotonic_clock_us();
    size_t awaited = now_us < drain->calls_deadline_us ? rpc_call_pool_in_progress(calls)
                                                       : rpc_call_pool_late(calls);
    if (awaited > 0 && now_us < drain->calls_deadline_us + LATE_GRACE_US) {
        arm_timer(drain, CALLS_CHECK_US);
        return;
    }
    end_connections(drain);
}

/* The worker's time is over. */
static void begin_last_calls(struct rpc_drain *drain)
{
    log_warn("drain timeout connections=%zu calls=%zu", rpc_intake_count(drain->intake),
        rpc_call_pool_in_progress(&drain->context->calls));
    drain->step = RPC_DRAIN_CALLS;
    rpc_call_pool_count_late(&drain->context->calls);
    drain->calls_deadline_us = monotonic_clock_us() + SHUTDOWN_GRACE_US;
    wait_for_calls(drain);
}

static void wait_for_idle(struct rpc_drain *drain)
{
    uint64_t now_us = monotonic_clock_us();
    if (now_us >= drain->drain_deadline_us) {
        begin_last_calls(drain);
        return;
    }
    if (now_us >= drain->idle_since_us && rpc_call_pool_in_progress(&drain->context->calls) == 0 &&
        (now_us >= drain->idle_since_us + BUSY_LIMIT_US ||
            rpc_intake_is_quiet(drain->intake, IDLE_QUIET_MS))) {
        log_info("drain ends idle connections count=%zu", rpc_intake_count(drain->intake));
        end_connections(drain);
        return;
    }
    uint64_t left_us = drain->drain_deadline_us - now_us;
    uint64_t idle_us =
        now_us < drain->idle_since_us ? drain->idle_since_us - now_us : (uint64_t)IDLE_CHECK_US;
    arm_timer(drain, left_us < idle_us ? left_us : idle_us);
}

static void set_idle_time(struct rpc_drain *drain, uint64_t idle_us)
{
    drain->idle_since_us = monotonic_clock_us() + idle_us;
    wait_for_idle(drain);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct rpc_drain *drain = userdata;
    (void)source;
    (void)usec;
    switch (drain->step) {
    case RPC_DRAIN_CONNECTIONS:
        wait_for_idle(drain);
        break;
    case RPC_DRAIN_CALLS:
        wait_for_calls(drain);
        break;
    case RPC_DRAIN_SHUTDOWN:
        rpc_drain_cancel(drain);
        break;
    case RPC_DRAIN_CANCEL:
        log_error("drain stuck servers=%zu", atomic_load(&drain->running));
        finish_drain(drain, false);
        break;
    case RPC_DRAIN_NOT_BEGUN:
    case RPC_DRAIN_DONE:
        break;
    }
    return 0;
}

static int on_shut_down_fd(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct rpc_drain *drain = userdata;
    eventfd_t value = 0;
    (void)source;
    (void)revents;
    (void)eventfd_read(fd, &value);
    if (drain->step == RPC_DRAIN_SHUTDOWN || drain->step == RPC_DRAIN_CANCEL)
        finish_drain(drain, true);
    return 0;
}

void rpc_drain_on_empty(struct rpc_drain *drain)
{
    if (drain->step == RPC_DRAIN_CONNECTIONS || drain->step == RPC_DRAIN_CALLS)
        rpc_drain_shut_down(drain);
}

void rpc_drain_begin(struct rpc_drain *drain, unsigned int timeout_ms, bool is_stop,
    rpc_drain_done *on_drained, void *userdata)
{
    if (drain->step != RPC_DRAIN_NOT_BEGUN)
        return;
    rpc_intake_drain(drain->intake, is_stop); /* before the step: the last one's end is none yet */
    drain->step = RPC_DRAIN_CONNECTIONS;
    drain->on_drained = on_drained;
    drain->userdata = userdata;
    drain->drain_deadline_us = monotonic_clock_us() + (uint64_t)timeout_ms * 1000;
    bool has_asked = true;
    for (size_t i = 0; i < drain->listener_count; i++)
        has_asked = core_bridge_send_goaways(&drain->context->bridge, drain->listeners[i].core) &&
                    has_asked;
    rpc_stream_set_drain(&drain->context->streams);
    log_info("drain begun connections=%zu goaway=%d timeout_ms=%u", rpc_intake_count(drain->intake),
        has_asked, timeout_ms);
    /* Who cannot be asked leaves by age (rpc_core.c). */
    if (rpc_intake_count(drain->intake) == 0)
        rpc_drain_shut_down(drain);
    else
        set_idle_time(drain, is_stop ? STOP_IDLE_US : IDLE_US);
}

void rpc_drain_stop(struct rpc_drain *drain)
{
    if (drain->step == RPC_DRAIN_CONNECTIONS)
        set_idle_time(drain, STOP_IDLE_US);
}

/* Any thread. */
void rpc_drain_count_shut_down(struct rpc_drain *drain)
{
    if (atomic_fetch_sub(&drain->running, 1) == 1)
        (void)eventfd_write(drain->shut_down_fd, 1);
}

int rpc_drain_open(struct rpc_drain *drain, sd_event *event, struct rpc_listener_context *context,
    struct rpc_listener *listeners)
{
    drain->context = context;
    drain->listeners = listeners;
    drain->shut_down_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (drain->shut_down_fd < 0)
        return -errno;
    int error = sd_event_add_io(
        event, &drain->shut_down_source, drain->shut_down_fd, EPOLLIN, on_shut_down_fd, drain);
    if (error >= 0)
        error = sd_event_add_time(
            event, &drain->timer, CLOCK_MONOTONIC, 0, TIMER_ACCURACY_US, on_timer, drain);
    if (error >= 0)
        error = sd_event_source_set_enabled(drain->timer, SD_EVENT_OFF);
    return error;
}

void rpc_drain_set(struct rpc_drain *drain, size_t listener_count, struct rpc_intake *intake)
{
    drain->listener_count = listener_count;
    drain->intake = intake;
    atomic_store(&drain->running, listener_count);
}

void rpc_drain_close(struct rpc_drain *drain)
{
    drain->shut_down_source = sd_event_source_disable_unref(drain->shut_down_source);
    drain->timer = sd_event_source_disable_unref(drain->timer);
    fd_close(&drain->shut_down_fd);
}
