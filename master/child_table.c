#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "common/file_descriptor.h"
#include "common/log.h"
#include "common/monotonic_clock.h"
#include "common/process_protocol.h"
#include "common/settings_transfer.h"
#include "master/child_process.h"
#include "master/child_program.h"
#include "master/child_table_private.h"
#include "master/kafka_files.h"
#include "master/respawn_policy.h"

#define START_TIMEOUT_MS  60000 /* from exec to READY; the database and Kafka are not waited for */
#define LEAVE_TIMEOUT_MS  1000  /* over the time given by Drain, or after the channel's end */
#define TIMER_ACCURACY_US 10000
#define PEER_NAME_SIZE    32

enum child_role child_table_role(uint32_t slot)
{
    return slot == SCOREBOARD_SLOT_EVENTD ? CHILD_EVENTD : CHILD_WORKER;
}

const char *child_table_role_name(enum child_role role)
{
    return role == CHILD_EVENTD ? PROCESS_ROLE_EVENTD : PROCESS_ROLE_WORKER;
}

static const char *role_name(const struct child *child)
{
    return child_table_role_name(child_table_role(child->slot));
}

static int on_deadline(sd_event_source *source, uint64_t time_us, void *userdata)
{
    (void)source;
    (void)time_us;
    struct child *child = userdata;
    log_warn("child killed role=%s slot=%u pid=%d reason=\"%s\"", role_name(child), child->slot,
        (int)child->pid,
        child->state == PROCESS_STARTING ? "not ready in time" : "did not leave in time");
    child_table_kill(child->table, child->slot);
    return 0;
}

void child_table_set_deadline(struct child *child, uint64_t timeout_ms)
{
    child->deadline = sd_event_source_disable_unref(child->deadline);
    int result = sd_event_add_time_relative(child->table->options.event, &child->deadline,
        CLOCK_MONOTONIC, timeout_ms * 1000, TIMER_ACCURACY_US, on_deadline, child);
    if (result < 0) {
        log_error("child deadline failed slot=%u error=\"%s\"", child->slot, strerror(-result));
        child_table_kill(child->table, child->slot);
    }
}

static int on_frame(
    struct ipc_channel *channel, const Userd__Ipc__Frame *frame, int *fd, void *userdata)
{
    (void)channel;
    (void)fd;
    struct child *child = userdata;
    if (frame->body_case != USERD__IPC__FRAME__BODY_READY)
        return child->table->handlers->on_frame(child->slot, frame, child->table->userdata);
    /* Told to drain while it was starting: READY crossed Drain on the way, and means nothing any
     * more. */
    if (child->state == PROCESS_DRAINING)
        return 0;
    if (child->state != PROCESS_STARTING)
        return -EPROTO;
    child->state = PROCESS_READY;
    child->ready_at_us = monotonic_clock_turn_us(child->table->options.event);
    child->deadline = sd_event_source_disable_unref(child->deadline);
    log_info("child ready role=%s slot=%u pid=%d generation=%u", role_name(child), child->slot,
        (int)child->pid, child->generation);
    child->table->handlers->on_ready(child->slot, child->table->userdata);
    return 0;
}

/* The child is about to end (its contract is to leave when the channel ends), or it spoke nonsense.
 */
static void on_closed(struct ipc_channel *channel, int error, void *userdata)
{
    struct child *child = userdata;
    child->control = ipc_channel_free(channel);
    if (error < 0)
        log_warn("child channel broke role=%s slot=%u pid=%d error=\"%s\"", role_name(child),
            child->slot, (int)child->pid, strerror(-error));
    child->state = PROCESS_DRAINING;
    child_table_set_deadline(child, LEAVE_TIMEOUT_MS);
}

static const struct ipc_channel_handlers channel_handlers = {
    .on_frame = on_frame,
    .on_closed = on_closed,
};

