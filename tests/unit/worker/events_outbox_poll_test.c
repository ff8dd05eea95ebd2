/* worker/events/outbox_poll: when to read, and from where. */
#include <criterion/criterion.h>

#include "worker/events/outbox_poll.h"

#define START UINT64_C(1000000000)

static struct outbox_poll given_poll(void)
{
    struct outbox_poll poll;
    outbox_poll_reset(&poll, START);
    return poll;
}

Test(outbox_poll, reads_at_once_and_from_the_beginning)
{
    struct outbox_poll poll = given_poll();
    cr_assert(outbox_poll_is_due(&poll, START));
    cr_assert_eq(outbox_poll_begin(&poll, START), 0);
    cr_assert_not(outbox_poll_is_due(&poll, START + 1), "one read at a time");
}

Test(outbox_poll, reads_again_at_once_while_rows_come)
{
    struct outbox_poll poll = given_poll();
    (void)outbox_poll_begin(&poll, START);
    outbox_poll_finish(&poll, START, 10, 1, 10);
    cr_assert(outbox_poll_is_due(&poll, START));
}

Test(outbox_poll, slows_down_to_a_second_when_nothing_comes)
{
    struct outbox_poll poll = given_poll();
    uint64_t now = START;
    for (int i = 0; i < 20; i++) {
        (void)outbox_poll_begin(&poll, now);
        outbox_poll_finish(&poll, now, 0, 0, 0);
        cr_assert_not(outbox_poll_is_due(&poll, now));
        cr_assert_leq(poll.next_us - now, OUTBOX_POLL_LONGEST_US);
        now = poll.next_us;
    }
    cr_assert_eq(poll.interval_us, OUTBOX_POLL_LONGEST_US);
}

Test(outbox_poll, does_not_lose_a_wake_that_comes_during_a_read)
{
    struct outbox_poll poll = given_poll();
    (void)outbox_poll_begin(&poll, START);
    outbox_poll_wake(&poll);
    outbox_poll_finish(&poll, START, 0, 0, 0);
    cr_assert(outbox_poll_is_due(&poll, START));
}

Test(outbox_poll, keeps_its_floor_a_step_behind_what_it_has_read)
{
    struct outbox_poll poll = given_poll();
    (void)outbox_poll_begin(&poll, START);
    outbox_poll_finish(&poll, START, 1, 100, 100);
    uint64_t first = START + OUTBOX_POLL_FLOOR_US;
    cr_assert_eq(outbox_poll_begin(&poll, first), 0);
    outbox_poll_finish(&poll, first, 1, 200, 200);
    cr_assert_eq(outbox_poll_begin(&poll, first + OUTBOX_POLL_FLOOR_US), 100);
}

Test(outbox_poll, rescans_from_the_beginning_now_and_then)
{
    struct outbox_poll poll = given_poll();
    int rescans = 0;
    int64_t id = 1000000;
    for (uint64_t now = START; now < START + 21 * OUTBOX_POLL_FLOOR_US;
         now += OUTBOX_POLL_FLOOR_US) {
        int64_t floor = outbox_poll_begin(&poll, now);
        id++;
        outbox_poll_finish(&poll, now, 1, id, id);
        rescans += now > START + 3 * OUTBOX_POLL_FLOOR_US && floor == 0;
    }
    cr_assert_eq(rescans, 4);
}

/* A transaction that drew many ids and committed late: more rows than one read brings. */
Test(outbox_poll, rescans_again_at_once_while_it_finds_rows_below_its_floor)
{
    struct outbox_poll poll = given_poll();
    uint64_t now = START;
    for (; outbox_poll_begin(&poll, now) == 0; now += OUTBOX_POLL_FLOOR_US)
        outbox_poll_finish(&poll, now, 1, 20000, 20000);
    outbox_poll_finish(&poll, now, 0, 0, 0);
    now = START + OUTBOX_POLL_RESCAN_US;
    for (int64_t lowest = 1001; lowest < 20000; lowest += 1000) {
        cr_assert_eq(outbox_poll_begin(&poll, now), 0);
        outbox_poll_finish(&poll, now, 1000, lowest, lowest + 999);
        cr_assert(outbox_poll_is_due(&poll, now));
    }
    cr_assert_eq(outbox_poll_begin(&poll, now), 0);
    outbox_poll_finish(&poll, now, 1, 20001, 20001);
    cr_assert_eq(outbox_poll_begin(&poll, now), 20000);
}
