#include "common/process_link.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

#include "common/attributes.h"
#include "common/crash_report.h"
#include "common/file_descriptor.h"
#include "common/log.h"
#include "common/monotonic_clock.h"
#include "common/process_protocol.h"
#include "common/settings_transfer.h"

#define START_TIMEOUT_MS 10000
#define SIGTERM_DRAIN_TIMEOUT_MS \
    30000 /* when someone signals the child itself: the master's word is not known */
#define PROCESS_NAME_SIZE     32
#define HEARTBEAT_INTERVAL_US UINT64_C(1000000)
#define HEARTBEAT_ACCURACY_US 50000

static void start_drain(struct process_link *link)
{
    atomic_store_explicit(&link->slot->state, PROCESS_DRAINING, memory_order_relaxed);
    link->has_begun_drain = true;
    if (link->handlers->on_drain != NULL)
        link->handlers->on_drain(link, link->drain_timeout_ms, link->userdata);
    else
        process_link_exit(link, EX_OK);
}

/* The whole service stops: before, with or after the order to drain. */
static void note_stop(struct process_link *link)
{
    bool is_news = !link->is_stop;
    link->is_stop = true;
    if (is_news && link->has_begun_drain && link->handlers->on_stop != NULL)
        link->handlers->on_stop(link, link->userdata);
}

static int on_early_drain(sd_event_source *source, void *userdata)
{
    (void)source;
    start_drain(userdata);
    return 0;
}

static void drain(struct process_link *link, unsigned int timeout_ms)
{
    if (link->is_draining)
        return;
    link->is_draining = true;
    link->drain_timeout_ms = timeout_ms;
    if (link->slot == NULL)
        return; /* a signal before Start: await_start() sees it */
    if (link->is_running || link->handlers->on_drain == NULL) {
        start_drain(link);
        return;
    }
    /* The handler needs a whole process: process_link_run() will meet this source first. */
    if (sd_event_add_defer(link->event, &link->early_drain, on_early_drain, link) < 0 ||
        sd_event_source_set_enabled(link->early_drain, SD_EVENT_OFF) < 0)
        process_link_exit(link, EX_OSERR);
}

static int on_start(struct process_link *link, const Userd__Ipc__Start *start)
{
    if (link->slot != NULL || start->slot >= SCOREBOARD_SLOTS)
        return -EPROTO; /* a second Start, or no slot of the board */
    int result = settings_transfer_unpack(start, &link->settings);
    if (result < 0)
        return result;
    link->slot_number = start->slot;
    link->master_protocol = start->protocol;
    link->generation = start->generation;
    link->slot = &link->scoreboard->slots[start->slot];
    return 0;
}

/* Without a free descriptor in this process the frame is as good as ever: who handles it settles
 * what is lost. */
static bool has_descriptor(int fd)
{
    return fd >= 0 || fd == IPC_FD_CUT_OFF;
}

static int on_frame(
    struct ipc_channel *channel, const Userd__Ipc__Frame *frame, int *fd, void *userdata)
{
    struct process_link *link = userdata;
    (void)channel;
    if (frame->body_case == USERD__IPC__FRAME__BODY_START)
        return on_start(link, frame->start);
    if (link->slot == NULL)
        return -EPROTO; /* Start comes first */
    switch ((int)frame->body_case) {
    case USERD__IPC__FRAME__BODY_CONNECTION:
        if (link->handlers->on_connection == NULL || !has_descriptor(*fd) ||
            frame->connection->listener >= link->settings.listener_count)
            return -EPROTO;
        link->handlers->on_connection(
            link, frame->connection->listener, frame->connection->number, fd, link->userdata);
        return 0;
    case USERD__IPC__FRAME__BODY_PEER_LINK:
        if (link->handlers->on_peer_link == NULL || !has_descriptor(*fd) ||
            frame->peer_link->slot >= SCOREBOARD_SLOTS)
            return -EPROTO;
        /* Nobody could ask for another: a new process gets one. */
        if (*fd == IPC_FD_CUT_OFF && link->master_protocol < PROCESS_PROTOCOL_PEER_REQUEST)
            return -EPROTO;
        link->peer_link_number = frame->peer_link->number;
        link->handlers->on_peer_link(link, frame->peer_link->slot, fd, link->userdata);
        return 0;
    case USERD__IPC__FRAME__BODY_ADDRESS_BAN:
        if (link->handlers->on_address_ban == NULL)
            return -EPROTO;
        link->handlers->on_address_ban(
            link, frame->address_ban->address, frame->address_ban->duration_ms, link->userdata);
        return 0;
    case USERD__IPC__FRAME__BODY_DRAIN:
        if (frame->drain->is_stop)
            note_stop(link);
        drain(link, frame->drain->timeout_ms);
        return 0;
    default:
        return -EPROTO; /* the rest is said between workers and eventd */
    }
}

