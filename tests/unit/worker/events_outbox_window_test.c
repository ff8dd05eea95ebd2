/* worker/events/outbox_window: order for each user, epochs, bounds. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "worker/events/outbox_window.h"

#define NOW UINT64_C(1000000000)

static struct outbox_window window;
static struct outbox_entry entries[64];

static struct outbox_entry *given_row(int64_t id, int32_t auth_id)
{
    struct outbox_entry *entry = &entries[id];
    *entry = (struct outbox_entry){
        .id = id, .auth_id = auth_id, .has_auth_id = auth_id >= 0, .bytes = 100};
    outbox_window_add(&window, entry);
    return entry;
}

static void given_empty_window(void)
{
    memset(&window, 0, sizeof(window));
}

/* Sends all that may be sent; the ids, as a bit set. */
static uint64_t when_sent(uint64_t now_us)
{
    uint64_t ids = 0;
    struct outbox_entry *entry = outbox_window_next_sendable(&window, NULL, now_us);
    while (entry != NULL) {
        outbox_window_mark_sent(&window, entry);
        ids |= UINT64_C(1) << entry->id;
        entry = outbox_window_next_sendable(&window, entry, now_us);
    }
    return ids;
}

#define ROW(id) (UINT64_C(1) << (id))

Test(outbox_window, never_has_two_rows_of_one_user_on_their_way, .init = given_empty_window)
{
    given_row(1, 7);
    given_row(2, 7);
    given_row(3, 8);
    cr_assert_eq(when_sent(NOW), ROW(1) | ROW(3));
    cr_assert_eq(when_sent(NOW), 0);
    cr_assert_not_null(outbox_window_mark_done(&window, 0, 1));
    cr_assert_eq(when_sent(NOW), ROW(2));
}

Test(outbox_window, sends_rows_about_nobody_freely, .init = given_empty_window)
{
    given_row(1, -1);
    given_row(2, -1);
    cr_assert_eq(when_sent(NOW), ROW(1) | ROW(2));
}

Test(
    outbox_window, keeps_the_order_of_ids_whatever_the_order_of_reading, .init = given_empty_window)
{
    given_row(5, 7);
    given_row(3, 7);
    cr_assert_eq(when_sent(NOW), ROW(3));
    cr_assert_eq(window.first->id, 3);
    cr_assert_eq(window.last->id, 5);
}

Test(outbox_window, holds_the_user_back_while_a_failed_row_waits, .init = given_empty_window)
{
    given_row(1, 7);
    given_row(2, 7);
    (void)when_sent(NOW);
    cr_assert_not_null(outbox_window_mark_failed(&window, 0, 1, NOW));
    cr_assert_eq(when_sent(NOW), 0, "neither the row before its time, nor the one behind it");
    uint64_t retry_us = outbox_window_next_retry_us(&window);
    cr_assert_gt(retry_us, NOW);
    cr_assert_eq(when_sent(retry_us), ROW(1));
}

Test(outbox_window, waits_longer_after_each_failure_up_to_a_bound, .init = given_empty_window)
{
    struct outbox_entry *entry = given_row(1, 7);
    uint64_t before_us = 0;
    for (int i = 0; i < 20; i++) {
        outbox_window_mark_sent(&window, entry);
        (void)outbox_window_mark_failed(&window, 0, 1, NOW);
        uint64_t delay_us = entry->not_before_us - NOW;
        cr_assert_geq(delay_us, before_us);
        cr_assert_leq(delay_us, 5000000);
        before_us = delay_us;
    }
}

Test(outbox_window, counts_everything_as_unsent_in_a_new_epoch, .init = given_empty_window)
{
    given_row(1, 7);
    given_row(2, 8);
    (void)when_sent(NOW);
    (void)outbox_window_mark_done(&window, 0, 2);
    outbox_window_begin_epoch(&window);
    cr_assert_eq(window.sent, 0);
    cr_assert_eq(when_sent(NOW), ROW(1), "and what was delivered stays delivered");
}

Test(outbox_window, ignores_answers_of_an_earlier_epoch, .init = given_empty_window)
{
    given_row(1, 7);
    (void)when_sent(NOW);
    outbox_window_begin_epoch(&window);
    (void)when_sent(NOW);
    cr_assert_null(outbox_window_mark_done(&window, 0, 1));
    cr_assert_null(outbox_window_mark_failed(&window, 0, 1, NOW));
    cr_assert_not_null(outbox_window_mark_done(&window, 1, 1));
}

Test(
    outbox_window, ignores_answers_about_rows_that_are_not_on_their_way, .init = given_empty_window)
{
    given_row(1, 7);
    cr_assert_null(outbox_window_mark_done(&window, 0, 1));
    cr_assert_null(outbox_window_mark_done(&window, 0, 99));
    (void)when_sent(NOW);
    cr_assert_not_null(outbox_window_mark_done(&window, 0, 1));
    cr_assert_null(outbox_window_mark_done(&window, 0, 1), "answered twice");
}

Test(outbox_window, forgets_a_row_completely, .init = given_empty_window)
{
    struct outbox_entry *entry = given_row(1, 7);
    given_row(2, 7);
    (void)when_sent(NOW);
    outbox_window_remove(&window, entry);
    cr_assert_null(outbox_window_find(&window, 1));
    cr_assert_eq(window.count, 1);
    cr_assert_eq(window.bytes, 100);
    cr_assert_eq(window.sent, 0);
    cr_assert_eq(when_sent(NOW), ROW(2));
}

