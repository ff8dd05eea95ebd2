/* When a child that does not end has to be ended: rules without a clock, a process or a loop.
 *
 * A child writes heartbeats that grow. What counts is not their age by the clock but for how long
 * the master has watched without seeing a new one, and of the time between two looks no more than
 * LIVENESS_LOOK_MAX_US: when the master itself stood still (stopped, the machine suspended, a
 * cgroup frozen) the children may have stood still with it, and get the time to beat again.
 */
#ifndef USERD_MASTER_LIVENESS_POLICY_H
#define USERD_MASTER_LIVENESS_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#define LIVENESS_LOOK_US     UINT64_C(1000000)
#define LIVENESS_LOOK_MAX_US UINT64_C(1500000)

/* One for each heartbeat that is watched; starts zeroed. */
struct liveness_pulse {
    uint64_t last_beat;
    uint64_t silent_us;
};

/* How much of the time since the last look counts. */
uint64_t liveness_policy_watched_us(uint64_t last_look_us, uint64_t now_us);
/* One look: `beat` is what stands there now. True: silent for the whole of `timeout_us`. */
bool liveness_policy_is_hung(
    struct liveness_pulse *pulse, uint64_t beat, uint64_t watched_us, uint64_t timeout_us);
/* Whether a thread is silent too when another one of its process is found hung. Threads that stop
 * at the same moment are not seen silent at the same look: their last beats may lie on either side
 * of one. A thread that lives beats several times in half of the timeout. */
bool liveness_policy_is_silent_too(const struct liveness_pulse *pulse, uint64_t timeout_us);

#endif
