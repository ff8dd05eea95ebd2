#include "master/connection_dispatch.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "common/descriptor_limit.h"
#include "common/file_descriptor.h"
#include "common/log.h"
#include "common/monotonic_clock.h"
#include "master/connection_admission.h"
#include "master/passed_connections.h"
#include "master/worker_choice.h"

#define ACCEPTS_PER_WAKE   64   /* then the other listeners and the children get their turn */
#define CHANNEL_ROOM_BYTES 4096 /* frames not read yet: over this a worker is behind */
#define RETRY_PAUSE_US     20000
#define TIMER_ACCURACY_US  1000
#define LOG_LINES_A_SECOND 2

struct dispatch_source {
    struct connection_dispatch *dispatch;
    uint32_t listener;       /* number */
    sd_event_source *source; /* owned */
    uint32_t last_slot;      /* served last: ties go round from here */
};

struct connection_dispatch {
    struct connection_dispatch_options options;
    struct dispatch_source sources[SETTINGS_MAX_LISTENERS];
    size_t source_count;        /* 0: paused */
    uint64_t connection_age_us; /* at nine tenths of it a connection may leave; 0: they stay */
    struct connection_admission *admission; /* owned */
    struct passed_connections *passed;      /* owned */
    sd_event_source *retry;                 /* owned; armed while paused for a passing reason */
    int reserve_fd; /* owned; given up for a moment when descriptors run out */
    uint32_t generation;
    struct log_limit failure_log;
};

struct candidates {
    struct worker_candidate workers[SETTINGS_MAX_WORKERS];
    size_t count;
    bool is_any_behind; /* READY, but its channel is full */
    bool is_any_full;   /* READY, but it has said that it has no room for this connection */
};

static uint32_t living_connections(
    const struct scoreboard *scoreboard, uint32_t slot, uint32_t listener)
{
    uint32_t passed =
        atomic_load_explicit(&scoreboard->master[slot].passed[listener], memory_order_relaxed);
    uint32_t closed =
        atomic_load_explicit(&scoreboard->slots[slot].closed[listener], memory_order_relaxed);
    return passed - closed; /* both go round at 2^32 */
}

/* With those that wait for a worker. */
static size_t all_living_connections(const struct connection_dispatch *dispatch)
{
    const struct connection_dispatch_options *options = &dispatch->options;
    size_t total = passed_connections_waiting(dispatch->passed);
    for (uint32_t slot = SCOREBOARD_SLOT_EVENTD + 1; slot < SCOREBOARD_SLOTS; slot++) {
        if (child_table_state(options->children, slot) == PROCESS_ABSENT)
            continue;
        /* of an older generation the numbers are those of other listeners: all count */
        for (uint32_t i = 0; i < SETTINGS_MAX_LISTENERS; i++)
            total += living_connections(options->scoreboard, slot, i);
    }
    return total;
}

/* Since when the worker has had a connection that may be leaving; 0: it has none. A client that is
 * told to go connects anew before it closes, so its former connection counts until then: among
 * equals the one that it leaves has one less in truth. */
static uint64_t leaving_since_us(
    const struct connection_dispatch *dispatch, uint32_t slot, uint32_t listener)
{
    if (dispatch->connection_age_us == 0)
        return 0;
    uint64_t oldest_us = atomic_load_explicit(
        &dispatch->options.scoreboard->slots[slot].oldest_us[listener], memory_order_relaxed);
    uint64_t soonest_us = oldest_us + dispatch->connection_age_us / 10 * 9; /* its jitter */
    bool may_leave =
        oldest_us != 0 && soonest_us <= monotonic_clock_turn_us(dispatch->options.event);
    return may_leave ? oldest_us : 0;
}

