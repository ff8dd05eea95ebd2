/* worker/events/outbox_hold: one destination that cannot be written to does not starve another. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "worker/events/outbox_hold.h"
#include "worker/events/outbox_row.h"

#define NOW     UINT64_C(1000000000)
#define DELETES 1
#define LETTERS 2

static struct outbox_window window;
static struct outbox_hold hold;

static void given_nothing(void)
{
    memset(&window, 0, sizeof(window));
    memset(&hold, 0, sizeof(hold));
}

static void finally_nothing(void)
{
    while (window.first != NULL)
        outbox_row_free(&window, window.first);
}

TestSuite(outbox_hold, .init = given_nothing, .fini = finally_nothing);

static void given_row(int64_t id, int destination, size_t bytes)
{
    struct outbox_row *row = calloc(1, sizeof(*row));
    Userd__Ipc__OutboxRow *message = malloc(sizeof(*message));
    cr_assert(row != NULL && message != NULL);
    userd__ipc__outbox_row__init(message);
    message->destination = (Userd__Ipc__Destination)destination;
    row->message = message;
    row->entry.id = id;
    row->entry.bytes = bytes;
    row->entry.destination = (unsigned int)destination;
    outbox_window_add(&window, &row->entry);
}

/* Sent and refused, as long as its time to be sent has come. */
static void when_all_fail(int destination)
{
    for (struct outbox_entry *entry = window.first; entry != NULL; entry = entry->next) {
        if ((int)outbox_row_of(entry)->message->destination != destination)
            continue;
        outbox_window_mark_sent(&window, entry);
        cr_assert_not_null(outbox_window_mark_failed(&window, window.epoch, entry->id, NOW));
    }
}

static size_t count_of(int destination)
{
    size_t count = 0;
    for (struct outbox_entry *entry = window.first; entry != NULL; entry = entry->next)
        count += (int)outbox_row_of(entry)->message->destination == destination;
    return count;
}

Test(outbox_hold, leaves_alone_what_fails_within_its_share)
{
    for (int64_t id = 1; id <= OUTBOX_HOLD_ROWS; id++)
        given_row(id, LETTERS, 100);
    when_all_fail(LETTERS);
    cr_assert_not(outbox_hold_update(&hold, &window, NOW));
    cr_assert_eq(hold.held_count, 0);
    cr_assert_eq(window.count, OUTBOX_HOLD_ROWS);
}

Test(outbox_hold, lets_go_of_the_newest_rows_over_the_share_and_of_nobody_elses)
{
    for (int64_t id = 1; id <= 3000; id++)
        given_row(id, LETTERS, 100);
    for (int64_t id = 3001; id <= 3500; id++)
        given_row(id, DELETES, 100);
    when_all_fail(LETTERS);
    cr_assert_not(outbox_hold_update(&hold, &window, NOW));
    cr_assert_eq(hold.held_count, 1);
    cr_assert_eq(hold.held[0], LETTERS);
    cr_assert_eq(count_of(LETTERS), OUTBOX_HOLD_ROWS);
    cr_assert_eq(count_of(DELETES), 500);
    cr_assert_not_null(outbox_window_find(&window, OUTBOX_HOLD_ROWS));
    cr_assert_null(outbox_window_find(&window, OUTBOX_HOLD_ROWS + 1));
}

/* A row that has not failed yet would overtake those before it that are let go. */
Test(outbox_hold, lets_go_of_rows_that_never_failed_as_well)
{
    for (int64_t id = 1; id <= 2000; id++)
        given_row(id, LETTERS, 100);
    when_all_fail(LETTERS);
    given_row(2001, LETTERS, 100);
    (void)outbox_hold_update(&hold, &window, NOW);
    cr_assert_null(outbox_window_find(&window, 2001));
}

/* What a read brings that was on its way then may stand behind rows that were let go. */
Test(outbox_hold, says_that_a_hold_has_begun_once)
{
    for (int64_t id = 1; id <= 2000; id++)
        given_row(id, LETTERS, 100);
    (void)outbox_hold_update(&hold, &window, NOW);
    cr_assert_not(hold.has_begun);
    when_all_fail(LETTERS);
    (void)outbox_hold_update(&hold, &window, NOW);
    cr_assert(hold.has_begun);
    (void)outbox_hold_update(&hold, &window, NOW);
    cr_assert(hold.has_begun, "until a read is asked for");
    hold.has_begun = false;
    (void)outbox_hold_update(&hold, &window, NOW);
    cr_assert_not(hold.has_begun, "it only goes on");
}

Test(outbox_hold, keeps_one_row_however_large)
{
    given_row(1, LETTERS, 2 * OUTBOX_HOLD_BYTES);
    given_row(2, LETTERS, 2 * OUTBOX_HOLD_BYTES);
    when_all_fail(LETTERS);
    (void)outbox_hold_update(&hold, &window, NOW);
    cr_assert_eq(hold.held_count, 1);
    cr_assert_not_null(outbox_window_find(&window, 1));
    cr_assert_null(outbox_window_find(&window, 2));
}

