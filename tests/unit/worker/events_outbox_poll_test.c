/* worker/events/outbox_poll: when to read, and from where. */
#include <criterion/criterion.h>

#include "worker/events/outbox_poll.h"

#define START     UINT64_C(1000000000)
#define FULL_READ 1000

static struct outbox_poll given_poll(void)
{
    struct outbox_poll poll;
    outbox_poll_reset(&poll, START);
    return poll;
}

/* A read that ends: `fresh` rows from `lowest` to `highest`, and nobody else at work. */
static void when_read(
    struct outbox_poll *poll, uint64_t now_us, uint64_t fresh, int64_t lowest, int64_t highest)
{
    const struct outbox_reading reading = {
        .fresh = fresh,
        .lowest = lowest,
        .highest = highest,
        .is_full = fresh == FULL_READ,
        .oldest_running_xid = 500,
        .next_xid = 500,
    };
    outbox_poll_finish(poll, now_us, &reading);
}

/* One row is read, while transactions from `oldest_running_xid` to `next_xid` - 1 may be running.
 */
static void when_read_beside(struct outbox_poll *poll, uint64_t now_us, int64_t id,
    uint64_t oldest_running_xid, uint64_t next_xid)
{
    const struct outbox_reading reading = {
        .fresh = 1,
        .lowest = id,
        .highest = id,
        .oldest_running_xid = oldest_running_xid,
        .next_xid = next_xid,
    };
    (void)outbox_poll_begin(poll, now_us);
    outbox_poll_finish(poll, now_us, &reading);
}

Test(outbox_poll, reads_at_once_and_from_the_beginning)
{
    struct outbox_poll poll = given_poll();
    cr_assert(outbox_poll_is_due(&poll, START));
    cr_assert_eq(outbox_poll_begin(&poll, START), 0);
    cr_assert_not(outbox_poll_is_due(&poll, START + 1), "one read at a time");
}

Test(outbox_poll, reads_again_at_once_after_a_full_read)
{
    struct outbox_poll poll = given_poll();
    (void)outbox_poll_begin(&poll, START);
    when_read(&poll, START + 10, FULL_READ, 1, FULL_READ);
    cr_assert(outbox_poll_is_due(&poll, START + 10));
}

Test(outbox_poll, lets_rows_that_come_one_by_one_share_a_read)
{
    struct outbox_poll poll = given_poll();
    (void)outbox_poll_begin(&poll, START);
    when_read(&poll, START + 10, 1, 1, 1);
    outbox_poll_wake(&poll);
    cr_assert_not(outbox_poll_is_due(&poll, START + OUTBOX_POLL_PACE_US - 1));
    cr_assert(outbox_poll_is_due(&poll, START + OUTBOX_POLL_PACE_US));
}

Test(outbox_poll, reads_a_lone_row_at_once)
{
    struct outbox_poll poll = given_poll();
    (void)outbox_poll_begin(&poll, START);
    when_read(&poll, START, 0, 0, 0);
    uint64_t now = START + OUTBOX_POLL_PACE_US;
    cr_assert_not(outbox_poll_is_due(&poll, now));
    outbox_poll_wake(&poll);
    cr_assert(outbox_poll_is_due(&poll, now));
}

Test(outbox_poll, slows_down_to_a_second_when_nothing_comes)
{
    struct outbox_poll poll = given_poll();
    uint64_t now = START;
    for (int i = 0; i < 20; i++) {
        (void)outbox_poll_begin(&poll, now);
        when_read(&poll, now, 0, 0, 0);
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
    when_read(&poll, START, 0, 0, 0);
    cr_assert(outbox_poll_is_due(&poll, START + OUTBOX_POLL_PACE_US));
}

Test(outbox_poll, keeps_its_floor_a_step_behind_what_it_has_read)
{
    struct outbox_poll poll = given_poll();
    (void)outbox_poll_begin(&poll, START);
    when_read(&poll, START, 1, 100, 100);
    uint64_t now = START + OUTBOX_POLL_FLOOR_US;
    cr_assert_eq(outbox_poll_begin(&poll, now), 0);
    when_read(&poll, now, 1, 200, 200);
    now += OUTBOX_POLL_FLOOR_US;
    cr_assert_eq(outbox_poll_begin(&poll, now), 0);
    when_read(&poll, now, 1, 300, 300);
    cr_assert_eq(outbox_poll_begin(&poll, now), 200);
}

/* Transaction 41 has drawn id 150 and does not commit, however long it takes. */
Test(outbox_poll, keeps_its_floor_below_what_a_running_transaction_may_bring)
{
    struct outbox_poll poll = given_poll();
    uint64_t now = START + OUTBOX_POLL_FLOOR_US;
    when_read_beside(&poll, now, 200, 41, 43);
    for (int64_t id = 201; id < 240; id++) {
        now += OUTBOX_POLL_FLOOR_US;
        when_read_beside(&poll, now, id, 41, 44);
        cr_assert_eq(poll.floor, 0);
    }
    /* 41 has ended; 43 and others began after the mark was read and do not matter. */
    now += OUTBOX_POLL_FLOOR_US;
    when_read_beside(&poll, now, 240, 43, 90);
    cr_assert_eq(poll.floor, 200);
    /* The next mark waits for those that ran when it was read. */
    now += OUTBOX_POLL_FLOOR_US;
    when_read_beside(&poll, now, 241, 89, 91);
    cr_assert_eq(poll.floor, 200);
    now += OUTBOX_POLL_FLOOR_US;
    when_read_beside(&poll, now, 242, 90, 92);
    cr_assert_eq(poll.floor, 240);
}

/* The read had room for a part of what a late transaction brought. */
Test(outbox_poll, keeps_its_floor_while_rows_below_the_mark_are_left)
{
    struct outbox_poll poll = given_poll();
    uint64_t now = START + OUTBOX_POLL_FLOOR_US;
    when_read_beside(&poll, now, 20000, 41, 43);
    now += OUTBOX_POLL_FLOOR_US;
    (void)outbox_poll_begin(&poll, now);
    when_read(&poll, now, 1000, 1, 1000);
    cr_assert_eq(poll.floor, 0);
    (void)outbox_poll_begin(&poll, now);
    when_read(&poll, now, 0, 0, 0);
    cr_assert_eq(poll.floor, 20000);
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
        when_read(&poll, now, 1, id, id);
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
        when_read(&poll, now, 1, 20000, 20000);
    when_read(&poll, now, 0, 0, 0);
    now = START + OUTBOX_POLL_RESCAN_US;
    for (int64_t lowest = 1001; lowest < 20000; lowest += 1000) {
        cr_assert_eq(outbox_poll_begin(&poll, now), 0);
        when_read(&poll, now, 1000, lowest, lowest + 999);
        cr_assert(outbox_poll_is_due(&poll, now));
    }
    cr_assert_eq(outbox_poll_begin(&poll, now), 0);
    when_read(&poll, now, 1, 20001, 20001);
    cr_assert_eq(outbox_poll_begin(&poll, now), 20000);
}
