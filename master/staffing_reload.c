/* The next generation: started beside the one that serves, judged, and put in force or sent away.
 *
 * Probation ends when every new worker is READY and does not serve worse than those that it
 * replaces: where the old ones reach the database the new ones must as well. A configuration with a
 * slip in database.url is so refused, while a reload that is the cure for a database that is away
 * for everybody goes through.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "common/monotonic_clock.h"
#include "common/settings_transfer.h"
#include "master/kafka_files.h"
#include "master/staffing_private.h"

#define REASON_SIZE         160
#define PROBATION_US        UINT64_C(10000000)
#define PROBATION_LOOK_US   UINT64_C(50000)
#define UNFIT_REASON        "the new workers do not reach the database, and the old ones do"
#define NO_PROGRAM_REASON   "the new worker's program cannot be run: the log says why"
#define NO_PROBATION_REASON "there is no memory to put the new workers on probation"

bool staffing_is_next(const struct staffing *staffing, uint32_t generation)
{
    return staffing->state == LIFECYCLE_RELOADING && generation == staffing->generation + 1;
}

void staffing_reload_forget(struct staffing *staffing)
{
    staffing->probation = sd_event_source_disable_unref(staffing->probation);
    settings_cleanup(&staffing->next_settings);
    listener_set_abandon(&staffing->next_listeners);
}

/* ---- commit ---- */

/* Without a difference in what it would read there is no use in a new one, and events would stand
 * still while the partitions change hands. */
static bool can_keep_eventd(const struct staffing *staffing)
{
    bool is_same = false;
    int result = settings_transfer_is_same(
        &staffing->settings, &staffing->next_settings, SETTING_FOR_EVENTD, &is_same);
    return result == 0 && is_same &&
           child_table_runs_present_program(staffing->children, SCOREBOARD_SLOT_EVENTD) &&
           child_table_has_read(staffing->children, SCOREBOARD_SLOT_EVENTD,
               kafka_files_fingerprint(&staffing->next_settings));
}

/* Its end starts the new one; a respawn that waits is the new one already. */
static void settle_eventd(struct staffing *staffing, bool is_kept)
{
    struct post *post = &staffing->posts[SCOREBOARD_SLOT_EVENTD];
    post->generation = staffing->generation;
    log_info("eventd %s", is_kept ? "stays reason=\"nothing of its own has changed\"" : "replaced");
    if (!is_kept)
        staffing_drain_slot(staffing, post->slot);
}

static void put_settings_in_force(struct staffing *staffing)
{
    settings_cleanup(&staffing->settings);
    staffing->settings = staffing->next_settings;
    staffing->next_settings = (struct settings){0};
    liveness_set_timeout(
        staffing->liveness, (unsigned int)staffing->settings.supervision.hang_timeout_ms);
    int result = connection_dispatch_set_limits(staffing->dispatch, &staffing->settings);
    if (result < 0)
        log_warn("limits not raised in full error=\"%s\"", strerror(-result));
}

/* All workers of the new generation are READY: from here on it is the one in force. */
static void commit(struct staffing *staffing)
{
    bool keeps_eventd = can_keep_eventd(staffing);
    uint32_t old_generation = staffing->generation;
    staffing->probation = sd_event_source_disable_unref(staffing->probation);
    staffing->generation = old_generation + 1;
    put_settings_in_force(staffing);
    connection_dispatch_pause(staffing->dispatch);
    listener_set_commit(staffing->options.listeners, &staffing->next_listeners);
    int result = connection_dispatch_resume(staffing->dispatch, staffing->generation);
    if (result < 0) /* without memory for a handful of sources there is none for a connection */
        log_error("listeners not served error=\"%s\"", strerror(-result));
    for (uint32_t slot = STAFFING_FIRST_WORKER; slot < SCOREBOARD_SLOTS; slot++) {
        if (staffing->posts[slot].generation != old_generation)
            continue;
        staffing_clear_post(&staffing->posts[slot]);
        staffing_drain_slot(staffing, slot);
    }
    settle_eventd(staffing, keeps_eventd);
    staffing->handlers->on_reloaded(NULL, staffing->userdata);
}

/* ---- abort ---- */

static void abort_reload(struct staffing *staffing, uint32_t slot, const char *reason)
{
    log_error(
        "reload failed, the old configuration stays in force slot=%u reason=\"%s\"", slot, reason);
    uint32_t next_generation = staffing->generation + 1;
    for (uint32_t i = 0; i < SCOREBOARD_SLOTS; i++) {
        if (staffing->posts[i].generation != next_generation)
            continue;
        staffing_clear_post(&staffing->posts[i]);
        child_table_kill(staffing->children, i); /* nobody was connected to it yet */
    }
    staffing_reload_forget(staffing);
    staffing->handlers->on_reloaded(reason, staffing->userdata);
}

void staffing_reload_fail(struct staffing *staffing, uint32_t slot, const char *reason)
{
    if (staffing_take(staffing, LIFECYCLE_NEXT_FAILED) == LIFECYCLE_ABORT)
        abort_reload(staffing, slot, reason);
}

