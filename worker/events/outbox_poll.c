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
    poll->next_us = poll->begun_us + OUTBOX_POLL_PACE_US;
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
    poll->begun_us = now_us;
    poll->is_marking =
        now_us >= poll->next_floor_us && poll->mark <= poll->floor && poll->highest > poll->floor;
    if (now_us < poll->next_rescan_us)
        return poll->floor;
    poll->next_rescan_us = now_us + OUTBOX_POLL_RESCAN_US;
    return 0;
}

void outbox_poll_abandon(struct outbox_poll *poll, uint64_t now_us)
{
    poll->next_us = now_us + OUTBOX_POLL_RETRY_US;
}

/* Whether nothing below the mark can come any more that this read has not brought. */
static bool is_mark_final(const struct outbox_poll *poll, const struct outbox_reading *reading)
{
    bool is_whole = reading->fresh == 0 && !reading->is_cut;
    bool reaches_mark = is_whole || reading->highest >= poll->mark;
    return reaches_mark && reading->oldest_running_xid >= poll->mark_xid;
}

static void move_floor(
    struct outbox_poll *poll, uint64_t now_us, const struct outbox_reading *reading)
{
    bool has_mark = poll->mark > poll->floor;
    if (has_mark && now_us >= poll->next_floor_us && is_mark_final(poll, reading))
        poll->floor = poll->mark;
    if (!poll->is_marking || reading->own_xid == 0)
        return;
    poll->mark = poll->highest;
    poll->mark_xid = reading->own_xid;
    poll->next_floor_us = now_us + OUTBOX_POLL_FLOOR_US;
}

void outbox_poll_finish(
    struct outbox_poll *poll, uint64_t now_us, const struct outbox_reading *reading)
{
    if (reading->fresh > 0 && reading->lowest <= poll->floor)
        poll->next_rescan_us = now_us;
    if (reading->highest > poll->highest)
        poll->highest = reading->highest;
    move_floor(poll, now_us, reading);
    if (reading->fresh > 0)
        poll->interval_us = OUTBOX_POLL_SHORTEST_US;
    bool is_woken = poll->next_us != UINT64_MAX;
    if (reading->is_cut) {
        poll->next_us = now_us + OUTBOX_POLL_RETRY_US;
    } else if (reading->is_full && reading->fresh > 0) {
        poll->next_us = now_us;
    } else if (is_woken) {
        return;
    } else if (reading->fresh > 0) {
        poll->next_us = poll->begun_us + OUTBOX_POLL_PACE_US;
    } else {
        poll->next_us = now_us + poll->interval_us;
        poll->interval_us *= 2;
    }
    if (poll->interval_us > OUTBOX_POLL_LONGEST_US)
        poll->interval_us = OUTBOX_POLL_LONGEST_US;
}
