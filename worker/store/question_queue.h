/* Where questions wait: a lock-free list that any thread puts them into, and from which the loop
 * thread moves them into one queue for each kind. Knows deadlines and cancellation, not databases.
 *
 * A queue holds a line for each source, first-in first-out, and lines take turns: whoever asks a
 * lot waits behind himself. A turn is worth so many rows; who asks for more in one question goes
 * into debt (surplus round robin) and sits out. The bound counts what waits in the list and in the
 * queues together. The eventfd is written only when the list was empty: a burst costs one system
 * call.
 */
#ifndef USERD_WORKER_STORE_QUESTION_QUEUE_H
#define USERD_WORKER_STORE_QUESTION_QUEUE_H

#include "worker/store/user_store.h"

struct question_intake {
    _Alignas(CACHE_LINE_SIZE) _Atomic(struct user_question *) newest;
    _Alignas(CACHE_LINE_SIZE) atomic_size_t waiting;
    atomic_bool is_open; /* false: every question is answered USER_UNAVAILABLE at once */
    size_t bound;
    int wake_fd; /* owned: eventfd, written when the list is no longer empty; never read */
};

/* How fast the database has answered lately; for telling how long a newcomer would wait. */
struct question_pace {
    int64_t cost_ns;    /* for each row asked for, under load */
    int64_t latency_us; /* from the sending of a batch to its answer */
    int64_t last_us;    /* the last answer */
};

/* The questions of one source. */
struct question_line {
    struct user_question *first;
    struct user_question *last;
    uint64_t cost; /* of all of them */
    uint32_t next; /* in the ring */
    int32_t credit;
};

/* Zeroed at first, but for `intake`. */
struct question_queue {
    struct question_intake *intake; /* whose `waiting` it counts down */
    struct question_line *lines;    /* owned; by source */
    uint32_t line_count;
    uint32_t ring_last;  /* the lines that have questions, in a ring: the one before the next */
    uint32_t ring_count; /* how many; 0: the queue is empty */
    uint64_t cost;       /* of all that waits */
    int64_t standing_since_us; /* when newcomers last found it empty */
    struct question_pace pace;
};

MUST_CHECK int question_intake_init(struct question_intake *intake, size_t bound);
void question_intake_cleanup(struct question_intake *intake);

/* Any thread. True: it waits. False: it was not taken, and *ret_outcome is what to answer. */
MUST_CHECK bool question_intake_put(
    struct question_intake *intake, struct user_question *question, enum user_outcome *ret_outcome);
/* Loop thread: empties the list into `queues`. One whose deadline will have passed before its turn
 * comes, or almost, is answered USER_HOPELESS. */
void question_intake_take(
    struct question_intake *intake, struct question_queue queues[USER_QUESTION_KINDS]);

/* Whether there is no use in asking any more, and what to answer then. */
bool question_is_over(
    const struct user_question *question, int64_t now_us, enum user_outcome *ret_outcome);

static inline uint64_t question_cost(const struct user_question *question)
{
    return question->cost > 0 ? question->cost : 1;
}

static inline bool question_queue_is_empty(const struct question_queue *queue)
{
    return queue->ring_count == 0;
}
/* The next question that is still of use; those before it that are over are answered. NULL: none.
 */
const struct user_question *question_queue_next(struct question_queue *queue, int64_t now_us);
/* Takes that one out, whatever has become of it: it may be cancelled at any moment. */
struct user_question *question_queue_pop_next(struct question_queue *queue);
/* Both. */
struct user_question *question_queue_pop(struct question_queue *queue, int64_t now_us);
/* Puts a list of popped questions (in the order of popping, joined by `next`) back to the front. */
void question_queue_put_back(struct question_queue *queue, struct user_question *first);
/* A batch of this kind that was sent at `sent_us` has been answered: of so many rows, 0 where it
 * had room for more. */
void question_queue_note_pace(
    struct question_queue *queue, uint64_t cost, int64_t sent_us, int64_t now_us);
/* Answers all that are over, and lets the others know that they wait. */
void question_queue_sweep(struct question_queue *queue, int64_t now_us);
/* Answers everything. */
void question_queue_answer_all(struct question_queue *queue, enum user_outcome outcome);
/* Nothing waits any more. */
void question_queue_cleanup(struct question_queue *queue);

#endif