static void on_closed(struct ipc_channel *channel, int error, void *userdata)
{
    struct process_link *link = userdata;
    (void)channel;
    (void)error;
    /* without a master nobody would restart, reload or count us */
    log_warn("leaving reason=\"the master has gone\"");
    process_link_exit(link, EX_UNAVAILABLE);
}

static const struct ipc_channel_handlers control_handlers = {
    .on_frame = on_frame, .on_closed = on_closed};

static int on_sigterm(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
    struct process_link *link = userdata;
    (void)source;
    log_info("draining reason=\"SIGTERM\" sender_pid=%u", info->ssi_pid);
    drain(link, SIGTERM_DRAIN_TIMEOUT_MS);
    return 0;
}

static int set_up_signals(struct process_link *link)
{
    sigset_t blocked;
    (void)sigemptyset(&blocked);
    (void)sigaddset(&blocked, SIGTERM);
    if (sigprocmask(SIG_BLOCK, &blocked, NULL) != 0)
        return -errno;
    static const int ignored[] = {SIGINT, SIGHUP, SIGUSR2, SIGPIPE};
    for (size_t i = 0; i < ARRAY_LENGTH(ignored); i++)
        (void)signal(ignored[i], SIG_IGN);
    crash_report_install();
    return sd_event_add_signal(link->event, NULL, SIGTERM, on_sigterm, link);
}

/* Runs the loop until Start has been read, and no longer. */
static int await_start(struct process_link *link)
{
    uint64_t now_us = 0;
    int result = sd_event_now(link->event, CLOCK_MONOTONIC, &now_us);
    uint64_t deadline_us = now_us + UINT64_C(1000) * START_TIMEOUT_MS;
    while (result >= 0 && link->slot == NULL && ipc_channel_is_open(link->control)) {
        if (link->is_draining) /* by a signal: there is nothing yet that could be finished */
            return -ECANCELED;
        if (now_us >= deadline_us)
            return -ETIMEDOUT;
        result = sd_event_run(link->event, deadline_us - now_us);
        if (result >= 0)
            result = sd_event_now(link->event, CLOCK_MONOTONIC, &now_us);
    }
    if (result < 0)
        return result;
    if (link->slot == NULL && link->is_draining)
        return -ECANCELED;
    return link->slot == NULL ? -EPROTO : 0;
}

static int on_heartbeat(sd_event_source *source, uint64_t time_us, void *userdata)
{
    struct process_link *link = userdata;
    (void)time_us;
    uint64_t now_us = 0;
    int result = sd_event_now(link->event, CLOCK_MONOTONIC, &now_us);
    if (result < 0)
        return result;
    atomic_store_explicit(&link->slot->heartbeat_us, now_us, memory_order_relaxed);
    result = sd_event_source_set_time(source, now_us + HEARTBEAT_INTERVAL_US);
    if (result >= 0)
        result = sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
    return result;
}

static int check_inherited(int fd, int expected_type)
{
    int type = 0;
    socklen_t length = sizeof(type);
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) != 0)
        return -errno;
    return type == expected_type ? 0 : -EPROTOTYPE;
}

static int open_link(struct process_link *link)
{
    int result = check_inherited(PROCESS_FD_CONTROL, SOCK_SEQPACKET);
    if (result < 0)
        return result;
    result = scoreboard_open(PROCESS_FD_SCOREBOARD, &link->scoreboard);
    if (result < 0)
        return result;
    (void)close(PROCESS_FD_SCOREBOARD); /* the map stays */
    result = sd_event_default(&link->event);
    if (result < 0)
        return result;
    result = set_up_signals(link);
    if (result < 0)
        return result;
    result = ipc_channel_new(
        link->event, PROCESS_FD_CONTROL, "master", &control_handlers, link, &link->control);
    if (result < 0)
        return result;
    result = await_start(link);
    if (result < 0)
        return result;
    return sd_event_add_time_relative(link->event, &link->heartbeat, CLOCK_MONOTONIC, 0,
        HEARTBEAT_ACCURACY_US, on_heartbeat, link);
}

int process_link_open(struct process_link *link, const char *role,
    const struct process_link_handlers *handlers, void *userdata)
{
    bool is_worker = strcmp(role, PROCESS_ROLE_WORKER) == 0;
    *link = (struct process_link){.handlers = handlers,
        .userdata = userdata,
        .outbox_wake_fd = is_worker ? PROCESS_FD_OUTBOX_WAKE : -1};
    log_init(role);
    int result = open_link(link);
    if (result == -ECANCELED) {
        log_info("leaving reason=\"SIGTERM before the start\" role=%s", role);
        process_link_close(link);
        return result;
    }
    if (result < 0) {
        log_error("cannot start role=%s error=\"%s\" expected=\"to be started by userd\"", role,
            strerror(-result));
        process_link_close(link);
        return result;
    }
    char name[PROCESS_NAME_SIZE];
    (void)snprintf(name, sizeof(name), "%s-%u", role, link->slot_number);
    log_init(is_worker ? name : role);
    log_configure(
        (enum log_level)link->settings.log.level, (enum log_format)link->settings.log.format);
    atomic_store_explicit(&link->slot->generation, link->generation, memory_order_relaxed);
    atomic_store_explicit(&link->slot->state, PROCESS_STARTING, memory_order_relaxed);
    atomic_store_explicit(&link->slot->pid, (uint32_t)getpid(), memory_order_relaxed);
    return 0;
}

