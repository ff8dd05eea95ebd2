#include "worker/events/outbox_poll.h"

void outbox_poll_reset(struct outbox_poll *poll, uint64_t now_us)
{
    *poll = (struct outbox_poll){
        .next_us = now_us,
        .interval_us = OUTBOX_POLL_SHORTEST_US,
        .next_floor_us = now_us + OUTBOX_POLL_FLOOR_US,
        .next_rescan_us = now_us + OUTBOX_POLL_RESCAN_US,
    };
}

void outbox_poll_wake(struct outbox_poll *poll)
{
    poll->next_us = 0;
    poll->interval_us = OUTBOX_POLL_SHORTEST_US;
}

bool outbox_poll_is_due(const struct outbox_poll *poll, uint64_t now_us)
{
    return now_us >= poll->next_us;
}

int64_t outbox_poll_begin(struct outbox_poll *poll, uint64_t now_us)
{
    /* A wake during the read asks for another one. */
    poll->next_us = UINT64_MAX;
    if (now_us >= poll->next_floor_us) {
        poll->next_floor_us = now_us + OUTBOX_POLL_FLOOR_US;
        poll->floor = poll->mark;
        poll->mark = poll->highest;
    }
    if (now_us < poll->next_rescan_us)
        return poll->floor;
    poll->next_rescan_us = now_us + OUTBOX_POLL_RESCAN_US;
    return 0;
}

void outbox_poll_finish(
    struct outbox_poll *poll, uint64_t now_us, uint64_t fresh, int64_t lowest, int64_t highest)
{
    if (fresh > 0 && lowest <= poll->floor)
        poll->next_rescan_us = now_us;
    if (highest > poll->highest)
        poll->highest = highest;
    if (poll->next_us == 0)
        return;
    if (fresh > 0) {
        poll->interval_us = OUTBOX_POLL_SHORTEST_US;
        poll->next_us = now_us;
        return;
    }
    poll->next_us = now_us + poll->interval_us;
    poll->interval_us *= 2;
    if (poll->interval_us > OUTBOX_POLL_LONGEST_US)
        poll->interval_us = OUTBOX_POLL_LONGEST_US;
}
