/* Which worker gets the next connection. */
#include <criterion/criterion.h>

#include "master/worker_choice.h"

/* Passes `count` connections one after another and counts them in the candidates. */
static void pass(struct worker_candidate *workers, size_t worker_count, unsigned int count)
{
    uint32_t last_slot = 0;
    for (unsigned int i = 0; i < count; i++) {
        int chosen = worker_choice_next(workers, worker_count, last_slot);
        cr_assert_geq(chosen, 0);
        workers[chosen].living++;
        last_slot = workers[chosen].slot;
    }
}

Test(worker_choice, spreads_eight_connections_over_two_workers_as_four_and_four)
{
    struct worker_candidate workers[] = {
        {.slot = 1, .can_take = true}, {.slot = 2, .can_take = true}};
    pass(workers, 2, 8);
    cr_assert_eq(workers[0].living, 4);
    cr_assert_eq(workers[1].living, 4);
}

Test(worker_choice, spreads_three_connections_over_two_workers_as_two_and_one)
{
    struct worker_candidate workers[] = {
        {.slot = 1, .can_take = true}, {.slot = 2, .can_take = true}};
    pass(workers, 2, 3);
    cr_assert_eq(workers[0].living, 2);
    cr_assert_eq(workers[1].living, 1);
}

Test(worker_choice, prefers_the_worker_with_the_fewest)
{
    const struct worker_candidate workers[] = {{.slot = 1, .living = 5, .can_take = true},
        {.slot = 2, .living = 3, .can_take = true}, {.slot = 3, .living = 4, .can_take = true}};
    for (uint32_t last_slot = 0; last_slot <= 4; last_slot++)
        cr_assert_eq(worker_choice_next(workers, 3, last_slot), 1);
}

Test(worker_choice, takes_equal_workers_in_turn)
{
    const struct worker_candidate workers[] = {{.slot = 2, .can_take = true},
        {.slot = 5, .can_take = true}, {.slot = 9, .can_take = true}};
    cr_assert_eq(worker_choice_next(workers, 3, 0), 0);
    cr_assert_eq(worker_choice_next(workers, 3, 2), 1);
    cr_assert_eq(worker_choice_next(workers, 3, 5), 2);
    cr_assert_eq(worker_choice_next(workers, 3, 9), 0);
    cr_assert_eq(worker_choice_next(workers, 3, 3), 1, "the last one has gone");
}

/* Connections that come and go one at a time must not all land on the first worker. */
Test(worker_choice, takes_turns_when_each_connection_ends_before_the_next)
{
    const struct worker_candidate workers[] = {{.slot = 1, .can_take = true},
        {.slot = 2, .can_take = true}, {.slot = 3, .can_take = true}};
    unsigned int served[3] = {0};
    uint32_t last_slot = 0;
    for (int i = 0; i < 9; i++) {
        int chosen = worker_choice_next(workers, 3, last_slot);
        served[chosen]++;
        last_slot = workers[chosen].slot;
    }
    for (int i = 0; i < 3; i++)
        cr_assert_eq(served[i], 3);
}

/* A client that is told to go connects anew before it closes: its former worker counts one more
 * than it will have. */
Test(worker_choice, among_equals_prefers_the_one_that_may_lose_one)
{
    struct worker_candidate workers[] = {{.slot = 1, .living = 4, .can_take = true},
        {.slot = 2, .living = 4, .leaving_since_us = 900, .can_take = true},
        {.slot = 3, .living = 4, .can_take = true}};
    for (uint32_t last_slot = 0; last_slot <= 3; last_slot++)
        cr_assert_eq(worker_choice_next(workers, 3, last_slot), 1);
    workers[2].leaving_since_us = 800; /* likelier to be the one */
    for (uint32_t last_slot = 0; last_slot <= 3; last_slot++)
        cr_assert_eq(worker_choice_next(workers, 3, last_slot), 2);
    workers[0].living = 3;
    cr_assert_eq(worker_choice_next(workers, 3, 0), 0, "fewer is fewer");
}

Test(worker_choice, skips_workers_that_cannot_take_one)
{
    struct worker_candidate workers[] = {{.slot = 1, .living = 0, .can_take = false},
        {.slot = 2, .living = 7, .can_take = true}, {.slot = 3, .living = 9, .can_take = true}};
    cr_assert_eq(worker_choice_next(workers, 3, 0), 1);
    workers[1].can_take = false;
    cr_assert_eq(worker_choice_next(workers, 3, 0), 2);
}

Test(worker_choice, says_when_there_is_nobody)
{
    const struct worker_candidate workers[] = {{.slot = 1, .can_take = false}};
    cr_assert_eq(worker_choice_next(workers, 1, 0), -1);
    cr_assert_eq(worker_choice_next(NULL, 0, 0), -1);
}
