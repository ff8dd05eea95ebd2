/* When a dead child is started again, and when the master gives up: rules without a clock, a
 * process or a loop.
 *
 * A child that dies is started again after a delay that doubles from 100 ms to 10 s, with a quarter
 * of jitter either way so that several do not come back in step. A child that had been READY for 10
 * s starts from the shortest delay again. While a role has never been READY, ten deaths of it end
 * the master: something is wrong that waiting will not mend, and whoever started us shall see it.
 * Once it was READY, we try for ever.
 */
#ifndef USERD_MASTER_RESPAWN_POLICY_H
#define USERD_MASTER_RESPAWN_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#define RESPAWN_DELAY_MIN_MS     100
#define RESPAWN_DELAY_MAX_MS     10000
#define RESPAWN_STABLE_US        (INT64_C(10) * 1000000)
#define RESPAWN_GIVE_UP_DEATHS   10
#define RESPAWN_JITTER_PER_MILLE 250
#define RESPAWN_LIFE_NEVER_READY INT64_C(-1)

/* One for each slot; starts zeroed. */
struct respawn_record {
    unsigned int failures; /* deaths in a row without a stable life between them */
};

/* One for each role; starts zeroed. */
struct respawn_role {
    bool was_ever_ready;
    unsigned int early_deaths; /* before the role's first READY */
};

struct respawn_decision {
    bool gives_up;
    unsigned int delay_ms; /* when it does not give up */
};

void respawn_policy_on_ready(struct respawn_role *role);

/* `ready_life_us`: how long the dead child had been READY, or RESPAWN_LIFE_NEVER_READY. `random`:
 * any number; its spread over the whole range becomes the jitter. */
struct respawn_decision respawn_policy_on_death(struct respawn_record *record,
    struct respawn_role *role, int64_t ready_life_us, uint32_t random);

#endif
