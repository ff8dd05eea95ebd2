#include "eventd/partition_window.h"

#include <assert.h>

#define FIRST_DELAY_US   UINT64_C(100000)
#define LONGEST_DELAY_US UINT64_C(5000000)
#define MAX_DOUBLINGS    6

uint64_t partition_window_delay_us(unsigned int failures, uint32_t random)
{
    if (failures == 0)
        return 0;
    unsigned int doublings = failures - 1 > MAX_DOUBLINGS ? MAX_DOUBLINGS : failures - 1;
    uint64_t delay_us = FIRST_DELAY_US << doublings;
    if (delay_us > LONGEST_DELAY_US)
        delay_us = LONGEST_DELAY_US;
    return delay_us / 2 + random % (delay_us / 2 + 1);
}

void partition_window_init(struct partition_window *window, int64_t stored, int64_t start)
{
    *window = (struct partition_window){
        .phase = PARTITION_READY,
        .position = stored,
        .is_first = stored < 0,
        .must_move = stored != start,
        .move_to = start,
    };
}

void partition_window_repeat(struct partition_window *window)
{
    if (window->phase != PARTITION_READY || window->must_move)
        return;
    window->must_move = true;
    window->move_to = window->position;
}

bool partition_window_can_move(const struct partition_window *window, uint64_t now_us)
{
    return window->phase == PARTITION_READY && window->must_move && now_us >= window->not_before_us;
}

void partition_window_move_sent(struct partition_window *window)
{
    assert(window->phase == PARTITION_READY && window->must_move);
    if (window->position < 0)
        window->position = window->move_to;
    window->phase = PARTITION_IN_FLIGHT;
    window->in_flight = 0;
    window->next_position = window->move_to;
}

void partition_window_hold(struct partition_window *window, size_t count)
{
    window->held += count;
}

size_t partition_window_batch_size(const struct partition_window *window, uint64_t now_us)
{
    if (window->phase != PARTITION_READY || window->must_move || now_us < window->not_before_us ||
        window->held == 0)
        return 0;
    return window->is_singly ? 1 : window->held;
}

bool partition_window_refuses_head(const struct partition_window *window)
{
    return window->is_singly && window->deaths >= PARTITION_WINDOW_DEATHS;
}

void partition_window_sent(
    struct partition_window *window, size_t count, int64_t first_offset, int64_t last_offset)
{
    assert(window->phase == PARTITION_READY && !window->must_move && count > 0 &&
           count <= window->held);
    /* Offsets may have holes, but never run backwards. */
    assert(last_offset >= first_offset);
    window->phase = PARTITION_IN_FLIGHT;
    window->in_flight = count;
    window->next_position = last_offset + 1;
}

static size_t on_applied(struct partition_window *window)
{
    size_t done = window->in_flight;
    window->position = window->next_position;
    window->is_first = false;
    window->must_move = false;
    window->held -= done;
    window->deaths = 0;
    window->failures = 0;
    window->not_before_us = 0;
    if (window->held == 0)
        window->is_singly = false;
    return done;
}

static void on_worker_gone(struct partition_window *window)
{
    if (window->in_flight == 0)
        return; /* a move has nothing that could kill */
    window->deaths++;
    if (window->is_singly || window->deaths < PARTITION_WINDOW_DEATHS)
        return;
    window->is_singly = true;
    /* A batch of one has already shown which record it is. */
    if (window->in_flight > 1)
        window->deaths = 0;
}

size_t partition_window_answered(struct partition_window *window, enum partition_outcome outcome,
    uint64_t now_us, uint32_t random)
{
    assert(window->phase == PARTITION_IN_FLIGHT);
    size_t done = 0;
    window->phase = PARTITION_READY;
    window->failures++;
    switch (outcome) {
    case PARTITION_APPLIED:
        done = on_applied(window);
        break;
    case PARTITION_MISMATCH:
        window->phase = PARTITION_LOST;
        break;
    case PARTITION_UNAVAILABLE:
        break;
    case PARTITION_WORKER_GONE:
        on_worker_gone(window);
        break;
    }
    if (window->failures > 0)
        window->not_before_us = now_us + partition_window_delay_us(window->failures, random);
    window->in_flight = 0;
    return done;
}