/* A worker may also drain because someone signalled it: then only its own slot says so. */
static bool is_serving(const struct connection_dispatch *dispatch, uint32_t slot)
{
    const struct connection_dispatch_options *options = &dispatch->options;
    const struct scoreboard_slot *own = &options->scoreboard->slots[slot];
    return child_table_state(options->children, slot) == PROCESS_READY &&
           child_table_generation(options->children, slot) == dispatch->generation &&
           atomic_load_explicit(&own->state, memory_order_relaxed) == PROCESS_READY;
}

/* Those who may be given a connection of the listener; `waiting` (NULL: it is a new one) is not
 * passed again to a worker that had no room for it. */
static void collect_candidates(const struct connection_dispatch *dispatch, uint32_t listener,
    const struct passed_connection *waiting, struct candidates *ret_candidates)
{
    const struct connection_dispatch_options *options = &dispatch->options;
    ret_candidates->count = 0;
    ret_candidates->is_any_behind = false;
    ret_candidates->is_any_full = false;
    for (uint32_t slot = SCOREBOARD_SLOT_EVENTD + 1; slot < SCOREBOARD_SLOTS; slot++) {
        if (!is_serving(dispatch, slot))
            continue;
        if (waiting != NULL && passed_connections_is_refused_by(waiting, slot)) {
            ret_candidates->is_any_full = true;
            continue;
        }
        if (child_table_queued_bytes(options->children, slot) > CHANNEL_ROOM_BYTES) {
            ret_candidates->is_any_behind = true;
            continue;
        }
        ret_candidates->workers[ret_candidates->count++] = (struct worker_candidate){
            .slot = slot,
            .living = living_connections(options->scoreboard, slot, listener),
            .leaving_since_us = leaving_since_us(dispatch, slot, listener),
            .can_take = true,
        };
    }
}

static void set_accepting(struct connection_dispatch *dispatch, int state)
{
    for (size_t i = 0; i < dispatch->source_count; i++)
        (void)sd_event_source_set_enabled(dispatch->sources[i].source, state);
}

static int on_retry(sd_event_source *source, uint64_t time_us, void *userdata)
{
    (void)source;
    (void)time_us;
    connection_dispatch_refresh(userdata);
    return 0;
}

/* Pauses until a refresh, or for a moment when the reason passes by itself. */
static void pause_accepting(struct connection_dispatch *dispatch, bool is_for_a_moment)
{
    set_accepting(dispatch, SD_EVENT_OFF);
    if (!is_for_a_moment)
        return;
    dispatch->retry = sd_event_source_disable_unref(dispatch->retry);
    int result = sd_event_add_time_relative(dispatch->options.event, &dispatch->retry,
        CLOCK_MONOTONIC, RETRY_PAUSE_US, TIMER_ACCURACY_US, on_retry, dispatch);
    if (result < 0) /* better busy than deaf */
        set_accepting(dispatch, SD_EVENT_ON);
}

static void log_failure(
    struct connection_dispatch *dispatch, uint32_t listener, const char *event, int error)
{
    unsigned int suppressed = 0;
    if (log_limit_allows(&dispatch->failure_log, LOG_LINES_A_SECOND, &suppressed))
        log_warn("%s listener=%s error=\"%s\" suppressed=%u", event,
            dispatch->options.listeners->items[listener].name, strerror(error), suppressed);
}

static const char *listener_name(const struct connection_dispatch *dispatch, uint32_t listener)
{
    return dispatch->options.listeners->items[listener].name;
}

/* How many connections the workers that are given some can hold together: workers have the
 * descriptor limit that this process has. */
static size_t room_of_workers(const struct connection_dispatch *dispatch)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return SIZE_MAX;
    size_t serving = 0;
    for (uint32_t slot = SCOREBOARD_SLOT_EVENTD + 1; slot < SCOREBOARD_SLOTS; slot++)
        serving += is_serving(dispatch, slot) ? 1 : 0;
    return serving * descriptor_limit_connections(limit.rlim_cur);
}

