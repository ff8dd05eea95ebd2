/* One consumed partition: its position, the one batch that is in flight, when to try again and how
 * much at a time.
 *
 * Pure logic without clocks, Kafka or channels. The caller holds the records in offset order; this
 * says how many of them go into the next batch and what an answer means. A batch that costs its
 * worker's life three times is taken apart: from then on one record at a time, and the record that
 * costs three more lives is refused, until all that was held is done. A position that PostgreSQL
 * does not have yet is stored there before anything else is sent.
 */
#ifndef USERD_EVENTD_PARTITION_WINDOW_H
#define USERD_EVENTD_PARTITION_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PARTITION_WINDOW_DEATHS 3 /* workers that one batch, and then one record, may cost */

enum partition_phase {
    PARTITION_READY,     /* what is held may be sent when `not_before_us` has come */
    PARTITION_IN_FLIGHT, /* a worker has a batch */
    PARTITION_LOST,      /* the position is not what we thought: ask PostgreSQL again */
};

enum partition_outcome {
    PARTITION_APPLIED,
    PARTITION_MISMATCH,
    PARTITION_UNAVAILABLE,
    PARTITION_WORKER_GONE,
};

struct partition_window {
    enum partition_phase phase;
    int64_t position; /* next_offset as PostgreSQL has it; -1: it has none */
    bool is_first;    /* PostgreSQL has no row for it */
    bool must_move;   /* PostgreSQL has to be told `move_to` first */
    int64_t move_to;
    size_t held;      /* records that the caller holds */
    size_t in_flight; /* how many of them, from the first on, are in the batch */
    int64_t next_position;
    bool is_singly;        /* one record at a time, until nothing is held */
    unsigned int deaths;   /* workers that went with the batch, or the single record, at the head */
    unsigned int failures; /* in a row, of any kind: how long to hold back */
    uint64_t not_before_us;
};

/* `stored`: next_offset in PostgreSQL, or -1; `start`: where reading starts. */
void partition_window_init(struct partition_window *window, int64_t stored, int64_t start);
/* The position is to be stored again where it is, if nothing is on its way: more is known of it. */
void partition_window_repeat(struct partition_window *window);
/* Whether the position is to be moved now. */
bool partition_window_can_move(const struct partition_window *window, uint64_t now_us);
/* The move to `move_to` is on its way: partition_window_answered() ends it. */
void partition_window_move_sent(struct partition_window *window);
/* `count` more records are held. */
void partition_window_hold(struct partition_window *window, size_t count);
/* How many records the next batch takes, from the first held one on; 0: nothing to send now. */
size_t partition_window_batch_size(const struct partition_window *window, uint64_t now_us);
/* The first held record has cost too many workers: it is sent with a refusal. */
bool partition_window_refuses_head(const struct partition_window *window);
/* A batch of `count` records, with these first and last offsets, is on its way. */
void partition_window_sent(
    struct partition_window *window, size_t count, int64_t first_offset, int64_t last_offset);
/* The batch's answer: how many held records are done and must be let go. `random` is any number,
 * for jitter. */
size_t partition_window_answered(struct partition_window *window, enum partition_outcome outcome,
    uint64_t now_us, uint32_t random);

/* How long to hold back after so many failures in a row: doubling from 100 ms to 5 s, a half to all
 * of it. */
uint64_t partition_window_delay_us(unsigned int failures, uint32_t random);

#endif
