/* What is read from the scoreboard, and the rates between two readings. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "common/file_descriptor.h"
#include "master/service_notice.h"
#include "master/status_report.h"

#define SECOND_US UINT64_C(1000000)

static struct scoreboard *board;
static struct status_report first;
static struct status_report second;

static void init(void)
{
    int fd = -1;
    cr_assert_eq(scoreboard_create(&board, &fd), 0);
    fd_close(&fd);
}

static void fini(void)
{
    scoreboard_close(board);
}

TestSuite(status_report, .init = init, .fini = fini);

static struct scoreboard_slot *given_worker(uint32_t slot, uint32_t pid, uint64_t calls)
{
    board->slots[slot].pid = pid;
    board->slots[slot].state = PROCESS_READY;
    board->slots[slot].calls_started = calls;
    return &board->slots[slot];
}

Test(status_report, leaves_empty_slots_out_and_sums_the_others)
{
    (void)given_worker(1, 100, 10);
    (void)given_worker(9, 101, 5);
    board->slots[9].state = PROCESS_DRAINING;
    status_report_read(board, SECOND_US, &first);
    cr_assert_eq(first.worker_count, 2);
    cr_assert_eq(first.ready_count, 1);
    cr_assert_eq(first.workers[1].slot, 9);
    cr_assert_eq(first.calls.started, 15);
}

Test(status_report, counts_living_connections_of_all_listeners)
{
    struct scoreboard_slot *slot = given_worker(1, 100, 0);
    board->master[1].passed[0] = 5;
    board->master[1].passed[3] = 2;
    slot->closed[0] = 1;
    /* passed is read late: never four billion connections */
    slot->closed[4] = 1;
    status_report_read(board, SECOND_US, &first);
    cr_assert_eq(first.connections, 6);
}

Test(status_report, the_relay_knows_the_backlog_best)
{
    given_worker(1, 100, 0)->outbox_backlog = 40;
    struct scoreboard_slot *relay = given_worker(2, 101, 0);
    relay->outbox_backlog = 3;
    relay->is_relay = 1;
    status_report_read(board, SECOND_US, &first);
    cr_assert_eq(first.work.outbox_backlog, 3);
    cr_assert(first.has_relay);
}

/* Another instance publishes, or none: it is one outbox, that two workers may have looked at. */
Test(status_report, without_a_relay_the_backlog_is_what_was_measured)
{
    struct scoreboard_slot *slot = given_worker(1, 100, 0);
    slot->outbox_backlog = 40;
    slot->outbox_oldest_us = 7;
    slot->outbox_unrelayed_us = 20;
    given_worker(2, 101, 0)->outbox_backlog = 38;
    status_report_read(board, SECOND_US, &first);
    cr_assert_eq(first.work.outbox_backlog, 40);
    cr_assert_eq(first.work.outbox_oldest_us, 7);
    cr_assert_eq(first.work.outbox_unrelayed_us, 20);
    cr_assert_not(first.has_relay);
}

Test(status_report, rates_are_calls_by_time_and_a_new_process_counts_from_its_start)
{
    (void)given_worker(1, 100, 1000);
    (void)given_worker(2, 101, 1000);
    status_report_read(board, SECOND_US, &first);
    (void)given_worker(1, 100, 1100);
    (void)given_worker(2, 202, 30);
    status_report_read(board, 3 * SECOND_US, &second);
    status_report_set_rates(&second, &first);
    cr_assert_float_eq(second.workers[0].calls.per_second, 50.0, 0.01);
    cr_assert_float_eq(second.workers[1].calls.per_second, 15.0, 0.01);
    cr_assert_float_eq(second.calls.per_second, 65.0, 0.01);
}

Test(status_report, a_state_that_nobody_knows_is_absent)
{
    (void)given_worker(1, 100, 0);
    board->slots[1].state = 77;
    status_report_read(board, SECOND_US, &first);
    cr_assert_eq(first.workers[0].state, PROCESS_ABSENT);
}

Test(status_report, numbers_for_people_have_commas)
{
    char text[SERVICE_NOTICE_NUMBER_SIZE];
    service_notice_format_number(0, text);
    cr_assert_str_eq(text, "0");
    service_notice_format_number(999, text);
    cr_assert_str_eq(text, "999");
    service_notice_format_number(1234, text);
    cr_assert_str_eq(text, "1,234");
    service_notice_format_number(UINT64_MAX, text);
    cr_assert_str_eq(text, "18,446,744,073,709,551,615");
}
