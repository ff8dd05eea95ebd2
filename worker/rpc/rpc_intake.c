#include "worker/rpc/rpc_intake.h"

#include <assert.h>
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
#include "worker/rpc/rpc_reader.h"
#include "worker/rpc/rpc_watch.h"

/* RFC 9113, section 3.4: what an HTTP/2 client sends first. */
static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
#define PREFACE_BYTES (sizeof(preface) - 1)
/* It must be followed by a SETTINGS frame: its header is waited for as well. */
#define FIRST_BYTES (PREFACE_BYTES + 9)

#define TIMER_ACCURACY_US 50000
#define LINES_PER_SECOND  5

struct connection {
    struct rpc_intake *intake;
    struct connection *previous;
    struct connection *next;
    sd_event_source *source; /* owned: watches watch_fd */
    int watch_fd;            /* owned: our duplicate */
    int core_fd;             /* owned while waiting for the preface; then the C core's, -1 here */
    struct rpc_peer *peer;   /* owned: once it is at the C core */
    struct rpc_watch_entry *entry; /* owned: likewise; may be NULL */
    uint32_t listener;
    uint64_t number;       /* the master's */
    uint64_t deadline_us;  /* for the preface */
    uint64_t handed_at_us; /* to the C core */
    bool is_returned;      /* to the master: its end is not one for it */
};

struct connection_list {
    struct connection *first;
    struct connection *last;
};

struct rpc_intake {
    sd_event *event;         /* owned: a reference */
    sd_event_source *timer;  /* owned: for the first of `waiting` */
    struct rpc_watch *watch; /* owned */
    struct scoreboard_slot *slot;
    const struct rpc_intake_handlers *handlers;
    void *userdata;
    size_t limit;
    uint64_t timeout_us;
    size_t count;
    bool is_draining;
    struct connection_list
        waiting; /* owned; for their first bytes, in order of arrival and so of deadline */
    /* owned; at the C core, in the order in which they came to it */
    struct connection_list active[SETTINGS_MAX_LISTENERS];
    struct log_limit log_limit;
};

/* ---- lists ---- */

static void append_connection(struct connection_list *list, struct connection *connection)
{
    connection->previous = list->last;
    connection->next = NULL;
    if (list->last != NULL)
        list->last->next = connection;
    else
        list->first = connection;
    list->last = connection;
}

static void remove_connection(struct connection_list *list, struct connection *connection)
{
    if (connection->previous != NULL)
        connection->previous->next = connection->next;
    else
        list->first = connection->next;
    if (connection->next != NULL)
        connection->next->previous = connection->previous;
    else
        list->last = connection->previous;
}

/* ---- the end of a connection ---- */

static void settle(struct rpc_intake *intake, uint64_t number, bool is_returned)
{
    if (intake->handlers->on_settled != NULL)
        intake->handlers->on_settled(number, is_returned, intake->userdata);
}

static void count_closed(struct rpc_intake *intake, uint32_t listener)
{
    atomic_fetch_add_explicit(&intake->slot->closed[listener], 1, memory_order_relaxed);
}

/* For the master, which would rather have the next one with a worker that an old one is leaving. */
static void publish_oldest(struct rpc_intake *intake, uint32_t listener)
{
    const struct connection *oldest = intake->active[listener].first;
    atomic_store_explicit(&intake->slot->oldest_us[listener],
        oldest == NULL ? 0 : oldest->handed_at_us, memory_order_relaxed);
}

static void end_connection(struct connection *connection)
{
    struct rpc_intake *intake = connection->intake;
    if (connection->core_fd >= 0) {
        remove_connection(&intake->waiting, connection);
        if (!connection->is_returned)
            settle(intake, connection->number, false);
    } else {
        remove_connection(&intake->active[connection->listener], connection);
        publish_oldest(intake, connection->listener);
    }
    /* Out of the epoll set before it is closed: the C core's duplicate keeps the socket open, and
     * with it the entry. */
    (void)sd_event_source_disable_unref(connection->source);
    rpc_watch_remove(connection->entry);
    fd_close(&connection->watch_fd);
    fd_close(&connection->core_fd);
    if (connection->peer != NULL) {
        rpc_reader_end(connection->peer);
        rpc_peer_close(connection->peer);
    }
    count_closed(intake, connection->listener);
    free(connection);
    intake->count--;
    if (intake->count == 0 && intake->handlers->on_empty != NULL)
        intake->handlers->on_empty(intake->userdata);
}

/* ---- the first bytes ---- */

/* Whether to go on waiting: the beginning of the preface is there, but not all of it. Anything
 * else, a wrong beginning too, is for the C core to judge. */
enum first_bytes { FIRST_BYTES_WAIT, FIRST_BYTES_READY, FIRST_BYTES_END };

