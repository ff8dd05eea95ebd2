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
        .own_xid = poll->is_marking ? 500 : 0,
    };
    outbox_poll_finish(poll, now_us, &reading);
}

/* One row is read, when `oldest_running_xid` is the lowest that may be running; a read that marks
 * is given `own_xid`. */
static void when_read_beside(struct outbox_poll *poll, uint64_t now_us, int64_t id,
    uint64_t oldest_running_xid, uint64_t own_xid)
{
    (void)outbox_poll_begin(poll, now_us);
    const struct outbox_reading reading = {
        .fresh = 1,
        .lowest = id,
        .highest = id,
        .oldest_running_xid = oldest_running_xid,
        .own_xid = poll->is_marking ? own_xid : 0,
    };
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

/* Transaction 41 has drawn id 150 and does not commit, however long it takes. The oldest that is
 * running is 41 all the time: one that has ended above it moves pg_snapshot_xmax() and nothing
 * else. */
Test(outbox_poll, keeps_its_floor_below_what_a_running_transaction_may_bring)
{
    struct outbox_poll poll = given_poll();
    uint64_t now = START;
    when_read_beside(&poll, now, 200, 41, 43);
    now += OUTBOX_POLL_FLOOR_US;
    when_read_beside(&poll, now, 200, 41, 43);
    cr_assert_eq(poll.mark, 200);
    for (int64_t id = 201; id < 240; id++) {
        now += OUTBOX_POLL_FLOOR_US;
        when_read_beside(&poll, now, id, 41, 44);
        cr_assert_eq(poll.floor, 0);
    }
    /* 41 and 42 have ended; 43 was the read that marked, others began after it. */
    now += OUTBOX_POLL_FLOOR_US;
    when_read_beside(&poll, now, 240, 43, 90);
    cr_assert_eq(poll.floor, 200);
    /* The next mark waits for those that ran when it was read. */
    now += OUTBOX_POLL_PACE_US;
    when_read_beside(&poll, now, 241, 60, 90);
    cr_assert_eq(poll.mark, 241);
    now += OUTBOX_POLL_FLOOR_US;
    when_read_beside(&poll, now, 242, 89, 92);
    cr_assert_eq(poll.floor, 200);
    now += OUTBOX_POLL_FLOOR_US;
    when_read_beside(&poll, now, 243, 90, 92);
    cr_assert_eq(poll.floor, 241);
}

/* Transaction 101 has drawn id 5 and waits for its COMMIT; 100 has drawn id 6 and committed. The
 * highest that has ended is 100: pg_snapshot_xmax() and pg_snapshot_xmin() both say 101. */
Test(outbox_poll, keeps_its_floor_below_a_transaction_above_all_that_have_ended)
{
    struct outbox_poll poll = given_poll();
    uint64_t now = START;
    when_read_beside(&poll, now, 6, 101, 102);
    for (int i = 0; i < 20; i++) {
        now += OUTBOX_POLL_FLOOR_US;
        (void)outbox_poll_begin(&poll, now);
        const struct outbox_reading nothing = {
            .oldest_running_xid = 101, .own_xid = poll.is_marking ? 102 : 0};
        outbox_poll_finish(&poll, now, &nothing);
        cr_assert_eq(poll.floor, 0);
    }
    now += OUTBOX_POLL_FLOOR_US;
    when_read_beside(&poll, now, 5, 103, 103);
    (void)outbox_poll_begin(&poll, now);
    when_read(&poll, now, 0, 0, 0);
    cr_assert_eq(poll.floor, 6);
}

/* A transaction id is a COMMIT record in the write-ahead log. */
Test(outbox_poll, marks_only_where_there_is_something_to_mark)
{
    struct outbox_poll poll = given_poll();
    int marking = 0;
    uint64_t now = START;
    for (int i = 0; i < 100; i++) {
        (void)outbox_poll_begin(&poll, now);
        marking += poll.is_marking;
        if (i == 0)
            when_read(&poll, now, 1, 10, 10);
        else
            when_read(&poll, now, 0, 0, 0);
        now += OUTBOX_POLL_FLOOR_US;
    }
    cr_assert_eq(marking, 1);
    for (int i = 0; i < 2000; i++) {
        (void)outbox_poll_begin(&poll, now);
        marking += poll.is_marking;
        when_read(&poll, now, 1, 11 + i, 11 + i);
        now += OUTBOX_POLL_PACE_US;
    }
    cr_assert_leq((uint64_t)marking, 1 + 2000 * OUTBOX_POLL_PACE_US / OUTBOX_POLL_FLOOR_US + 1);
}

static struct outbox_poll given_mark(uint64_t *now, int64_t mark)
{
    struct outbox_poll poll = given_poll();
    *now = START;
    when_read_beside(&poll, *now, mark, 41, 43);
    *now += OUTBOX_POLL_FLOOR_US;
    when_read_beside(&poll, *now, mark, 41, 43);
    *now += OUTBOX_POLL_FLOOR_US;
    return poll;
}

/* The read had room for a part of what a late transaction brought. */
Test(outbox_poll, keeps_its_floor_while_rows_below_the_mark_are_left)
{
    uint64_t now = 0;
    struct outbox_poll poll = given_mark(&now, 20000);
    (void)outbox_poll_begin(&poll, now);
    when_read(&poll, now, 1000, 1, 1000);
    cr_assert_eq(poll.floor, 0);
    (void)outbox_poll_begin(&poll, now);
    when_read(&poll, now, 0, 0, 0);
    cr_assert_eq(poll.floor, 20000);
}

/* There was no memory for what a late transaction brought. */
Test(outbox_poll, keeps_its_floor_while_rows_are_left_out_for_lack_of_memory)
{
    uint64_t now = 0;
    struct outbox_poll poll = given_mark(&now, 20000);
    const struct outbox_reading none = {.is_cut = true, .oldest_running_xid = 500};
    (void)outbox_poll_begin(&poll, now);
    outbox_poll_finish(&poll, now, &none);
    cr_assert_eq(poll.floor, 0);
    const struct outbox_reading some = {
        .fresh = 3, .lowest = 1, .highest = 3, .is_cut = true, .oldest_running_xid = 500};
    (void)outbox_poll_begin(&poll, now);
    outbox_poll_finish(&poll, now, &some);
    cr_assert_eq(poll.floor, 0);
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

/* There was no memory to send it. */
Test(outbox_poll, reads_again_after_a_read_that_could_not_be_sent)
{
    struct outbox_poll poll = given_poll();
    (void)outbox_poll_begin(&poll, START);
    outbox_poll_abandon(&poll, START);
    cr_assert_not(outbox_poll_is_due(&poll, START), "no spinning");
    cr_assert(outbox_poll_is_due(&poll, START + OUTBOX_POLL_RETRY_US));
}

Test(outbox_poll, reads_again_what_there_was_no_memory_for)
{
    struct outbox_poll poll = given_poll();
    (void)outbox_poll_begin(&poll, START);
    const struct outbox_reading reading = {
        .fresh = 3, .lowest = 1, .highest = 3, .is_full = true, .is_cut = true};
    outbox_poll_finish(&poll, START, &reading);
    cr_assert_not(outbox_poll_is_due(&poll, START), "no spinning");
    cr_assert(outbox_poll_is_due(&poll, START + OUTBOX_POLL_RETRY_US));
}
