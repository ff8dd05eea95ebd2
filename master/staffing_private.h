/* What staffing.c, staffing_reload.c and staffing_takeover.c share; no one else includes it. */
#ifndef USERD_MASTER_STAFFING_PRIVATE_H
#define USERD_MASTER_STAFFING_PRIVATE_H

#include "master/lifecycle.h"
#include "master/liveness.h"
#include "master/peer_links.h"
#include "master/respawn_policy.h"
#include "master/staffing.h"

#define STAFFING_FIRST_WORKER      (SCOREBOARD_SLOT_EVENTD + 1)
#define STAFFING_TIMER_ACCURACY_US 10000

/* One for each slot. An empty post with a generation is waiting to be started again. */
struct post {
    struct staffing *staffing;
    uint32_t slot;
    uint32_t generation; /* 0: nobody is wanted here */
    bool was_ready;      /* since it was first wanted in this generation */
    struct respawn_record record;
    sd_event_source *respawn; /* owned */
};

struct staffing {
    struct staffing_options options;
    const struct staffing_handlers *handlers;
    void *userdata;
    struct child_table *children; /* owned */
    struct peer_links links;
    struct connection_dispatch *dispatch; /* owned */
    struct liveness *liveness;            /* owned */
    enum lifecycle_state state;
    struct settings settings; /* owned; in force */
    uint32_t generation;
    struct settings next_settings;         /* owned; while RELOADING, as is all of `next_` */
    struct listener_change next_listeners; /* owned */
    sd_event_source *probation;            /* owned; all are READY, and not all fit */
    uint64_t probation_end_us;
    sd_event_source *drain_limit; /* owned; while DRAINING */
    struct respawn_role roles[CHILD_ROLE_COUNT];
    struct post posts[SCOREBOARD_SLOTS];
};

/* ---- staffing.c ---- */

/* Takes the step that the lifecycle has for the event; what is left to do is the caller's. */
enum lifecycle_action staffing_take(struct staffing *staffing, enum lifecycle_event event);
void staffing_clear_post(struct post *post);
void staffing_drain_slot(struct staffing *staffing, uint32_t slot);
void staffing_respawn_in(struct post *post, uint64_t delay_us);
bool staffing_is_all_ready(const struct staffing *staffing, uint32_t generation);

/* ---- staffing_reload.c ---- */

bool staffing_is_next(const struct staffing *staffing, uint32_t generation);
/* One of the next generation is READY. */
void staffing_reload_on_ready(struct staffing *staffing);
/* The next generation has failed, for the reason that is given. */
void staffing_reload_fail(struct staffing *staffing, uint32_t slot, const char *reason);
void staffing_reload_fail_by_end(
    struct staffing *staffing, uint32_t slot, const struct child_end *end);
/* Ends a reload that nobody waits for any more: its children are the caller's. */
void staffing_reload_forget(struct staffing *staffing);

#endif
