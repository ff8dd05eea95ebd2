#include "master/worker_choice.h"

/* Fewer connections first; among equals the one with the oldest that may be leaving; then those
 * behind `last_slot` before those up to it. */
static bool is_better(const struct worker_candidate *candidate, const struct worker_candidate *best,
    uint32_t last_slot)
{
    if (candidate->living != best->living)
        return candidate->living < best->living;
    if (candidate->leaving_since_us != best->leaving_since_us)
        return best->leaving_since_us == 0 ||
               (candidate->leaving_since_us != 0 &&
                   candidate->leaving_since_us < best->leaving_since_us);
    return candidate->slot > last_slot && best->slot <= last_slot;
}

int worker_choice_next(const struct worker_candidate *candidates, size_t count, uint32_t last_slot)
{
    int best = -1;
    for (size_t i = 0; i < count; i++) {
        if (!candidates[i].can_take)
            continue;
        if (best < 0 || is_better(&candidates[i], &candidates[best], last_slot))
            best = (int)i;
    }
    return best;
}