void staffing_reload_fail_by_end(
    struct staffing *staffing, uint32_t slot, const struct child_end *end)
{
    char reason[REASON_SIZE];
    const char *phase =
        end->ready_life_us == RESPAWN_LIFE_NEVER_READY ? "it was ready" : "it was let in";
    if (end->exit_status >= 0)
        (void)snprintf(reason, sizeof(reason),
            "a new worker ended before %s, pid %d with status %d: the log says why", phase,
            (int)end->pid, end->exit_status);
    else
        (void)snprintf(reason, sizeof(reason),
            "a new worker was killed before %s, pid %d: the log says why", phase, (int)end->pid);
    staffing_reload_fail(staffing, slot, reason);
}

/* ---- probation ---- */

static bool reaches_database(const struct staffing *staffing, uint32_t slot)
{
    const struct scoreboard_slot *own = &staffing->options.scoreboard->slots[slot];
    return atomic_load_explicit(&own->is_database_ready, memory_order_relaxed) != 0;
}

/* -1: every new worker serves as well as an old one does. Otherwise the slot of one that does not.
 */
static int find_unfit(const struct staffing *staffing)
{
    bool does_an_old_one = false;
    int unfit = -1;
    for (uint32_t slot = STAFFING_FIRST_WORKER; slot < SCOREBOARD_SLOTS; slot++) {
        uint32_t generation = staffing->posts[slot].generation;
        if (generation == staffing->generation)
            does_an_old_one |= reaches_database(staffing, slot);
        else if (generation != 0 && !reaches_database(staffing, slot))
            unfit = (int)slot;
    }
    return does_an_old_one ? unfit : -1;
}

/* 0: decided. */
static int judge(struct staffing *staffing)
{
    int unfit = find_unfit(staffing);
    if (unfit < 0) {
        if (staffing_take(staffing, LIFECYCLE_NEXT_READY) == LIFECYCLE_COMMIT)
            commit(staffing);
        return 0;
    }
    if (monotonic_clock_us() < staffing->probation_end_us)
        return -EAGAIN;
    if (staffing_take(staffing, LIFECYCLE_TIME_OVER) == LIFECYCLE_ABORT)
        abort_reload(staffing, (uint32_t)unfit, UNFIT_REASON);
    return 0;
}

static int on_probation(sd_event_source *source, uint64_t time_us, void *userdata)
{
    struct staffing *staffing = userdata;
    (void)time_us;
    if (judge(staffing) == 0)
        return 0;
    int result = sd_event_source_set_time_relative(source, PROBATION_LOOK_US);
    if (result >= 0)
        result = sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
    return result;
}

void staffing_reload_on_ready(struct staffing *staffing)
{
    if (!staffing_is_all_ready(staffing, staffing->generation + 1))
        return;
    staffing->probation_end_us = monotonic_clock_us() + PROBATION_US;
    if (judge(staffing) == 0)
        return;
    int result = sd_event_add_time_relative(staffing->options.event, &staffing->probation,
        CLOCK_MONOTONIC, PROBATION_LOOK_US, STAFFING_TIMER_ACCURACY_US, on_probation, staffing);
    if (result < 0)
        staffing_reload_fail(staffing, STAFFING_FIRST_WORKER, NO_PROBATION_REASON);
}

/* ---- begin ---- */

/* A slot is free when nobody lives in it and nobody is wanted there. -1: none. */
static int find_free_slot(const struct staffing *staffing)
{
    for (uint32_t slot = STAFFING_FIRST_WORKER; slot < SCOREBOARD_SLOTS; slot++)
        if (staffing->posts[slot].generation == 0 &&
            child_table_state(staffing->children, slot) == PROCESS_ABSENT)
            return (int)slot;
    return -1;
}

int staffing_reload(
    struct staffing *staffing, struct settings *settings, struct listener_change *listeners)
{
    uint32_t next_generation = staffing->generation + 1;
    unsigned int workers = settings_worker_count(settings);
    uint32_t slots[SETTINGS_MAX_WORKERS];
    for (unsigned int i = 0; i < workers; i++) {
        int slot = find_free_slot(staffing);
        if (slot < 0) {
            while (i-- > 0)
                staffing_clear_post(&staffing->posts[slots[i]]);
            return -ENOSPC;
        }
        slots[i] = (uint32_t)slot;
        staffing->posts[slot].generation = next_generation;
    }
    staffing->next_settings = *settings;
    staffing->next_listeners = *listeners;
    *settings = (struct settings){0};
    *listeners = (struct listener_change){0};
    for (unsigned int i = 0; i < workers && staffing->state == LIFECYCLE_RELOADING; i++) {
        int result = child_table_start(
            staffing->children, slots[i], next_generation, &staffing->next_settings);
        if (result < 0)
            staffing_reload_fail(staffing, slots[i], NO_PROGRAM_REASON);
    }
    return 0;
}
