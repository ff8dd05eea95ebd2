#include "worker/worker_process.h"

#include <stdlib.h>
#include <sysexits.h>
#include <unistd.h>

#include "common/attributes.h"
#include "common/file_descriptor.h"
#include "common/log.h"
#include "common/monotonic_clock.h"
#include "common/process_link.h"
#include "common/process_protocol.h"
#include "worker/api/user_post_v1.h"
#include "worker/api/user_v1.h"
#include "worker/events/event_peer.h"
#include "worker/rpc/rpc_server.h"
#include "worker/store/user_store.h"
#include "worker/user/claim_reconciler.h"
#include "worker/user/user_service.h"

/* How often a draining worker looks whether its last work is done. */
#define IDLE_CHECK_US 5000

/* How long READY waits for the database: with it from the first call on, a reload fails none. A
 * worker without a database is ready as well, since it says so to its clients. */
#define READY_WAIT_US 2000000

struct worker_process {
    struct process_link link;
    /* owned, each using those before it */
    struct user_store *store;
    struct user_service *users;
    struct user_v1 user_v1;
    struct user_post_v1 user_post_v1;
    struct event_peer *peer;
    struct claim_reconciler *reconciler;
    struct rpc_server *rpc;
    bool is_available;            /* the database */
    bool has_announced;           /* READY was said, or is no longer wanted */
    sd_event_source *ready_timer; /* owned */
    /* drain */
    sd_event_source *idle_timer; /* owned */
    uint64_t drain_deadline_us;
    bool is_rpc_stuck; /* its servers could not be shut down */
    bool is_drained;   /* nothing is in flight: everything can be freed */
};

/* ---- what the floors say ---- */

static void announce_ready(struct worker_process *worker)
{
    if (worker->has_announced)
        return;
    worker->has_announced = true;
    int error = process_link_ready(&worker->link);
    if (error < 0) {
        log_error("worker start failed error=%d", -error);
        process_link_exit(&worker->link, EXIT_FAILURE);
    }
}

static int on_ready_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    (void)source;
    (void)usec;
    announce_ready(userdata);
    return 0;
}

/* May come before the floors above the store are there: open_floors() then looks at is_available.
 */
static void on_availability(bool is_available, void *userdata)
{
    struct worker_process *worker = userdata;
    worker->is_available = is_available;
    if (worker->peer != NULL)
        event_peer_set_available(worker->peer, is_available);
    if (worker->rpc == NULL)
        return;
    rpc_server_set_serving(worker->rpc, is_available);
    if (is_available)
        announce_ready(worker);
}

static void on_answered(void *userdata)
{
    const struct worker_process *worker = userdata;
    if (worker->rpc != NULL)
        rpc_server_flush(worker->rpc);
}

static void on_connection(
    struct process_link *link, uint32_t listener, uint64_t number, int *fd, void *userdata)
{
    struct worker_process *worker = userdata;
    (void)link;
    rpc_server_add_connection(worker->rpc, listener, number, fd);
}

/* An answer that cannot be sent leaves the master with a descriptor too many, until we end. */
static void on_connection_settled(uint64_t number, bool is_returned, void *userdata)
{
    struct worker_process *worker = userdata;
    int error = process_link_answer_connection(&worker->link, number, is_returned);
    if (error < 0)
        log_debug("connection not answered for error=%d", -error);
}

/* The next offence is reported again. */
static void on_offence(uint64_t address, const char *reason, void *userdata)
{
    struct worker_process *worker = userdata;
    int error = process_link_report_offence(&worker->link, address, reason);
    if (error < 0)
        log_debug("offence not reported error=%d", -error);
}

static void on_address_ban(
    struct process_link *link, uint64_t address, unsigned int duration_ms, void *userdata)
{
    struct worker_process *worker = userdata;
    (void)link;
    rpc_server_ban_address(worker->rpc, address, duration_ms);
}

static void on_peer_link(struct process_link *link, uint32_t slot, int *fd, void *userdata)
{
    struct worker_process *worker = userdata;
    (void)link;
    if (slot == SCOREBOARD_SLOT_EVENTD)
        event_peer_connect(worker->peer, fd);
}

/* Of a master that knows no such request a channel comes with the next eventd only. */
static void ask_for_channel(void *userdata)
{
    struct worker_process *worker = userdata;
    int error = process_link_ask_for_peer(&worker->link, SCOREBOARD_SLOT_EVENTD);
    log_debug("asked for a channel to eventd error=%d", -error);
}

/* ---- drain: calls first, then what they have started, then the events in flight ---- */

static int check_idle(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct worker_process *worker = userdata;
    (void)usec;
    bool is_idle = user_store_is_idle(worker->store) && event_peer_is_idle(worker->peer);
    if (is_idle || monotonic_clock_us() >= worker->drain_deadline_us) {
        if (!is_idle)
            log_warn("drain timeout what=database_or_events");
        worker->is_drained = is_idle && !worker->is_rpc_stuck;
        process_link_exit(&worker->link, worker->is_rpc_stuck ? EX_SOFTWARE : EXIT_SUCCESS);
        return 0;
    }
    int error = sd_event_source_set_time_relative(source, IDLE_CHECK_US);
    if (error >= 0)
        error = sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
    return error;
}