int process_link_send(struct process_link *link, const Userd__Ipc__Frame *frame)
{
    return ipc_channel_send(link->control, frame, -1);
}

int process_link_ready(struct process_link *link)
{
    Userd__Ipc__Ready ready = USERD__IPC__READY__INIT;
    Userd__Ipc__Frame frame = USERD__IPC__FRAME__INIT;
    frame.body_case = USERD__IPC__FRAME__BODY_READY;
    frame.ready = &ready;
    atomic_store_explicit(&link->slot->state, PROCESS_READY, memory_order_relaxed);
    return process_link_send(link, &frame);
}

int process_link_answer_connection(struct process_link *link, uint64_t number, bool is_returned)
{
    Userd__Ipc__ConnectionAnswer answer = USERD__IPC__CONNECTION_ANSWER__INIT;
    answer.number = number;
    /* An older master would pass it to us again and again. */
    bool can_return = link->is_draining || link->master_protocol >= PROCESS_PROTOCOL_RETURNS;
    answer.is_returned = is_returned && can_return;
    Userd__Ipc__Frame frame = USERD__IPC__FRAME__INIT;
    frame.body_case = USERD__IPC__FRAME__BODY_CONNECTION_ANSWER;
    frame.connection_answer = &answer;
    return process_link_send(link, &frame);
}

int process_link_ask_for_peer(struct process_link *link, uint32_t slot)
{
    if (link->master_protocol < PROCESS_PROTOCOL_PEER_REQUEST)
        return -EOPNOTSUPP;
    Userd__Ipc__PeerRequest request = USERD__IPC__PEER_REQUEST__INIT;
    request.slot = slot;
    request.number = link->peer_link_number;
    Userd__Ipc__Frame frame = USERD__IPC__FRAME__INIT;
    frame.body_case = USERD__IPC__FRAME__BODY_PEER_REQUEST;
    frame.peer_request = &request;
    return process_link_send(link, &frame);
}

int process_link_report_offence(struct process_link *link, uint64_t address, const char *reason)
{
    if (link->master_protocol < PROCESS_PROTOCOL_OFFENCE)
        return -EOPNOTSUPP;
    Userd__Ipc__Offence offence;
    userd__ipc__offence__init(&offence); /* the initialiser for constants drops a const: clang */
    union {
        const char *text;
        char *reason; /* protobuf-c's type is not const; packing only reads */
    } word = {.text = reason};
    offence.address = address;
    offence.reason = word.reason;
    Userd__Ipc__Frame frame = USERD__IPC__FRAME__INIT;
    frame.body_case = USERD__IPC__FRAME__BODY_OFFENCE;
    frame.offence = &offence;
    return process_link_send(link, &frame);
}

/* Looks for a while before it sleeps (busy_poll_us), giving way to who wants the core. As
 * sd_event_run(). */
static int run_turn(struct process_link *link)
{
    uint64_t limit_us = (uint64_t)link->settings.busy_poll_us;
    uint64_t start_us = limit_us > 0 ? monotonic_clock_us() : 0;
    while (limit_us > 0 && monotonic_clock_us() - start_us < limit_us) {
        int result = sd_event_run(link->event, 0);
        if (result != 0)
            return result;
        (void)sched_yield();
    }
    return sd_event_run(link->event, UINT64_MAX);
}

static int run_loop(struct process_link *link)
{
    int status = 0;
    while (status >= 0 && sd_event_get_state(link->event) != SD_EVENT_FINISHED)
        status = run_turn(link);
    if (status >= 0)
        (void)sd_event_get_exit_code(link->event, &status);
    return status;
}

int process_link_run(struct process_link *link)
{
    link->is_running = true;
    if (link->early_drain != NULL)
        (void)sd_event_source_set_enabled(link->early_drain, SD_EVENT_ONESHOT);
    int status = run_loop(link);
    if (status < 0)
        log_error("event loop failed error=\"%s\"", strerror(-status));
    return status < 0 ? EX_SOFTWARE : status;
}

void process_link_exit(struct process_link *link, int status)
{
    (void)sd_event_exit(link->event, status);
}

void process_link_close(struct process_link *link)
{
    link->early_drain = sd_event_source_disable_unref(link->early_drain);
    link->heartbeat = sd_event_source_disable_unref(link->heartbeat);
    link->control = ipc_channel_free(link->control);
    fd_close(&link->outbox_wake_fd);
    settings_cleanup(&link->settings);
    scoreboard_close(link->scoreboard);
    link->scoreboard = NULL;
    link->slot = NULL;
    link->event = sd_event_unref(link->event);
}