static void log_end(const struct child *child, const siginfo_t *info)
{
    bool has_exited = info->si_code == CLD_EXITED;
    bool is_clean = child->was_asked && has_exited && info->si_status == 0;
    enum log_level level = is_clean ? LOG_LEVEL_INFO : LOG_LEVEL_WARN;
    if (has_exited) {
        log_write(level, "child exited role=%s slot=%u pid=%d status=%d", role_name(child),
            child->slot, (int)child->pid, info->si_status);
        return;
    }
    const char *name = sigabbrev_np(info->si_status);
    log_write(level, "child killed by signal role=%s slot=%u pid=%d signal=%s", role_name(child),
        child->slot, (int)child->pid, name != NULL ? name : "unknown");
}

static void empty_slot(struct child *child)
{
    child->control = ipc_channel_free(child->control);
    child->deadline = sd_event_source_disable_unref(child->deadline);
    child->state = PROCESS_ABSENT;
    child->pid = 0;
    child->ready_at_us = 0;
    child->was_asked = false;
    child->knows_stop = false;
    scoreboard_reset_slot(child->table->options.scoreboard, child->slot);
}

static void bury(struct child *child, const siginfo_t *info)
{
    log_end(child, info);
    struct child_table *table = child->table;
    if (child->control != NULL) /* its last words come before its end */
        ipc_channel_receive_rest(child->control);
    struct child_end end = {
        .pid = child->pid,
        .generation = child->generation,
        .exit_status = info->si_code == CLD_EXITED ? info->si_status : -1,
        .ready_life_us =
            child->ready_at_us == 0
                ? RESPAWN_LIFE_NEVER_READY
                : (int64_t)(monotonic_clock_turn_us(table->options.event) - child->ready_at_us),
        .was_asked = child->was_asked,
    };
    empty_slot(child);
    table->handlers->on_gone(child->slot, &end, table->userdata);
}

static struct child *find_by_pid(struct child_table *table, pid_t pid)
{
    for (uint32_t slot = 0; slot < SCOREBOARD_SLOTS; slot++)
        if (table->children[slot].state != PROCESS_ABSENT && table->children[slot].pid == pid)
            return &table->children[slot];
    return NULL;
}

/* One SIGCHLD may stand for many. Nobody else reaps here, so a pid in the table is never a
 * stranger's. */
static int on_child_signal(
    sd_event_source *source, const struct signalfd_siginfo *signal_info, void *userdata)
{
    (void)source;
    (void)signal_info;
    struct child_table *table = userdata;
    for (;;) {
        siginfo_t info = {0};
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG) < 0 || info.si_pid == 0)
            return 0;
        struct child *child = find_by_pid(table, info.si_pid);
        if (child != NULL)
            bury(child, &info);
        else
            log_debug("orphan reaped pid=%d", (int)info.si_pid);
    }
}

int child_table_new(const struct child_table_options *options,
    const struct child_table_handlers *handlers, void *userdata, struct child_table **ret_table)
{
    struct child_table *table = calloc(1, sizeof(*table));
    if (table == NULL)
        return -ENOMEM;
    table->options = *options;
    table->handlers = handlers;
    table->userdata = userdata;
    for (uint32_t slot = 0; slot < SCOREBOARD_SLOTS; slot++)
        table->children[slot] = (struct child){.table = table, .slot = slot};
    int result =
        sd_event_add_signal(options->event, &table->reaper, SIGCHLD, on_child_signal, table);
    /* before whatever may end this program's life: a signal that was read is gone */
    if (result >= 0)
        result = sd_event_source_set_priority(table->reaper, SD_EVENT_PRIORITY_IMPORTANT);
    if (result < 0) {
        (void)sd_event_source_disable_unref(table->reaper);
        free(table);
        return result;
    }
    *ret_table = table;
    return 0;
}

struct child_table *child_table_free(struct child_table *table)
{
    if (table == NULL)
        return NULL;
    for (uint32_t slot = 0; slot < SCOREBOARD_SLOTS; slot++)
        child_table_kill(table, slot);
    for (uint32_t slot = 0; slot < SCOREBOARD_SLOTS; slot++) {
        struct child *child = &table->children[slot];
        if (child->state == PROCESS_ABSENT)
            continue;
        child_process_kill(child->pid);
        empty_slot(child);
    }
    (void)sd_event_source_disable_unref(table->reaper);
    free(table);
    return NULL;
}