Test(outbox_hold, ends_when_half_of_the_share_is_free)
{
    for (int64_t id = 1; id <= 2000; id++)
        given_row(id, LETTERS, 100);
    when_all_fail(LETTERS);
    cr_assert_not(outbox_hold_update(&hold, &window, NOW));
    for (int64_t id = 1; id <= OUTBOX_HOLD_ROWS; id++) {
        cr_assert_eq(hold.held_count, 1);
        struct outbox_entry *entry = outbox_window_find(&window, id);
        outbox_window_mark_sent(&window, entry);
        cr_assert_not_null(outbox_window_mark_done(&window, window.epoch, id));
        if (outbox_hold_update(&hold, &window, NOW))
            break;
    }
    cr_assert_eq(hold.held_count, 0);
    cr_assert_eq(window.count, OUTBOX_HOLD_ROWS, "what is done stays until the database has it");
}

/* ---- a destination that neither takes its rows nor refuses them ---- */

static void when_all_are_sent(int destination)
{
    for (struct outbox_entry *entry = window.first; entry != NULL; entry = entry->next) {
        if ((int)entry->destination == destination && entry->state == OUTBOX_WAITING)
            outbox_window_mark_sent(&window, entry);
    }
}

/* All that it may have; the hold has looked at them once. */
static void given_a_full_share_on_its_way(void)
{
    for (int64_t id = 1; id <= OUTBOX_SHARE_ROWS; id++)
        given_row(id, DELETES, 100);
    when_all_are_sent(DELETES);
    cr_assert_not(outbox_hold_update(&hold, &window, NOW));
    cr_assert_eq(hold.held_count, 0);
}

Test(outbox_hold, leaves_room_for_others_beside_rows_that_nobody_acknowledges)
{
    given_a_full_share_on_its_way();
    cr_assert_not(outbox_window_has_room(&window), "a read could bring more of them");
    uint64_t next_us = outbox_hold_next_us(&hold, &window);
    cr_assert_eq(next_us, NOW + OUTBOX_HOLD_SILENCE_US);
    (void)outbox_hold_update(&hold, &window, next_us - 1);
    cr_assert_eq(hold.held_count, 0);
    (void)outbox_hold_update(&hold, &window, next_us);
    cr_assert_eq(hold.held_count, 1);
    cr_assert_eq(hold.held[0], DELETES);
    cr_assert(outbox_window_has_room(&window));
    cr_assert_eq(count_of(DELETES), OUTBOX_SHARE_ROWS, "what is on its way stays");
    cr_assert_eq(outbox_hold_next_us(&hold, &window), UINT64_MAX);
}

Test(outbox_hold, does_not_hold_a_destination_that_answers_slowly)
{
    given_a_full_share_on_its_way();
    uint64_t now_us = NOW;
    for (int64_t id = 1; id <= 100; id++) {
        now_us += OUTBOX_HOLD_SILENCE_US - 1;
        cr_assert_not_null(outbox_window_mark_done(&window, window.epoch, id));
        (void)outbox_hold_update(&hold, &window, now_us);
        cr_assert_eq(hold.held_count, 0);
    }
}

Test(outbox_hold, of_silence_ends_when_few_are_on_their_way)
{
    given_a_full_share_on_its_way();
    (void)outbox_hold_update(&hold, &window, NOW + OUTBOX_HOLD_SILENCE_US);
    cr_assert_eq(hold.held_count, 1);
    int64_t last = OUTBOX_SHARE_ROWS - OUTBOX_HOLD_ROWS / 2;
    for (int64_t id = 1; id <= last; id++) {
        cr_assert_not_null(outbox_window_mark_done(&window, window.epoch, id));
        bool has_ended = outbox_hold_update(&hold, &window, NOW + OUTBOX_HOLD_SILENCE_US);
        cr_assert_eq(has_ended, id == last, "row %d of %d", (int)id, (int)last);
    }
    cr_assert_eq(hold.held_count, 0);
}

Test(outbox_hold, of_silence_ends_with_the_epoch)
{
    given_a_full_share_on_its_way();
    (void)outbox_hold_update(&hold, &window, NOW + OUTBOX_HOLD_SILENCE_US);
    outbox_window_begin_epoch(&window);
    cr_assert(outbox_hold_update(&hold, &window, NOW + OUTBOX_HOLD_SILENCE_US));
    cr_assert_eq(hold.held_count, 0);
}

Test(outbox_hold, lets_go_of_what_waits_behind_rows_that_nobody_acknowledges)
{
    given_a_full_share_on_its_way();
    given_row(OUTBOX_SHARE_ROWS + 1, DELETES, 100);
    given_row(OUTBOX_SHARE_ROWS + 2, LETTERS, 100);
    (void)outbox_hold_update(&hold, &window, NOW + OUTBOX_HOLD_SILENCE_US);
    cr_assert_null(outbox_window_find(&window, OUTBOX_SHARE_ROWS + 1));
    cr_assert_not_null(outbox_window_find(&window, OUTBOX_SHARE_ROWS + 2));
}
