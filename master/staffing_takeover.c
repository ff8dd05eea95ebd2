/* The posts and the children on their way from one program to the next. Sources of the loop do not
 * survive an exec: what they were waiting for is written down, and armed anew on the other side. */
#include <errno.h>

#include "common/monotonic_clock.h"
#include "master/handover.h"
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
    if (result == 0)
        result = connection_dispatch_resume(staffing->dispatch, staffing->generation);
    return result;
}
