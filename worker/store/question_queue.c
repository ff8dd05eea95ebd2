#include "worker/store/question_queue.h"

#include <errno.h>
#include <sys/eventfd.h>

#include "common/file_descriptor.h"

int question_intake_init(struct question_intake *intake, size_t bound)
{
    int wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake_fd < 0)
        return -errno;
    atomic_init(&intake->newest, NULL);
    atomic_init(&intake->waiting, 0);
    atomic_init(&intake->is_open, false);
    intake->bound = bound;
    intake->wake_fd = wake_fd;
    return 0;
}

void question_intake_cleanup(struct question_intake *intake)
{
    fd_close(&intake->wake_fd);
}

bool question_intake_put(
    struct question_intake *intake, struct user_question *question, enum user_outcome *ret_outcome)
{
    if (!atomic_load_explicit(&intake->is_open, memory_order_relaxed)) {
        *ret_outcome = USER_UNAVAILABLE;
        return false;
    }
    if (atomic_fetch_add_explicit(&intake->waiting, 1, memory_order_relaxed) >= intake->bound) {
        atomic_fetch_sub_explicit(&intake->waiting, 1, memory_order_relaxed);
        *ret_outcome = USER_OVERLOADED;
        return false;
    }
    struct user_question *newest = atomic_load_explicit(&intake->newest, memory_order_relaxed);
    do {
        question->next = newest;
    } while (!atomic_compare_exchange_weak_explicit(
        &intake->newest, &newest, question, memory_order_release, memory_order_relaxed));
    /* From here on the question may already be answered, and gone. */
    if (!newest)
        (void)eventfd_write(intake->wake_fd, 1);
    return true;
}

static void append(struct question_queue *queue, struct user_question *question)
{
    question->next = NULL;
    if (queue->last)
        queue->last->next = question;
    else
        queue->first = question;
    queue->last = question;
}

void question_intake_take(
    struct question_intake *intake, struct question_queue queues[USER_QUESTION_KINDS])
{
    eventfd_t ignored;
    (void)eventfd_read(intake->wake_fd, &ignored);
    struct user_question *newest =
        atomic_exchange_explicit(&intake->newest, NULL, memory_order_acquire);
    struct user_question *oldest = NULL;
    while (newest) {
        struct user_question *question = newest;
        newest = question->next;
        question->next = oldest;
        oldest = question;
    }
    while (oldest) {
        struct user_question *question = oldest;
        oldest = question->next;
        append(&queues[question->kind], question);
    }
}

bool question_is_over(
    const struct user_question *question, int64_t now_us, enum user_outcome *ret_outcome)
{
    if (question->is_cancelled &&
        atomic_load_explicit(question->is_cancelled, memory_order_relaxed)) {
        *ret_outcome = USER_CANCELLED;
        return true;
    }
    if (question->deadline_us <= now_us) {
        *ret_outcome = USER_EXPIRED;
        return true;
    }
    return false;
}

/* Takes out the first question; there is one. */
static struct user_question *shift(struct question_queue *queue)
{
    struct user_question *question = queue->first;
    queue->first = question->next;
    if (!queue->first)
        queue->last = NULL;
    question->next = NULL;
    atomic_fetch_sub_explicit(&queue->intake->waiting, 1, memory_order_relaxed);
    return question;
}

struct user_question *question_queue_pop(struct question_queue *queue, int64_t now_us)
{
    while (queue->first) {
        struct user_question *question = shift(queue);
        enum user_outcome outcome;
        if (!question_is_over(question, now_us, &outcome))
            return question;
        question->on_done(question, outcome);
    }
    return NULL;
}

void question_queue_put_back(struct question_queue *queue, struct user_question *first,
    struct user_question *last, size_t count)
{
    if (!first)
        return;
    last->next = queue->first;
    queue->first = first;
    if (!queue->last)
        queue->last = last;
    atomic_fetch_add_explicit(&queue->intake->waiting, count, memory_order_relaxed);
}

void question_queue_sweep(struct question_queue *queue, int64_t now_us)
{
    /* Taken apart and put together again: an on_done may ask the next question. */
    struct question_queue kept = {.intake = queue->intake};
    size_t kept_count = 0;
    struct user_question *question = question_queue_pop(queue, now_us);
    for (; question; question = question_queue_pop(queue, now_us)) {
        append(&kept, question);
        kept_count++;
        if (question->on_wait)
            question->on_wait(question);
    }
    question_queue_put_back(queue, kept.first, kept.last, kept_count);
}

void question_queue_answer_all(struct question_queue *queue, enum user_outcome outcome)
{
    while (queue->first) {
        struct user_question *question = shift(queue);
        question->on_done(question, outcome);
    }
}
