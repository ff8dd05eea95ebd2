/* eventd/partition_window: what an answer means for the position, the records held, and the next
 * batch. */
#include <criterion/criterion.h>

#include "eventd/partition_window.h"

#define NOW    UINT64_C(1000000000)
#define RANDOM 12345U

static struct partition_window given_window_with(int64_t stored, size_t held)
{
    struct partition_window window;
    partition_window_init(&window, stored, stored);
    partition_window_hold(&window, held);
    return window;
}

/* Long after any delay. */
static uint64_t later(const struct partition_window *window)
{
    return window->not_before_us + 1;
}

static size_t when_sent_and_answered(
    struct partition_window *window, int64_t first, enum partition_outcome outcome)
{
    size_t count = partition_window_batch_size(window, later(window));
    cr_assert_gt(count, 0);
    partition_window_sent(window, count, first, first + (int64_t)count - 1);
    return partition_window_answered(window, outcome, NOW, RANDOM);
}

Test(partition_window, has_nothing_to_send_without_records)
{
    struct partition_window window = given_window_with(10, 0);
    cr_assert_eq(partition_window_batch_size(&window, NOW), 0);
}

Test(partition_window, has_one_batch_in_flight_at_a_time)
{
    struct partition_window window = given_window_with(10, 3);
    partition_window_sent(&window, 3, 10, 12);
    cr_assert_eq(partition_window_batch_size(&window, UINT64_MAX), 0);
}

Test(partition_window, moves_its_position_when_the_batch_is_applied)
{
    struct partition_window window = given_window_with(10, 3);
    cr_assert_eq(when_sent_and_answered(&window, 10, PARTITION_APPLIED), 3);
    cr_assert_eq(window.position, 13);
    cr_assert_eq(window.held, 0);
    cr_assert_eq(window.phase, PARTITION_READY);
}

Test(partition_window, steps_over_holes_in_the_offsets)
{
    struct partition_window window = given_window_with(10, 2);
    partition_window_sent(&window, 2, 15, 20);
    cr_assert_eq(
        window.position, 10, "the stored position is what is compared, not the first offset");
    (void)partition_window_answered(&window, PARTITION_APPLIED, NOW, RANDOM);
    cr_assert_eq(window.position, 21);
}

Test(partition_window, stores_where_reading_starts_before_any_record)
{
    struct partition_window window;
    partition_window_init(&window, -1, 5);
    partition_window_hold(&window, 2);
    cr_assert(window.is_first);
    cr_assert_eq(partition_window_batch_size(&window, NOW), 0);
    cr_assert(partition_window_can_move(&window, NOW));
    partition_window_move_sent(&window);
    cr_assert_eq(window.position, 5, "there is no row that could be compared with anything else");
    cr_assert_eq(window.next_position, 5);
    cr_assert(!partition_window_can_move(&window, NOW));
    cr_assert_eq(partition_window_answered(&window, PARTITION_APPLIED, NOW, RANDOM), 0);
    cr_assert(!window.is_first);
    cr_assert_eq(window.position, 5);
    cr_assert_eq(partition_window_batch_size(&window, NOW), 2);
}

Test(partition_window, moves_from_the_stored_position_to_the_start)
{
    struct partition_window window;
    partition_window_init(&window, 50, 3);
    partition_window_move_sent(&window);
    cr_assert_eq(window.position, 50);
    cr_assert_eq(window.next_position, 3);
    (void)partition_window_answered(&window, PARTITION_UNAVAILABLE, NOW, RANDOM);
    cr_assert(!partition_window_can_move(&window, NOW), "not before the delay");
    cr_assert(partition_window_can_move(&window, later(&window)));
    partition_window_move_sent(&window);
    (void)partition_window_answered(&window, PARTITION_APPLIED, NOW, RANDOM);
    cr_assert_eq(window.position, 3);
}

Test(partition_window, does_not_blame_a_move_for_a_dead_worker)
{
    struct partition_window window;
    partition_window_init(&window, 50, 3);
    for (int i = 0; i < 2 * PARTITION_WINDOW_DEATHS; i++) {
        partition_window_move_sent(&window);
        (void)partition_window_answered(&window, PARTITION_WORKER_GONE, NOW, RANDOM);
    }
    cr_assert_eq(window.deaths, 0);
    cr_assert(!window.is_singly);
}