static int send_connection(
    struct connection_dispatch *dispatch, uint32_t slot, const struct passed_connection *passed)
{
    Userd__Ipc__Connection connection = USERD__IPC__CONNECTION__INIT;
    connection.listener = passed->listener;
    connection.number = passed->number;
    Userd__Ipc__Frame frame = USERD__IPC__FRAME__INIT;
    frame.body_case = USERD__IPC__FRAME__BODY_CONNECTION;
    frame.connection = &connection;
    return child_table_send(dispatch->options.children, slot, &frame, passed->fd);
}

static void count_passed(struct connection_dispatch *dispatch, uint32_t slot, uint32_t listener)
{
    _Atomic uint32_t *passed = &dispatch->options.scoreboard->master[slot].passed[listener];
    uint32_t before = atomic_load_explicit(passed, memory_order_relaxed);
    atomic_store_explicit(passed, before + 1, memory_order_relaxed);
}

/* False: it has ended. */
static bool find_address(
    const struct passed_connection *connection, struct sockaddr_storage *ret_address)
{
    *ret_address = (struct sockaddr_storage){.ss_family = AF_UNSPEC};
    socklen_t length = sizeof(*ret_address);
    return getpeername(connection->fd, (struct sockaddr *)ret_address, &length) == 0;
}

static void note_address(
    struct connection_dispatch *dispatch, const struct passed_connection *connection)
{
    struct sockaddr_storage address;
    if (!find_address(connection, &address))
        return; /* the worker will see that */
    connection_admission_note(dispatch->admission, connection->fd,
        (const struct sockaddr *)&address, connection->slot,
        monotonic_clock_turn_us(dispatch->options.event));
}

/* It is on its way again, and is noted when it is passed again. */
static void forget_address(
    struct connection_dispatch *dispatch, const struct passed_connection *connection)
{
    struct sockaddr_storage address;
    if (find_address(connection, &address)) /* else the kernel strikes its note out */
        connection_admission_forget(
            dispatch->admission, connection->fd, (const struct sockaddr *)&address);
}

/* Tries the best worker, then the next best. False: none can be given it now, it waits, and nothing
 * more is accepted. */
static bool pass_connection(struct connection_dispatch *dispatch, struct candidates *candidates,
    struct passed_connection *connection)
{
    struct dispatch_source *source = &dispatch->sources[connection->listener];
    int result = 0;
    for (;;) {
        int chosen = worker_choice_next(candidates->workers, candidates->count, source->last_slot);
        if (chosen < 0)
            break;
        uint32_t slot = candidates->workers[chosen].slot;
        result = send_connection(dispatch, slot, connection);
        if (result < 0) {
            candidates->workers[chosen].can_take = false;
            continue;
        }
        source->last_slot = slot;
        passed_connections_give(dispatch->passed, connection, slot);
        count_passed(dispatch, slot, connection->listener);
        note_address(dispatch, connection);
        return true;
    }
    if (result < 0)
        log_failure(dispatch, connection->listener, "connection not passed yet", -result);
    pause_accepting(dispatch, candidates->is_any_behind || result < 0);
    return false;
}

/* What its worker has not taken goes to another. False: some must wait on. */
static bool pass_waiting(struct connection_dispatch *dispatch)
{
    if (dispatch->source_count == 0)
        return false;
    for (;;) {
        struct passed_connection *connection = passed_connections_first_waiting(dispatch->passed);
        if (connection == NULL)
            return true;
        if (connection->arrangement != dispatch->options.listeners->arrangement) {
            log_info("connection closed reason=\"a reload has changed its listener\"");
            passed_connections_remove(dispatch->passed, connection);
            continue;
        }
        struct candidates candidates;
        collect_candidates(dispatch, connection->listener, connection, &candidates);
        if (candidates.count == 0 && candidates.is_any_full && !candidates.is_any_behind) {
            struct sockaddr_storage address;
            bool is_known = find_address(connection, &address);
            connection_admission_refuse(dispatch->admission, SCOREBOARD_REFUSAL_NO_WORKER,
                listener_name(dispatch, connection->listener),
                is_known ? (const struct sockaddr *)&address : NULL);
            passed_connections_remove(dispatch->passed, connection);
            continue;
        }
        if (!pass_connection(dispatch, &candidates, connection))
            return false;
    }
}

