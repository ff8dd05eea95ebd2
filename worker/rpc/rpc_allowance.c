#include "worker/rpc/rpc_allowance.h"

#include "common/monotonic_clock.h"

/* One look after a long pause is as good as many: nothing is left of a level by then. */
#define LONGEST_PAUSE_US (UINT64_C(3600) * MONOTONIC_CLOCK_US_PER_S)
#define HALVINGS_MAX     63

/* gRPC libraries round the timeout that they tell up by a hundredth at most, and what says that a
 * call is over may be faster than what began it. */
#define ROUNDING_PART 64
#define HEAD_START_US 5000

static void leak(uint64_t *level, uint64_t amount)
{
    *level -= amount < *level ? amount : *level;
}

bool rpc_allowance_is_exceeded(struct rpc_allowance *budget,
    const struct rpc_allowance_rules *rules, uint64_t now_us, uint64_t wasted, uint64_t useful)
{
    if (rules->per_second == 0)
        return false;
    uint64_t passed_us = now_us > budget->then_us ? now_us - budget->then_us : 0;
    if (passed_us > LONGEST_PAUSE_US) {
        passed_us = LONGEST_PAUSE_US;
        budget->then_us = now_us - passed_us;
    }
    /* Whole ones only: what is left of the time counts at the next look. */
    uint64_t leaked = passed_us * rules->per_second / MONOTONIC_CLOCK_US_PER_S;
    leak(&budget->level, leaked);
    budget->then_us += leaked * MONOTONIC_CLOCK_US_PER_S / rules->per_second;
    budget->level += wasted;
    budget->useful += useful;
    leak(&budget->level, budget->useful / RPC_ALLOWANCE_USEFUL_FOR_ONE);
    budget->useful %= RPC_ALLOWANCE_USEFUL_FOR_ONE;
    return budget->level > rules->burst;
}

uint64_t rpc_recent_add(struct rpc_recent *recent, uint64_t now_us, uint64_t more)
{
    uint64_t halvings =
        now_us > recent->then_us ? (now_us - recent->then_us) / MONOTONIC_CLOCK_US_PER_S : 0;
    if (halvings > 0) {
        recent->amount = halvings > HALVINGS_MAX ? 0 : recent->amount >> halvings;
        recent->then_us += halvings * MONOTONIC_CLOCK_US_PER_S;
    }
    recent->amount += more;
    return recent->amount;
}

uint64_t rpc_settled_grow(struct rpc_settled *settled, uint64_t low, uint64_t high)
{
    uint64_t agreed = high < settled->last ? high : settled->last;
    settled->last = high;
    if (agreed < low)
        agreed = low;
    uint64_t more = agreed > settled->amount ? agreed - settled->amount : 0;
    settled->amount += more;
    return more;
}

bool rpc_deadline_has_passed(int64_t deadline_us, int64_t begun_us, int64_t now_us)
{
    int64_t given_us = deadline_us - begun_us;
    int64_t early_us = given_us > 0 ? given_us / ROUNDING_PART + HEAD_START_US : 0;
    return deadline_us <= now_us + early_us;
}
