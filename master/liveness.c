#include "master/liveness.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/monotonic_clock.h"
#include "master/liveness_policy.h"

#define TIMER_ACCURACY_US 50000
#define ABORT_GRACE_US    UINT64_C(2000000) /* for its stacks and its core */

struct watched {
    uint32_t pid; /* whose pulses these are; 0: nobody's */
    struct liveness_pulse loop;
    struct liveness_pulse rpc;
    bool was_killed;
    uint64_t abort_us; /* how long ago it was told to abort */
};

struct liveness {
    struct child_table *children;
    const struct scoreboard *scoreboard;
    sd_event_source *timer; /* owned */
    uint64_t timeout_us;
    uint64_t last_look_us;
    struct watched watched[SCOREBOARD_SLOTS];
};

static uint64_t get(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* Of a process that hangs: it is one thing when a thread goes round for ever, another when all
 * stand still. */
static const char *silent_threads(
    const struct watched *watched, bool is_worker, uint64_t timeout_us)
{
    bool is_loop_silent = liveness_policy_is_silent_too(&watched->loop, timeout_us);
    bool is_rpc_silent = is_worker && liveness_policy_is_silent_too(&watched->rpc, timeout_us);
    if (is_loop_silent && is_rpc_silent)
        return "both";
    return is_loop_silent ? "loop" : "rpc";
}

static void look_at(struct liveness *liveness, uint32_t number, uint64_t watched_us)
{
    struct watched *watched = &liveness->watched[number];
    const struct scoreboard_slot *slot = &liveness->scoreboard->slots[number];
    uint32_t pid = atomic_load_explicit(&slot->pid, memory_order_relaxed);
    /* who starts or drains has a deadline of its own in the table */
    if (child_table_state(liveness->children, number) != PROCESS_READY || watched->pid != pid) {
        *watched = (struct watched){.pid = pid};
        return;
    }
    bool is_worker = child_table_role(number) == CHILD_WORKER;
    bool is_loop_hung = liveness_policy_is_hung(
        &watched->loop, get(&slot->heartbeat_us), watched_us, liveness->timeout_us);
    bool is_rpc_hung = liveness_policy_is_hung(&watched->rpc, get(&slot->rpc_heartbeat_us),
                           watched_us, liveness->timeout_us) &&
                       is_worker;
    if (!is_loop_hung && !is_rpc_hung)
        return;
    const char *role = child_table_role_name(child_table_role(number));
    if (!watched->was_killed) {
        log_error("child hangs, killed role=%s slot=%u pid=%u thread=%s silent_ms=%llu signal=ABRT",
            role, number, pid, silent_threads(watched, is_worker, liveness->timeout_us),
            (unsigned long long)(liveness->timeout_us / 1000));
        watched->was_killed = true;
        child_table_abort(liveness->children, number);
        return;
    }
    watched->abort_us += watched_us;
    if (watched->abort_us < ABORT_GRACE_US)
        return;
    log_warn("child hangs on, killed role=%s slot=%u pid=%u signal=KILL", role, number, pid);
    child_table_kill(liveness->children, number);
}

static int on_look(sd_event_source *source, uint64_t time_us, void *userdata)
{
    struct liveness *liveness = userdata;
    (void)time_us;
    uint64_t now = monotonic_clock_us();
    uint64_t watched_us = liveness_policy_watched_us(liveness->last_look_us, now);
    liveness->last_look_us = now;
    for (uint32_t slot = 0; slot < SCOREBOARD_SLOTS; slot++)
        look_at(liveness, slot, watched_us);
    int result = sd_event_source_set_time_relative(source, LIVENESS_LOOK_US);
    if (result >= 0)
        result = sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
    return result;
}

int liveness_new(sd_event *event, struct child_table *children, const struct scoreboard *scoreboard,
    unsigned int timeout_ms, struct liveness **ret_liveness)
{
    struct liveness *liveness = calloc(1, sizeof(*liveness));
    if (liveness == NULL)
        return -ENOMEM;
    liveness->children = children;
    liveness->scoreboard = scoreboard;
    liveness->last_look_us = monotonic_clock_us();
    liveness_set_timeout(liveness, timeout_ms);
    int result = sd_event_add_time_relative(event, &liveness->timer, CLOCK_MONOTONIC,
        LIVENESS_LOOK_US, TIMER_ACCURACY_US, on_look, liveness);
    if (result < 0) {
        (void)liveness_free(liveness);
        return result;
    }
    *ret_liveness = liveness;
    return 0;
}

struct liveness *liveness_free(struct liveness *liveness)
{
    if (liveness == NULL)
        return NULL;
    (void)sd_event_source_disable_unref(liveness->timer);
    free(liveness);
    return NULL;
}

void liveness_set_timeout(struct liveness *liveness, unsigned int timeout_ms)
{
    liveness->timeout_us = (uint64_t)timeout_ms * 1000;
}

bool liveness_is_answering(const struct liveness *liveness)
{
    for (uint32_t slot = 0; slot < SCOREBOARD_SLOTS; slot++)
        if (liveness->watched[slot].was_killed &&
            child_table_state(liveness->children, slot) != PROCESS_ABSENT)
            return false;
    return true;
}
