/* The posts and the children on their way from one program to the next. Sources of the loop do not
 * survive an exec: what they were waiting for is written down, and armed anew on the other side. */
#include <errno.h>
#include <string.h>

#include "common/file_descriptor.h"
#include "common/log.h"
#include "common/monotonic_clock.h"
#include "master/handover.h"
#include "master/passed_connections.h"
#include "master/staffing_private.h"

static void save_post(const struct post *post, Userd__Handover__Post *ret_saved)
{
    ret_saved->slot = post->slot;
    ret_saved->generation = post->generation;
    ret_saved->was_ready = post->was_ready;
    ret_saved->failures = post->record.failures;
    ret_saved->respawn_at_us = 0;
    if (post->respawn != NULL)
        (void)sd_event_source_get_time(post->respawn, &ret_saved->respawn_at_us);
}

/* Without room for all, those that are left out end with this program, as they would with a worker
 * that dies: nothing of them was read. */
static void save_passed(const struct staffing *staffing, struct handover *handover)
{
    const struct passed_connections *passed = connection_dispatch_passed(staffing->dispatch);
    handover->state.passed_count = passed_connections_count(passed);
    for (const struct passed_connection *connection = passed_connections_next(passed, NULL);
         connection != NULL; connection = passed_connections_next(passed, connection)) {
        Userd__Handover__Passed *saved = handover_add_passed(handover);
        if (saved == NULL) {
            log_warn("connections are not handed over reason=\"no room\" handed_over=%zu",
                handover->state.n_passed);
            return;
        }
        saved->fd = connection->fd;
        saved->listener = connection->listener;
        saved->slot = connection->slot;
        saved->number = connection->number;
        saved->is_stale = connection->arrangement != staffing->options.listeners->arrangement;
    }
}

int staffing_save(const struct staffing *staffing, struct handover *handover)
{
    Userd__Handover__State *state = &handover->state;
    state->generation = staffing->generation;
    for (uint32_t slot = 0; slot < SCOREBOARD_SLOTS; slot++) {
        if (child_table_queued_bytes(staffing->children, slot) > 0)
            return -EAGAIN;
        if (child_table_save(staffing->children, slot, &handover->children[state->n_children]))
            state->n_children++;
        if (staffing->posts[slot].generation != 0)
            save_post(&staffing->posts[slot], &handover->posts[state->n_posts++]);
    }
    for (size_t role = 0; role < CHILD_ROLE_COUNT; role++) {
        handover->roles[role].role = (uint32_t)role;
        handover->roles[role].was_ever_ready = staffing->roles[role].was_ever_ready;
        handover->roles[role].early_deaths = staffing->roles[role].early_deaths;
    }
    state->n_roles = CHILD_ROLE_COUNT;
    save_passed(staffing, handover);
    return 0;
}

static int take_post(struct staffing *staffing, const Userd__Handover__Post *saved)
{
    if (saved->slot >= SCOREBOARD_SLOTS)
        return -EPROTO;
    struct post *post = &staffing->posts[saved->slot];
    post->generation = saved->generation;
    post->was_ready = saved->was_ready;
    post->record.failures = saved->failures;
    if (saved->respawn_at_us == 0)
        return 0;
    uint64_t now_us = monotonic_clock_us();
    staffing_respawn_in(post, saved->respawn_at_us > now_us ? saved->respawn_at_us - now_us : 0);
    return 0;
}

static int take_role(struct staffing *staffing, const Userd__Handover__Role *saved)
{
    if (saved->role >= CHILD_ROLE_COUNT)
        return -EPROTO;
    staffing->roles[saved->role] = (struct respawn_role){
        .was_ever_ready = saved->was_ever_ready, .early_deaths = saved->early_deaths};
    return 0;
}

/* Takes the descriptor. One that cannot be gone on with is closed. */
static void take_passed(struct staffing *staffing, const Userd__Handover__Passed *saved)
{
    int fd CLEANUP(fd_close) = saved->fd;
    const struct listener_set *listeners = staffing->options.listeners;
    bool has_worker = saved->slot < SCOREBOARD_SLOTS &&
                      child_table_state(staffing->children, saved->slot) != PROCESS_ABSENT;
    const struct passed_connection connection = {
        .fd = fd,
        .listener = saved->listener,
        .arrangement = saved->is_stale ? listeners->arrangement - 1 : listeners->arrangement,
        .slot = has_worker ? saved->slot : PASSED_CONNECTION_NOBODY,
        .number = saved->number,
    };
    int result = saved->listener < listeners->count || saved->is_stale
                     ? passed_connections_restore(
                           connection_dispatch_passed(staffing->dispatch), &connection)
                     : -EPROTO;
    if (result == 0)
        (void)fd_take(&fd);
    else
        log_warn("connection not taken over error=\"%s\"", strerror(-result));
}

int staffing_take_over(struct staffing *staffing, const Userd__Handover__State *state)
{
    int result = 0;
    staffing->state = LIFECYCLE_RUNNING;
    staffing->generation = state->generation;
    for (size_t i = 0; i < state->n_children && result == 0; i++)
        result = child_table_adopt(staffing->children, state->children[i]);
    for (size_t i = 0; i < state->n_roles && result == 0; i++)
        result = take_role(staffing, state->roles[i]);
    for (size_t i = 0; i < state->n_posts && result == 0; i++)
        result = take_post(staffing, state->posts[i]);
    if (state->passed_count != 0)
        passed_connections_set_count(
            connection_dispatch_passed(staffing->dispatch), state->passed_count);
    for (size_t i = 0; i < state->n_passed; i++)
        take_passed(staffing, state->passed[i]);
    if (result == 0)
        result = connection_dispatch_resume(staffing->dispatch, staffing->generation);
    return result;
}