Test(outbox_window, has_room_only_for_a_read_that_is_worth_its_while, .init = given_empty_window)
{
    window.count = OUTBOX_WINDOW_ROWS - OUTBOX_WINDOW_ROOM;
    cr_assert(outbox_window_has_room(&window));
    window.count++;
    cr_assert_not(outbox_window_has_room(&window));
}

Test(outbox_window, is_full_by_bytes_too, .init = given_empty_window)
{
    cr_assert(outbox_window_has_room(&window));
    struct outbox_entry *entry = given_row(1, -1);
    outbox_window_remove(&window, entry);
    entry->bytes = OUTBOX_SHARE_BYTES;
    outbox_window_add(&window, entry);
    cr_assert_not(outbox_window_has_room(&window));
}

Test(
    outbox_window, gives_a_read_no_more_than_the_fullest_share_has_left, .init = given_empty_window)
{
    window.shares[1].all = (struct outbox_amount){.rows = 4000, .bytes = 1000};
    window.count = 4000;
    struct outbox_amount room = outbox_window_room(&window);
    cr_assert_eq(room.rows, OUTBOX_SHARE_ROWS - 4000);
    cr_assert_eq(room.bytes, OUTBOX_SHARE_BYTES - 1000);
}

Test(outbox_window, has_room_beside_a_held_destination_whatever_it_has, .init = given_empty_window)
{
    window.shares[1].all =
        (struct outbox_amount){.rows = OUTBOX_SHARE_ROWS, .bytes = 100 * OUTBOX_WINDOW_BYTES};
    window.count = OUTBOX_SHARE_ROWS;
    cr_assert_not(outbox_window_has_room(&window));
    window.shares[1].is_held = true;
    struct outbox_amount room = outbox_window_room(&window);
    cr_assert_eq(room.rows, OUTBOX_WINDOW_ROWS - OUTBOX_SHARE_ROWS);
    cr_assert_eq(room.bytes, OUTBOX_WINDOW_BYTES - OUTBOX_SHARE_BYTES);
}

/* What a row was counted for is given back however it ends. */
Test(outbox_window, counts_shares_through_every_way_of_a_row, .init = given_empty_window)
{
    const struct outbox_share *share = &window.shares[2];
    for (int64_t id = 1; id <= 6; id++) {
        entries[id] = (struct outbox_entry){.id = id, .destination = 2, .bytes = 10};
        outbox_window_add(&window, &entries[id]);
    }
    cr_assert_eq(share->all.rows, 6);
    (void)when_sent(NOW);
    cr_assert_eq(share->sent.rows, 6);
    (void)outbox_window_mark_done(&window, 0, 1);
    for (int64_t id = 2; id <= 4; id++)
        (void)outbox_window_mark_failed(&window, 0, id, NOW);
    cr_assert_eq(share->sent.rows, 2);
    cr_assert_eq(share->failing.rows, 3);
    outbox_window_mark_sent(&window, &entries[2]);
    outbox_window_mark_sent(&window, &entries[3]);
    cr_assert_eq(share->sent.rows, 2, "it counts as failing only");
    (void)outbox_window_mark_done(&window, 0, 2);
    cr_assert_eq(share->failing.rows, 2);
    outbox_window_begin_epoch(&window);
    cr_assert_eq(share->sent.rows, 0);
    (void)when_sent(NOW + UINT64_C(60000000));
    for (int64_t id = 1; id <= 6; id++)
        outbox_window_remove(&window, &entries[id]);
    cr_assert_eq(share->all.rows + share->sent.rows + share->failing.rows, 0);
    cr_assert_eq(share->all.bytes + share->sent.bytes + share->failing.bytes, 0);
    cr_assert_eq(window.count + window.bytes + window.sent, 0);
}

/* ---- ids of users that somebody chose ---- */

#define USERS     5000
#define FIBONACCI UINT64_C(0x9e3779b97f4a7c15)

/* CPU time of this thread for a row of each user, sent once. */
static int64_t cost_of(const int32_t *users)
{
    struct outbox_entry *rows = calloc(USERS, sizeof(*rows));
    cr_assert_not_null(rows);
    given_empty_window();
    struct timespec start;
    struct timespec end;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
    for (int i = 0; i < USERS; i++) {
        rows[i] = (struct outbox_entry){.id = i + 1, .auth_id = users[i], .has_auth_id = true};
        outbox_window_add(&window, &rows[i]);
    }
    struct outbox_entry *entry = NULL;
    while ((entry = outbox_window_next_sendable(&window, entry, NOW)) != NULL)
        outbox_window_mark_sent(&window, entry);
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
    given_empty_window();
    free(rows);
    return (end.tv_sec - start.tv_sec) * 1000000 + (end.tv_nsec - start.tv_nsec) / 1000;
}

/* They all belong into one bucket of a hash that anybody can compute. */
Test(outbox_window, takes_users_that_were_chosen_to_meet_as_any_others)
{
    static int32_t chosen[USERS];
    static int32_t others[USERS];
    int count = 0;
    for (uint64_t id = 0; count < USERS; id++) {
        if (((id * FIBONACCI) >> 32) % OUTBOX_WINDOW_BUCKETS == 0)
            chosen[count++] = (int32_t)id;
    }
    for (int i = 0; i < USERS; i++)
        others[i] = i * 7919;
    (void)cost_of(others); /* warm */
    int64_t usual_us = cost_of(others);
    int64_t chosen_us = cost_of(chosen);
    cr_assert_lt(chosen_us, 20 * (usual_us + 100), "%lld us against %lld", (long long)chosen_us,
        (long long)usual_us);
}