static enum first_bytes look_at_first_bytes(int fd)
{
    char bytes[FIRST_BYTES];
    ssize_t length = recv(fd, bytes, sizeof(bytes), MSG_PEEK | MSG_DONTWAIT);
    if (length == 0)
        return FIRST_BYTES_END;
    if (length < 0)
        return errno == EAGAIN || errno == EINTR ? FIRST_BYTES_WAIT : FIRST_BYTES_END;
    size_t compared = (size_t)length < PREFACE_BYTES ? (size_t)length : PREFACE_BYTES;
    if ((size_t)length == FIRST_BYTES || memcmp(bytes, preface, compared) != 0)
        return FIRST_BYTES_READY;
    return FIRST_BYTES_WAIT;
}

/* From here on only the end is watched for. The master hears of it first: once the C core has read
 * of the connection nobody else can go on with it. */
static void hand_over(struct connection *connection)
{
    struct rpc_intake *intake = connection->intake;
    int error = sd_event_source_set_io_events(connection->source, EPOLLRDHUP | EPOLLET);
    if (error < 0) {
        log_warn("connection refused reason=epoll error=%d", -error);
        end_connection(connection);
        return;
    }
    remove_connection(&intake->waiting, connection);
    append_connection(&intake->active[connection->listener], connection);
    connection->handed_at_us = monotonic_clock_us();
    publish_oldest(intake, connection->listener);
    settle(intake, connection->number, false);
    connection->peer = intake->handlers->on_ready(
        connection->listener, fd_take(&connection->core_fd), intake->userdata);
    connection->entry = rpc_watch_add(intake->watch, connection->watch_fd, connection->peer);
}

