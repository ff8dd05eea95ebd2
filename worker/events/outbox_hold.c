#include "worker/events/outbox_hold.h"

#include <inttypes.h>

#include "common/log.h"
#include "worker/events/outbox_row.h"

/* Of one destination. */
struct failing {
    size_t rows;
    size_t bytes;
};

static size_t destination_of(struct outbox_entry *entry)
{
    unsigned int destination = (unsigned int)outbox_row_of(entry)->message->destination;
    return destination < OUTBOX_HOLD_DESTINATIONS ? destination : 0;
}

static void count_failing(
    const struct outbox_window *window, struct failing ret_failing[OUTBOX_HOLD_DESTINATIONS])
{
    for (struct outbox_entry *entry = window->first; entry != NULL; entry = entry->next) {
        if (entry->failures == 0 || entry->state == OUTBOX_DONE)
            continue;
        ret_failing[destination_of(entry)].rows++;
        ret_failing[destination_of(entry)].bytes += entry->bytes;
    }
}

static bool is_held(const struct outbox_hold *hold, size_t destination)
{
    for (size_t i = 0; i < hold->held_count; i++) {
        if (hold->held[i] == (int64_t)destination)
            return true;
    }
    return false;
}

static bool is_over(const struct failing *failing, size_t part)
{
    return failing->rows > OUTBOX_HOLD_ROWS / part || failing->bytes > OUTBOX_HOLD_BYTES / part;
}

/* Lets go of what waits behind the destination's share. Of a user nothing stays behind what goes:
 * a row that is on its way has none before it that waits. The first row stays, however large. */
static void let_go(struct outbox_window *window, size_t destination)
{
    struct failing kept = {0};
    struct outbox_entry *next = NULL;
    for (struct outbox_entry *entry = window->first; entry != NULL; entry = next) {
        next = entry->next;
        if (entry->state == OUTBOX_DONE || destination_of(entry) != destination)
            continue;
        kept.rows++;
        kept.bytes += entry->bytes;
        if (kept.rows > 1 && is_over(&kept, 1) && entry->state == OUTBOX_WAITING)
            outbox_row_free(window, entry);
    }
}

bool outbox_hold_update(struct outbox_hold *hold, struct outbox_window *window)
{
    struct failing failing[OUTBOX_HOLD_DESTINATIONS] = {0};
    struct outbox_hold before = *hold;
    bool has_ended = false;
    count_failing(window, failing);
    hold->held_count = 0;
    for (size_t i = 0; i < OUTBOX_HOLD_DESTINATIONS; i++) {
        bool was_held = is_held(&before, i);
        bool is_kept = is_over(&failing[i], was_held ? 2 : 1);
        if (is_kept) {
            hold->held[hold->held_count++] = (int64_t)i;
            let_go(window, i);
        }
        if (is_kept && !was_held)
            log_warn("outbox rows of a destination cannot be published destination=%zu rows=%zu: "
                     "reading no more of them until these can",
                i, failing[i].rows);
        if (was_held && !is_kept)
            log_info("outbox rows of a destination can be published again destination=%zu", i);
        has_ended = has_ended || (was_held && !is_kept);
    }
    return has_ended;
}