Test(partition_window, stores_the_position_again_only_while_nothing_is_on_its_way)
{
    struct partition_window window = given_window_with(10, 1);
    partition_window_sent(&window, 1, 10, 10);
    partition_window_repeat(&window);
    cr_assert(!window.must_move);
    (void)partition_window_answered(&window, PARTITION_APPLIED, NOW, RANDOM);
    partition_window_repeat(&window);
    cr_assert(partition_window_can_move(&window, NOW));
    partition_window_move_sent(&window);
    cr_assert_eq(window.next_position, 11);
}

Test(partition_window, stays_first_until_a_batch_is_applied)
{
    struct partition_window window = given_window_with(-1, 1);
    (void)when_sent_and_answered(&window, 7, PARTITION_UNAVAILABLE);
    cr_assert(window.is_first);
}

Test(partition_window, holds_back_after_a_failure_and_keeps_the_records)
{
    struct partition_window window = given_window_with(10, 3);
    cr_assert_eq(when_sent_and_answered(&window, 10, PARTITION_UNAVAILABLE), 0);
    cr_assert_eq(window.held, 3);
    cr_assert_eq(window.position, 10);
    cr_assert_eq(partition_window_batch_size(&window, NOW), 0);
    cr_assert_eq(partition_window_batch_size(&window, later(&window)), 3);
}

Test(partition_window, is_lost_when_the_position_does_not_match)
{
    struct partition_window window = given_window_with(10, 3);
    cr_assert_eq(when_sent_and_answered(&window, 10, PARTITION_MISMATCH), 0);
    cr_assert_eq(window.phase, PARTITION_LOST);
    cr_assert_eq(partition_window_batch_size(&window, UINT64_MAX), 0);
}

Test(partition_window, does_not_count_an_unavailable_database_as_a_death)
{
    struct partition_window window = given_window_with(10, 3);
    for (int i = 0; i < 10; i++)
        (void)when_sent_and_answered(&window, 10, PARTITION_UNAVAILABLE);
    cr_assert_not(window.is_singly);
    cr_assert_eq(window.deaths, 0);
}

Test(partition_window, sends_one_record_at_a_time_after_three_deaths)
{
    struct partition_window window = given_window_with(10, 3);
    for (int i = 0; i < PARTITION_WINDOW_DEATHS; i++) {
        cr_assert_eq(partition_window_batch_size(&window, later(&window)), 3);
        (void)when_sent_and_answered(&window, 10, PARTITION_WORKER_GONE);
    }
    cr_assert_eq(partition_window_batch_size(&window, later(&window)), 1);
    cr_assert_not(partition_window_refuses_head(&window), "it may not be this record");
}

Test(partition_window, refuses_the_record_that_costs_three_more_workers_and_no_other)
{
    struct partition_window window = given_window_with(10, 3);
    for (int i = 0; i < PARTITION_WINDOW_DEATHS; i++)
        (void)when_sent_and_answered(&window, 10, PARTITION_WORKER_GONE);
    (void)when_sent_and_answered(&window, 10, PARTITION_APPLIED);
    for (int i = 0; i < PARTITION_WINDOW_DEATHS; i++) {
        cr_assert_not(partition_window_refuses_head(&window));
        (void)when_sent_and_answered(&window, 11, PARTITION_WORKER_GONE);
    }
    cr_assert(partition_window_refuses_head(&window));
    (void)when_sent_and_answered(&window, 11, PARTITION_APPLIED);
    cr_assert_not(partition_window_refuses_head(&window));
    (void)when_sent_and_answered(&window, 12, PARTITION_APPLIED);
    cr_assert_eq(window.position, 13);
    cr_assert_not(window.is_singly, "whole batches again once the held records are done");
}

Test(partition_window, refuses_a_lone_record_after_three_deaths)
{
    struct partition_window window = given_window_with(10, 1);
    for (int i = 0; i < PARTITION_WINDOW_DEATHS; i++)
        (void)when_sent_and_answered(&window, 10, PARTITION_WORKER_GONE);
    cr_assert(partition_window_refuses_head(&window));
}

Test(partition_window, doubles_its_delay_with_jitter_up_to_a_bound)
{
    cr_assert_eq(partition_window_delay_us(0, RANDOM), 0);
    for (uint32_t random = 0; random < 100000; random += 777) {
        for (unsigned int failures = 1; failures < 50; failures++) {
            uint64_t delay_us = partition_window_delay_us(failures, random);
            cr_assert_geq(delay_us, 50000);
            cr_assert_leq(delay_us, 5000000);
        }
        cr_assert_leq(partition_window_delay_us(1, random), 100000);
        cr_assert_geq(partition_window_delay_us(20, random), 2500000);
    }
}