static void on_rpc_drained(bool is_clean, void *userdata)
{
    struct worker_process *worker = userdata;
    worker->is_rpc_stuck = !is_clean;
    int error = sd_event_add_time_relative(worker->link.event, &worker->idle_timer, CLOCK_MONOTONIC,
        0, IDLE_CHECK_US / 10, check_idle, worker);
    if (error < 0) {
        log_error("drain failed error=%d", -error);
        process_link_exit(&worker->link, EXIT_FAILURE);
    }
}

static void on_drain(struct process_link *link, unsigned int timeout_ms, void *userdata)
{
    struct worker_process *worker = userdata;
    worker->has_announced = true;
    worker->drain_deadline_us = monotonic_clock_us() + (uint64_t)timeout_ms * 1000;
    rpc_server_set_serving(worker->rpc, false);
    event_peer_drain(worker->peer);
    rpc_server_drain(worker->rpc, timeout_ms, link->is_stop, on_rpc_drained, worker);
}

static void on_stop(struct process_link *link, void *userdata)
{
    struct worker_process *worker = userdata;
    (void)link;
    rpc_server_stop(worker->rpc);
}

/* ---- life ---- */

static int open_floors(struct worker_process *worker)
{
    struct process_link *link = &worker->link;
    const struct user_store_options store_options = {
        .event = link->event,
        .settings = &link->settings,
        .slot = link->slot,
        .slot_number = link->slot_number,
        .outbox_wake_fd = link->outbox_wake_fd,
        .on_availability = on_availability,
        .on_answered = on_answered,
        .userdata = worker,
    };
    int error = user_store_new(&store_options, &worker->store);
    if (error == 0)
        error = user_service_new(worker->store, &worker->users);
    if (error < 0)
        return error;
    const struct event_peer_options peer_options = {
        .event = link->event,
        .settings = &link->settings,
        .scoreboard = link->scoreboard,
        .slot = link->slot,
        .slot_number = link->slot_number,
        .user_service = worker->users,
        .user_store = worker->store,
        .outbox_wake_fd = link->outbox_wake_fd,
        .ask_for_channel = ask_for_channel,
        .userdata = worker,
    };
    error = event_peer_new(&peer_options, &worker->peer);
    if (error < 0)
        return error;
    error = claim_reconciler_new(link->event, worker->store, link->slot, &worker->reconciler);
    if (error < 0)
        return error;
    user_v1_init(&worker->user_v1, worker->users);
    user_post_v1_init(&worker->user_post_v1, worker->users);
    ProtobufCService *const services[] = {
        &worker->user_v1.service.base,
        &worker->user_post_v1.service.base,
    };
    const struct rpc_server_options rpc_options = {
        .event = link->event,
        .settings = &link->settings,
        .slot = link->slot,
        .services = services,
        .service_count = ARRAY_LENGTH(services),
        .on_connection_settled = on_connection_settled,
        .on_offence = on_offence,
        .short_at_us = &link->scoreboard->admission.short_at_us,
        .userdata = worker,
    };
    error = rpc_server_new(&rpc_options, &worker->rpc);
    if (error < 0)
        return error;
    if (worker->is_available)
        on_availability(true, worker);
    return sd_event_add_time_relative(link->event, &worker->ready_timer, CLOCK_MONOTONIC,
        READY_WAIT_US, 0, on_ready_timer, worker);
}

/* Callers before those that they call. */
static void close_floors(struct worker_process *worker)
{
    worker->rpc = rpc_server_free(worker->rpc);
    worker->reconciler = claim_reconciler_free(worker->reconciler);
    worker->peer = event_peer_free(worker->peer);
    worker->users = user_service_free(worker->users);
    worker->store = user_store_free(worker->store);
    (void)sd_event_source_disable_unref(worker->ready_timer);
    (void)sd_event_source_disable_unref(worker->idle_timer);
    process_link_close(&worker->link);
}

int worker_process_run(void)
{
    static const struct process_link_handlers handlers = {
        .on_connection = on_connection,
        .on_peer_link = on_peer_link,
        .on_address_ban = on_address_ban,
        .on_drain = on_drain,
        .on_stop = on_stop,
    };
    struct worker_process worker = {0};
    int error = process_link_open(&worker.link, PROCESS_ROLE_WORKER, &handlers, &worker);
    if (error < 0)
        return EXIT_FAILURE;
    error = open_floors(&worker);
    if (error < 0) {
        log_error("worker start failed error=%d", -error);
        worker.is_drained = true; /* no client has been let in */
    }
    int status = error < 0 ? EXIT_FAILURE : process_link_run(&worker.link);
    /* With calls in flight there is nobody left to wait for: their threads end with the process,
     * which must not run the exit handlers of libraries that those threads are still in. */
    if (!worker.is_drained)
        _exit(status);
    close_floors(&worker);
    return status;
}