static int on_connection_event(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct connection *connection = userdata;
    (void)source;
    if ((revents & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
        end_connection(connection);
        return 0;
    }
    if (connection->core_fd < 0)
        return 0;
    switch (look_at_first_bytes(fd)) {
    case FIRST_BYTES_WAIT:
        break;
    case FIRST_BYTES_READY:
        hand_over(connection);
        break;
    case FIRST_BYTES_END:
        end_connection(connection);
        break;
    }
    return 0;
}

/* ---- the time limit ---- */

static void arm_timer(struct rpc_intake *intake)
{
    int enabled = SD_EVENT_OFF;
    (void)sd_event_source_get_enabled(intake->timer, &enabled);
    if (intake->waiting.first == NULL || enabled != SD_EVENT_OFF)
        return; /* when it fires for one that is long gone it looks for the next */
    int error = sd_event_source_set_time(intake->timer, intake->waiting.first->deadline_us);
    if (error >= 0)
        error = sd_event_source_set_enabled(intake->timer, SD_EVENT_ONESHOT);
    if (error < 0)
        log_error("timer failed where=rpc_intake error=%d", -error);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct rpc_intake *intake = userdata;
    (void)source;
    (void)usec;
    uint64_t now = monotonic_clock_us();
    while (intake->waiting.first != NULL && intake->waiting.first->deadline_us <= now) {
        unsigned int suppressed = 0;
        if (log_limit_allows(&intake->log_limit, LINES_PER_SECOND, &suppressed))
            log_warn("connection closed reason=silent listener=%u suppressed=%u",
                intake->waiting.first->listener, suppressed);
        end_connection(intake->waiting.first);
    }
    arm_timer(intake);
    return 0;
}

/* ---- the way in ---- */

static int prepare_socket(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return -errno;
    /* Fails on a Unix socket, which has no such delay. */
    const int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return 0;
}

/* Watches the descriptor; on success *fd is taken. NULL with *ret_error. */
static struct connection *watch_connection(
    struct rpc_intake *intake, uint32_t listener, int *fd, int *ret_error)
{
    *ret_error = prepare_socket(*fd);
    if (*ret_error < 0)
        return NULL;
    int watch_fd CLEANUP(fd_close) = fcntl(*fd, F_DUPFD_CLOEXEC, 0);
    if (watch_fd < 0) {
        *ret_error = -errno;
        return NULL;
    }
    struct connection *connection = calloc(1, sizeof(*connection));
    if (connection == NULL) {
        *ret_error = -ENOMEM;
        return NULL;
    }
    *ret_error = sd_event_add_io(intake->event, &connection->source, watch_fd,
        EPOLLIN | EPOLLRDHUP | EPOLLET, on_connection_event, connection);
    if (*ret_error < 0) {
        free(connection);
        return NULL;
    }
    connection->intake = intake;
    connection->watch_fd = fd_take(&watch_fd);
    connection->core_fd = fd_take(fd);
    connection->listener = listener;
    connection->deadline_us = monotonic_clock_us() + intake->timeout_us;
    append_connection(&intake->waiting, connection);
    intake->count++;
    return connection;
}

static void log_refusal(struct rpc_intake *intake, uint32_t listener, const char *reason, int error)
{
    unsigned int suppressed = 0;
    if (log_limit_allows(&intake->log_limit, LINES_PER_SECOND, &suppressed))
        log_warn("connection refused reason=%s listener=%u error=%d suppressed=%u", reason,
            listener, -error, suppressed);
}

static struct connection *make_connection(struct rpc_intake *intake, uint32_t listener, int *fd)
{
    if (intake->is_draining)
        return NULL;
    if (*fd < 0) {
        log_refusal(intake, listener, "descriptor_limit", -EMFILE);
        return NULL;
    }
    if (intake->count >= intake->limit) {
        log_refusal(intake, listener, "limit", 0);
        return NULL;
    }
    int error = 0;
    struct connection *connection = watch_connection(intake, listener, fd, &error);
    if (connection == NULL)
        log_refusal(intake, listener, "no_resources", error);
    return connection;
}

void rpc_intake_add(struct rpc_intake *intake, uint32_t listener, uint64_t number, int *fd)
{
    assert(listener < SETTINGS_MAX_LISTENERS);
    struct connection *connection = make_connection(intake, listener, fd);
    if (connection == NULL) {
        fd_close(fd);
        count_closed(intake, listener);
        settle(intake, number, true); /* nothing of it was read: another worker may have room */
        return;
    }
    connection->number = number;
    /* Mostly the preface came with the connection: no need to go round the loop for it. */
    if (look_at_first_bytes(connection->watch_fd) == FIRST_BYTES_READY)
        hand_over(connection);
    else
        arm_timer(intake);
}

/* With its own descriptors closed here, the master's is the only one left. */
static void return_connection(struct connection *connection)
{
    struct rpc_intake *intake = connection->intake;
    uint64_t number = connection->number;
    connection->is_returned = true;
    end_connection(connection);
    settle(intake, number, true);
}

void rpc_intake_drain(struct rpc_intake *intake, bool is_stop)
{
    intake->is_draining = true;
    while (intake->waiting.first != NULL) {
        if (is_stop)
            hand_over(intake->waiting.first);
        else
            return_connection(intake->waiting.first);
    }
}

bool rpc_intake_is_quiet(const struct rpc_intake *intake, unsigned int quiet_ms)
{
    for (size_t i = 0; i < SETTINGS_MAX_LISTENERS; i++) {
        for (const struct connection *connection = intake->active[i].first; connection != NULL;
             connection = connection->next) {
            struct tcp_info info;
            socklen_t length = sizeof(info);
            if (getsockopt(connection->watch_fd, IPPROTO_TCP, TCP_INFO, &info, &length) == 0 &&
                info.tcpi_last_data_recv < quiet_ms)
                return false;
        }
    }
    return true;
}

void rpc_intake_set_shortage(struct rpc_intake *intake, const _Atomic uint64_t *short_at_us)
{
    rpc_watch_set_shortage(intake->watch, short_at_us);
}

size_t rpc_intake_count(const struct rpc_intake *intake)
{
    return intake->count;
}

struct rpc_intake *rpc_intake_free(struct rpc_intake *intake)
{
    static const struct rpc_intake_handlers nobody = {0};
    if (intake == NULL)
        return NULL;
    intake->handlers = &nobody;
    while (intake->waiting.first != NULL)
        end_connection(intake->waiting.first);
    for (size_t i = 0; i < SETTINGS_MAX_LISTENERS; i++)
        while (intake->active[i].first != NULL)
            end_connection(intake->active[i].first);
    (void)rpc_watch_free(intake->watch);
    (void)sd_event_source_disable_unref(intake->timer);
    (void)sd_event_unref(intake->event);
    free(intake);
    return NULL;
}

/* Never more than there are descriptors for: at that limit all would lack them, database sessions
 * and channels too. */
static size_t connection_limit(const struct settings *settings)
{
    uint64_t configured = (uint64_t)settings->limits.connections;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return configured;
    uint64_t fitting = descriptor_limit_connections(limit.rlim_cur);
    if (fitting >= configured)
        return configured;
    log_warn("connections are limited by descriptors connections=%llu configured=%llu "
             "descriptors=%llu wanted=%llu",
        (unsigned long long)fitting, (unsigned long long)configured,
        (unsigned long long)limit.rlim_cur, (unsigned long long)descriptor_limit_for(configured));
    return fitting;
}

int rpc_intake_new(sd_event *event, const struct settings *settings, struct scoreboard_slot *slot,
    const struct rpc_intake_handlers *handlers, void *userdata, struct rpc_intake **ret_intake)
{
    struct rpc_intake *intake = calloc(1, sizeof(*intake));
    if (intake == NULL)
        return -ENOMEM;
    intake->event = sd_event_ref(event);
    intake->slot = slot;
    intake->handlers = handlers;
    intake->userdata = userdata;
    intake->limit = connection_limit(settings);
    intake->timeout_us = (uint64_t)settings->limits.handshake_timeout_ms * 1000;
    int error = sd_event_add_time(
        event, &intake->timer, CLOCK_MONOTONIC, 0, TIMER_ACCURACY_US, on_timer, intake);
    if (error >= 0)
        error = sd_event_source_set_enabled(intake->timer, SD_EVENT_OFF);
    if (error >= 0)
        error = rpc_watch_new(settings, slot, &intake->watch);
    if (error < 0) {
        (void)rpc_intake_free(intake);
        return error;
    }
    *ret_intake = intake;
    return 0;
}