static const char *program_name(uint32_t slot)
{
    return child_table_role(slot) == CHILD_WORKER ? CHILD_PROGRAM_WORKER : CHILD_PROGRAM_EVENTD;
}

static int run_program(struct child *child, int *ret_control_fd)
{
    const struct child_table_options *options = &child->table->options;
    bool is_worker = child_table_role(child->slot) == CHILD_WORKER;
    char worker_name[] = CHILD_PROGRAM_WORKER;
    char eventd_name[] = CHILD_PROGRAM_EVENTD;
    char worker_role[] = PROCESS_ROLE_WORKER;
    char eventd_role[] = PROCESS_ROLE_EVENTD;
    char *const arguments[] = {
        is_worker ? worker_name : eventd_name, is_worker ? worker_role : eventd_role, NULL};
    char *path = NULL;
    int result = child_program_find(program_name(child->slot), &path);
    if (result < 0)
        return result;
    /* before it runs: replaced in between, it counts as an older one than it is, and no harm done
     */
    result = child_program_identify(path, &child->program);
    const struct child_process_plan plan = {
        .program = path,
        .arguments = arguments,
        .scoreboard_fd = options->scoreboard_fd,
        .outbox_wake_fd = is_worker ? options->outbox_wake_fd : -1,
    };
    if (result == 0)
        result = child_process_start(&plan, &child->pid, ret_control_fd);
    if (result < 0)
        log_error("child start failed role=%s slot=%u program=%s error=\"%s\"", role_name(child),
            child->slot, path, strerror(-result));
    free(path);
    return result;
}

static int send_start(struct child *child, const struct settings *settings)
{
    Userd__Ipc__Start *start = NULL;
    enum setting_audience audience =
        child_table_role(child->slot) == CHILD_WORKER ? SETTING_FOR_WORKER : SETTING_FOR_EVENTD;
    int result = settings_transfer_pack(settings, audience, child->slot, child->generation, &start);
    if (result < 0)
        return result;
    Userd__Ipc__Frame frame = USERD__IPC__FRAME__INIT;
    frame.body_case = USERD__IPC__FRAME__BODY_START;
    frame.start = start;
    start->protocol = PROCESS_PROTOCOL;
    result = ipc_channel_send(child->control, &frame, -1);
    settings_transfer_free(start);
    return result;
}

int child_table_open_control(struct child *child, int control_fd)
{
    char peer[PEER_NAME_SIZE];
    (void)snprintf(peer, sizeof(peer), "%s-%u", role_name(child), child->slot);
    return ipc_channel_new(
        child->table->options.event, control_fd, peer, &channel_handlers, child, &child->control);
}

int child_table_start(
    struct child_table *table, uint32_t slot, uint32_t generation, const struct settings *settings)
{
    assert(slot < SCOREBOARD_SLOTS);
    struct child *child = &table->children[slot];
    assert(child->state == PROCESS_ABSENT);

    scoreboard_reset_slot(table->options.scoreboard, slot);
    child->generation = generation;
    /* as the program: replaced in between, they count as older than they are */
    child->files = child_table_role(slot) == CHILD_EVENTD ? kafka_files_fingerprint(settings) : 0;
    int control_fd = -1;
    int result = run_program(child, &control_fd);
    if (result < 0)
        return result;
    child->state = PROCESS_STARTING;
    result = child_table_open_control(child, control_fd);
    if (result == 0)
        result = send_start(child, settings);
    if (result < 0) {
        log_error("child start failed role=%s slot=%u error=\"%s\"", role_name(child), slot,
            strerror(-result));
        child_process_kill(child->pid);
        empty_slot(child);
        return result;
    }
    child_table_set_deadline(child, START_TIMEOUT_MS);
    log_info("child started role=%s slot=%u pid=%d generation=%u", role_name(child), slot,
        (int)child->pid, generation);
    return 0;
}

