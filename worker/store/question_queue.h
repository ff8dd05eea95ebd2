/* Where questions wait: a lock-free list that any thread puts them into, and from which the loop
 * thread moves them into one first-in first-out queue for each kind. Knows deadlines and
 * cancellation, not databases.
 *
 * The bound counts what waits in the list and in the queues together. The eventfd is written only
 * when the list was empty: a burst costs one system call.
 */
#ifndef USERD_WORKER_STORE_QUESTION_QUEUE_H
#define USERD_WORKER_STORE_QUESTION_QUEUE_H

#include "worker/store/user_store.h"

struct question_intake {
    _Alignas(CACHE_LINE_SIZE) _Atomic(struct user_question *) newest;
    _Alignas(CACHE_LINE_SIZE) atomic_size_t waiting;
    atomic_bool is_open; /* false: every question is answered USER_UNAVAILABLE at once */
    size_t bound;
    int wake_fd; /* owned: eventfd, readable when the list may hold questions */
};

struct question_queue {
    struct question_intake *intake; /* whose `waiting` it counts down */
    struct user_question *first;
    struct user_question *last;
};

MUST_CHECK int question_intake_init(struct question_intake *intake, size_t bound);
void question_intake_cleanup(struct question_intake *intake);

/* Any thread. True: it waits. False: it was not taken, and *ret_outcome is what to answer. */
MUST_CHECK bool question_intake_put(
    struct question_intake *intake, struct user_question *question, enum user_outcome *ret_outcome);
/* Loop thread: empties the list into `queues`, in the order of asking. */
void question_intake_take(
    struct question_intake *intake, struct question_queue queues[USER_QUESTION_KINDS]);

/* Whether there is no use in asking any more, and what to answer then. */
bool question_is_over(
    const struct user_question *question, int64_t now_us, enum user_outcome *ret_outcome);

/* The oldest question that is still of use, taken out; those before it that are over are answered.
 * NULL: none. */
struct user_question *question_queue_pop(struct question_queue *queue, int64_t now_us);
/* Puts a list of popped questions (oldest first, joined by `next`) back to the front. */
void question_queue_put_back(struct question_queue *queue, struct user_question *first,
    struct user_question *last, size_t count);
/* Answers all that are over, and lets the others know that they wait. */
void question_queue_sweep(struct question_queue *queue, int64_t now_us);
/* Answers everything. */
void question_queue_answer_all(struct question_queue *queue, enum user_outcome outcome);

#endif
