/* Which worker gets the next connection: the one with the fewest living ones of that listener;
 * among equals the one that a client may just be leaving, for it counts one too many, else they
 * take turns.
 *
 * Pure: the caller says what each worker holds and who was served last.
 */
#ifndef USERD_MASTER_WORKER_CHOICE_H
#define USERD_MASTER_WORKER_CHOICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct worker_candidate {
    uint32_t slot;
    uint32_t
        living; /* connections of this listener that it holds, or that are on their way to it */
    uint64_t leaving_since_us; /* of the oldest connection that may be leaving; 0: there is none */
    bool can_take;             /* READY, and its channel has room */
};

/* Index of the chosen candidate, or -1 when none can take one. Among equals (see above) the first
 * whose slot comes after `last_slot` wins, going round; candidates are in ascending order of their
 * slots. */
int worker_choice_next(const struct worker_candidate *candidates, size_t count, uint32_t last_slot);

#endif
