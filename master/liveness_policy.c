#include "master/liveness_policy.h"

uint64_t liveness_policy_watched_us(uint64_t last_look_us, uint64_t now_us)
{
    uint64_t elapsed_us = now_us > last_look_us ? now_us - last_look_us : 0;
    return elapsed_us < LIVENESS_LOOK_MAX_US ? elapsed_us : LIVENESS_LOOK_MAX_US;
}

bool liveness_policy_is_hung(
    struct liveness_pulse *pulse, uint64_t beat, uint64_t watched_us, uint64_t timeout_us)
{
    if (beat != pulse->last_beat) {
        pulse->last_beat = beat;
        pulse->silent_us = 0;
        return false;
    }
    pulse->silent_us += watched_us;
    return pulse->silent_us >= timeout_us;
}

bool liveness_policy_is_silent_too(const struct liveness_pulse *pulse, uint64_t timeout_us)
{
    return pulse->silent_us >= timeout_us / 2;
}
