#include "master/respawn_policy.h"

static unsigned int base_delay_ms(unsigned int failures)
{
    unsigned int delay_ms = RESPAWN_DELAY_MIN_MS;
    for (unsigned int i = 1; i < failures && delay_ms < RESPAWN_DELAY_MAX_MS; i++)
        delay_ms *= 2;
    return delay_ms < RESPAWN_DELAY_MAX_MS ? delay_ms : RESPAWN_DELAY_MAX_MS;
}

/* Maps 0..UINT32_MAX evenly to delay -25 %..+25 %. */
static unsigned int with_jitter(unsigned int delay_ms, uint32_t random)
{
    uint64_t spread_ms = (uint64_t)delay_ms * 2 * RESPAWN_JITTER_PER_MILLE / 1000;
    uint64_t shift_ms = (spread_ms + 1) * random >> 32;
    return (unsigned int)(delay_ms - spread_ms / 2 + shift_ms);
}

void respawn_policy_on_ready(struct respawn_role *role)
{
    role->was_ever_ready = true;
    role->early_deaths = 0;
}

struct respawn_decision respawn_policy_on_death(struct respawn_record *record,
    struct respawn_role *role, int64_t ready_life_us, uint32_t random)
{
    if (ready_life_us >= RESPAWN_STABLE_US)
        record->failures = 0;
    if (record->failures < UINT32_MAX)
        record->failures++;
    if (!role->was_ever_ready && ++role->early_deaths >= RESPAWN_GIVE_UP_DEATHS)
        return (struct respawn_decision){.gives_up = true};
    return (struct respawn_decision){
        .delay_ms = with_jitter(base_delay_ms(record->failures), random)};
}
