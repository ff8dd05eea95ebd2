#include "worker/events/outbox_hold.h"

#include <inttypes.h>

#include "common/log.h"
#include "worker/events/outbox_row.h"

_Static_assert(USERD__IPC__DESTINATION__DESTINATION_DEAD_LETTER + 1 == OUTBOX_WINDOW_DESTINATIONS,
    "each destination of proto/ipc.proto has a share of the window");

static bool is_over(const struct outbox_amount *amount, size_t part)
{
    return amount->rows > OUTBOX_HOLD_ROWS / part || amount->bytes > OUTBOX_HOLD_BYTES / part;
}

/* There are rows on their way, and no answer has come for a while. */
static bool is_silent(
    struct outbox_hold *hold, const struct outbox_share *share, size_t destination, uint64_t now_us)
{
    if (share->sent.rows == 0 || share->answers != hold->seen_answers[destination] ||
        hold->seen_at_us[destination] == 0) {
        hold->seen_answers[destination] = share->answers;
        hold->seen_at_us[destination] = now_us;
        return false;
    }
    return now_us - hold->seen_at_us[destination] >= OUTBOX_HOLD_SILENCE_US;
}

/* Lets go of what waits behind the destination's share. Of a user nothing stays behind what goes:
 * a row that is on its way has none before it that waits. The first row stays, however large. */
static void let_go(struct outbox_window *window, size_t destination)
{
    struct outbox_amount kept = {0};
    struct outbox_entry *next = NULL;
    for (struct outbox_entry *entry = window->first; entry != NULL; entry = next) {
        next = entry->next;
        if (entry->state == OUTBOX_DONE || entry->destination != destination)
            continue;
        kept.rows++;
        kept.bytes += entry->bytes;
        if (kept.rows > 1 && is_over(&kept, 1) && entry->state == OUTBOX_WAITING)
            outbox_row_free(window, entry);
    }
}

/* Rows on their way count as troubled from the silence that begins a hold until its end. */
static bool is_to_be_held(
    struct outbox_hold *hold, const struct outbox_share *share, size_t destination, uint64_t now_us)
{
    struct outbox_amount troubled = share->failing;
    if (is_silent(hold, share, destination, now_us) || share->is_held) {
        troubled.rows += share->sent.rows;
        troubled.bytes += share->sent.bytes;
    }
    return is_over(&troubled, share->is_held ? 2 : 1);
}

bool outbox_hold_update(struct outbox_hold *hold, struct outbox_window *window, uint64_t now_us)
{
    bool has_ended = false;
    hold->held_count = 0;
    for (size_t i = 0; i < OUTBOX_WINDOW_DESTINATIONS; i++) {
        struct outbox_share *share = &window->shares[i];
        bool was_held = share->is_held;
        share->is_held = is_to_be_held(hold, share, i, now_us);
        hold->has_begun = hold->has_begun || (share->is_held && !was_held);
        if (share->is_held && !was_held)
            log_warn("outbox rows of a destination cannot be published destination=%zu failed=%zu "
                     "not_acknowledged=%zu: reading no more of them until these can",
                i, share->failing.rows, share->sent.rows);
        if (share->is_held) {
            hold->held[hold->held_count++] = (int64_t)i;
            let_go(window, i);
        }
        if (was_held && !share->is_held)
            log_info("outbox rows of a destination can be published again destination=%zu", i);
        has_ended = has_ended || (was_held && !share->is_held);
    }
    return has_ended;
}

uint64_t outbox_hold_next_us(const struct outbox_hold *hold, const struct outbox_window *window)
{
    uint64_t next_us = UINT64_MAX;
    for (size_t i = 0; i < OUTBOX_WINDOW_DESTINATIONS; i++) {
        const struct outbox_share *share = &window->shares[i];
        uint64_t at_us = hold->seen_at_us[i] + OUTBOX_HOLD_SILENCE_US;
        if (!share->is_held && share->sent.rows > 0 && outbox_window_is_share_full(share) &&
            at_us < next_us)
            next_us = at_us;
    }
    return next_us;
}

void outbox_hold_clear(struct outbox_hold *hold, struct outbox_window *window)
{
    *hold = (struct outbox_hold){0};
    for (size_t i = 0; i < OUTBOX_WINDOW_DESTINATIONS; i++)
        window->shares[i].is_held = false;
}