static int send_drain(const struct child *child, unsigned int timeout_ms)
{
    Userd__Ipc__Drain drain = USERD__IPC__DRAIN__INIT;
    drain.timeout_ms = timeout_ms;
    drain.is_stop = child->knows_stop;
    Userd__Ipc__Frame frame = USERD__IPC__FRAME__INIT;
    frame.body_case = USERD__IPC__FRAME__BODY_DRAIN;
    frame.drain = &drain;
    return ipc_channel_send(child->control, &frame, -1);
}

/* It drains already, and its deadline stays. */
static void tell_stop(struct child *child)
{
    child->knows_stop = true;
    int result = child->control == NULL ? 0 : send_drain(child, 0);
    if (result < 0 && result != -EPIPE) /* it leaves all the same, a few seconds later */
        log_warn("stop not told role=%s slot=%u error=\"%s\"", role_name(child), child->slot,
            strerror(-result));
}

void child_table_drain(
    struct child_table *table, uint32_t slot, unsigned int timeout_ms, bool is_stop)
{
    struct child *child = &table->children[slot];
    if (child->state == PROCESS_ABSENT)
        return;
    if (child->was_asked) {
        if (is_stop && !child->knows_stop)
            tell_stop(child);
        return;
    }
    child->was_asked = true;
    child->knows_stop = is_stop;
    if (child->state == PROCESS_DRAINING) /* its channel has ended: it is leaving */
        return;
    child->state = PROCESS_DRAINING;
    int result = send_drain(child, timeout_ms);
    if (result < 0) {
        log_warn("drain not sent, child killed role=%s slot=%u error=\"%s\"", role_name(child),
            slot, strerror(-result));
        child_table_kill(table, slot);
        return;
    }
    child_table_set_deadline(child, (uint64_t)timeout_ms + LEAVE_TIMEOUT_MS);
}

void child_table_kill(struct child_table *table, uint32_t slot)
{
    const struct child *child = &table->children[slot];
    if (child->state != PROCESS_ABSENT)
        (void)kill(child->pid, SIGKILL);
}

void child_table_abort(struct child_table *table, uint32_t slot)
{
    const struct child *child = &table->children[slot];
    if (child->state != PROCESS_ABSENT)
        (void)kill(child->pid, SIGABRT);
}

int child_table_send(
    struct child_table *table, uint32_t slot, const Userd__Ipc__Frame *frame, int fd)
{
    struct child *child = &table->children[slot];
    if (child->state != PROCESS_READY)
        return -ENOTCONN;
    return ipc_channel_send(child->control, frame, fd);
}

enum process_state child_table_state(const struct child_table *table, uint32_t slot)
{
    return table->children[slot].state;
}

uint32_t child_table_generation(const struct child_table *table, uint32_t slot)
{
    return table->children[slot].generation;
}

size_t child_table_queued_bytes(const struct child_table *table, uint32_t slot)
{
    const struct ipc_channel *control = table->children[slot].control;
    return control == NULL ? 0 : ipc_channel_queued_bytes(control);
}

size_t child_table_living(const struct child_table *table)
{
    size_t living = 0;
    for (uint32_t slot = 0; slot < SCOREBOARD_SLOTS; slot++)
        living += table->children[slot].state != PROCESS_ABSENT ? 1 : 0;
    return living;
}

bool child_table_runs_present_program(const struct child_table *table, uint32_t slot)
{
    const struct child *child = &table->children[slot];
    if (child->state == PROCESS_ABSENT)
        return true; /* whoever comes next will */
    char *path = NULL;
    struct child_program_identity present;
    int result = child_program_find(program_name(slot), &path);
    if (result == 0)
        result = child_program_identify(path, &present);
    free(path);
    return result == 0 && child_program_is_same(&child->program, &present);
}

bool child_table_has_read(const struct child_table *table, uint32_t slot, uint64_t files)
{
    const struct child *child = &table->children[slot];
    return child->state == PROCESS_ABSENT || child->files == files;
}