static void open_reserve(struct connection_dispatch *dispatch)
{
    if (dispatch->reserve_fd < 0)
        dispatch->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* Out of descriptors: the reserve makes room to take one from the backlog and close it. */
static void shed_connection(struct connection_dispatch *dispatch, int listener_fd)
{
    fd_close(&dispatch->reserve_fd);
    int fd = accept4(listener_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    fd_close(&fd);
    open_reserve(dispatch);
}

/* Nothing came out of accept4(). True: try the next one. */
static bool handle_accept_error(struct dispatch_source *source, int error)
{
    struct connection_dispatch *dispatch = source->dispatch;
    if (error == EAGAIN)
        return false;
    bool is_out_of_descriptors = error == EMFILE || error == ENFILE;
    bool is_out_of_memory = error == ENOBUFS || error == ENOMEM;
    if (!is_out_of_descriptors && !is_out_of_memory)
        return true; /* that connection's own trouble: accept(2), "Error handling" */

    log_failure(dispatch, source->listener, "accept failed, connection closed", error);
    connection_admission_free_descriptors(dispatch->admission);
    if (is_out_of_descriptors)
        shed_connection(dispatch, dispatch->options.listeners->items[source->listener].fd);
    pause_accepting(dispatch, true);
    return false;
}

/* False: nothing more to do for now. */
static bool accept_one(struct dispatch_source *source, int listener_fd)
{
    struct connection_dispatch *dispatch = source->dispatch;
    struct candidates candidates;
    collect_candidates(dispatch, source->listener, NULL, &candidates);
    if (candidates.count == 0) {
        pause_accepting(dispatch, candidates.is_any_behind);
        return false;
    }

    struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
    socklen_t length = sizeof(address);
    int fd CLEANUP(fd_close) =
        accept4(listener_fd, (struct sockaddr *)&address, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return handle_accept_error(source, errno);
    const struct arrived_connection arrived = {
        &fd, (const struct sockaddr *)&address, listener_name(dispatch, source->listener)};
    if (!connection_admission_allows(dispatch->admission, &arrived,
            all_living_connections(dispatch), room_of_workers(dispatch),
            monotonic_clock_turn_us(dispatch->options.event)))
        return true;
    const int on = 1;
    if (!dispatch->options.listeners->items[source->listener].is_unix)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    struct passed_connection *connection = passed_connections_add(
        dispatch->passed, &fd, source->listener, dispatch->options.listeners->arrangement);
    if (connection == NULL)
        connection_admission_refuse(dispatch->admission, SCOREBOARD_REFUSAL_TOTAL,
            listener_name(dispatch, source->listener), (const struct sockaddr *)&address);
    return connection == NULL || pass_connection(dispatch, &candidates, connection);
}

static int on_acceptable(sd_event_source *event_source, int fd, uint32_t revents, void *userdata)
{
    (void)event_source;
    (void)revents;
    struct dispatch_source *source = userdata;
    for (int i = 0; i < ACCEPTS_PER_WAKE; i++)
        if (!accept_one(source, fd))
            break;
    return 0;
}

void connection_dispatch_pause(struct connection_dispatch *dispatch)
{
    dispatch->retry = sd_event_source_disable_unref(dispatch->retry);
    for (size_t i = 0; i < dispatch->source_count; i++)
        dispatch->sources[i].source = sd_event_source_disable_unref(dispatch->sources[i].source);
    dispatch->source_count = 0;
}

int connection_dispatch_resume(struct connection_dispatch *dispatch, uint32_t generation)
{
    const struct listener_set *listeners = dispatch->options.listeners;
    connection_dispatch_pause(dispatch);
    dispatch->generation = generation;
    for (uint32_t i = 0; i < listeners->count; i++) {
        struct dispatch_source *source = &dispatch->sources[i];
        *source = (struct dispatch_source){.dispatch = dispatch, .listener = i};
        int result = sd_event_add_io(dispatch->options.event, &source->source,
            listeners->items[i].fd, EPOLLIN, on_acceptable, source);
        if (result < 0)
            return result;
        dispatch->source_count++;
    }
    connection_dispatch_refresh(dispatch);
    return 0;
}

int connection_dispatch_set_limits(
    struct connection_dispatch *dispatch, const struct settings *settings)
{
    dispatch->connection_age_us =
        (uint64_t)settings->limits.connection_age_ms * MONOTONIC_CLOCK_US_PER_MS;
    int result = passed_connections_reserve(dispatch->passed, (size_t)settings->limits.connections);
    if (result == 0)
        result = connection_admission_set(dispatch->admission, settings);
    return result;
}

static int open_parts(struct connection_dispatch *dispatch, const struct settings *settings)
{
    open_reserve(dispatch);
    if (dispatch->reserve_fd < 0)
        return -errno;
    int result = passed_connections_new((size_t)settings->limits.connections, &dispatch->passed);
    if (result == 0)
        result = connection_admission_new(dispatch->options.event, settings,
            &dispatch->options.scoreboard->admission, &dispatch->admission);
    return result < 0 ? result : connection_dispatch_set_limits(dispatch, settings);
}

int connection_dispatch_new(const struct connection_dispatch_options *options,
    const struct settings *settings, struct connection_dispatch **ret_dispatch)
{
    struct connection_dispatch *dispatch = calloc(1, sizeof(*dispatch));
    if (dispatch == NULL)
        return -ENOMEM;
    dispatch->options = *options;
    dispatch->reserve_fd = -1;
    int result = open_parts(dispatch, settings);
    if (result < 0) {
        (void)connection_dispatch_free(dispatch);
        return result;
    }
    *ret_dispatch = dispatch;
    return 0;
}

struct connection_dispatch *connection_dispatch_free(struct connection_dispatch *dispatch)
{
    if (dispatch == NULL)
        return NULL;
    connection_dispatch_pause(dispatch);
    (void)connection_admission_free(dispatch->admission);
    (void)passed_connections_free(dispatch->passed);
    fd_close(&dispatch->reserve_fd);
    free(dispatch);
    return NULL;
}

void connection_dispatch_refresh(struct connection_dispatch *dispatch)
{
    dispatch->retry = sd_event_source_disable_unref(dispatch->retry);
    open_reserve(dispatch); /* somebody else may have been faster to take it when it was lent */
    if (pass_waiting(dispatch))
        set_accepting(dispatch, SD_EVENT_ON);
}

void connection_dispatch_settle(
    struct connection_dispatch *dispatch, uint32_t slot, uint64_t number, bool is_returned)
{
    struct passed_connection *connection = passed_connections_find(dispatch->passed, number);
    if (connection == NULL || connection->slot != slot)
        return; /* of the master before this one, or of a former life of the slot */
    if (!is_returned) {
        passed_connections_remove(dispatch->passed, connection);
        return;
    }
    forget_address(dispatch, connection);
    passed_connections_refuse(dispatch->passed, connection);
    connection_dispatch_refresh(dispatch);
}

void connection_dispatch_forget_slot(struct connection_dispatch *dispatch, uint32_t slot)
{
    connection_admission_forget_slot(dispatch->admission, slot);
    size_t count = passed_connections_take_back(dispatch->passed, slot);
    if (count == 0)
        return;
    log_info("connections passed to others slot=%u count=%zu", slot, count);
    connection_dispatch_refresh(dispatch);
}

unsigned int connection_dispatch_ban(
    struct connection_dispatch *dispatch, uint64_t address, const char *reason)
{
    return connection_admission_ban(
        dispatch->admission, address, reason, monotonic_clock_turn_us(dispatch->options.event));
}

struct passed_connections *connection_dispatch_passed(const struct connection_dispatch *dispatch)
{
    return dispatch->passed;
}
