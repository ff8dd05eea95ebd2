/* What the service as a whole is doing, and what each event means in that state: rules without a
 * clock, a process or a loop. One table holds an answer for every pair; staffing.c and the
 * supervisor do what it says and decide nothing of their own. */
#ifndef USERD_MASTER_LIFECYCLE_H
#define USERD_MASTER_LIFECYCLE_H

#include <stdbool.h>

enum lifecycle_state {
    LIFECYCLE_STARTING,  /* the first generation is on its way */
    LIFECYCLE_RUNNING,   /* one generation serves; older ones may still be leaving */
    LIFECYCLE_RELOADING, /* the next generation is on probation beside it */
    LIFECYCLE_DRAINING,  /* told to stop: what is in flight is finished */
    LIFECYCLE_STOPPING,  /* ends at once */
    LIFECYCLE_STATES,
};

enum lifecycle_event {
    LIFECYCLE_GENERATION_READY, /* every post of the generation in force has been READY */
    LIFECYCLE_NEXT_READY,       /* every worker of the next generation is READY and fit to serve */
    LIFECYCLE_NEXT_FAILED,      /* one of the next generation cannot be run, or has ended */
    LIFECYCLE_CHILD_DIED,       /* one of the generation in force ended unasked */
    LIFECYCLE_CHILD_LEFT,       /* one left as it was told to, and its post is still wanted */
    LIFECYCLE_CHILD_REFUSED,    /* one ended because its configuration is wrong */
    LIFECYCLE_ROLE_HOPELESS,    /* a role has died too often to be tried again */
    LIFECYCLE_LAST_GONE,        /* no child is left */
    LIFECYCLE_RELOAD_ASKED,
    LIFECYCLE_RELOAD_REFUSED, /* the configuration that was asked for is no good */
    LIFECYCLE_UPGRADE_ASKED,
    LIFECYCLE_STOP_ASKED,     /* `userd stop`: asked twice it waits twice */
    LIFECYCLE_STOP_SIGNALLED, /* SIGTERM, SIGINT: the second one is a person's impatience */
    LIFECYCLE_TIME_OVER,      /* of the probation, or of the drain */
    LIFECYCLE_EVENTS,
};

enum lifecycle_action {
    LIFECYCLE_UNFILLED, /* no entry of the table has this */
    LIFECYCLE_IGNORE,
    LIFECYCLE_SAY_SERVING,
    LIFECYCLE_COMMIT,  /* the next generation takes over, the old one drains */
    LIFECYCLE_ABORT,   /* the next generation goes, the old one never notices */
    LIFECYCLE_RESPAWN, /* after a pause (respawn_policy.h) */
    LIFECYCLE_FILL,    /* at once */
    LIFECYCLE_GIVE_UP, /* end, so that whoever started us sees it */
    LIFECYCLE_BEGIN_RELOAD,
    LIFECYCLE_BEGIN_UPGRADE,
    LIFECYCLE_REFUSE, /* lifecycle_refusal() says why */
    LIFECYCLE_BEGIN_STOP,
    LIFECYCLE_KILL_ALL,
    LIFECYCLE_END,
};

struct lifecycle_step {
    enum lifecycle_action action;
    enum lifecycle_state next;
};

struct lifecycle_step lifecycle_next(enum lifecycle_state state, enum lifecycle_event event);
/* Why a state refuses a reload or an upgrade, for a person; NULL when it does not. */
const char *lifecycle_refusal(enum lifecycle_state state);
/* Such a refusal is for now: the service comes to RUNNING by itself, unless it is stopped. */
bool lifecycle_will_run(enum lifecycle_state state);

#endif
