#include "worker/store/question_queue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "common/file_descriptor.h"
#include "common/monotonic_clock.h"

#define TURN_COST 8    /* rows that a line may ask for in its turn */
#define DEBT_MAX  1024 /* what one question may cost of later turns: it fills a batch by itself */
#define NEW_LINES 16
#define NS_OF_US  1000

/* A queue that has not been empty for so long is there to stay, and the time in it is taken so many
 * times. */
#define STANDING_US     200000
#define STANDING_MARGIN 4

/* A new measurement counts an eighth, and none for more than twice of what was known: a database
 * that stood still for one batch is not slow, and to refuse calls that it could have answered costs
 * more than to let some expire. */
#define PACE_SHIFT    3
#define PACE_STEP_MAX 2
/* What is believed before anything was seen. */
#define PACE_COST_NS    INT64_C(10000)
#define PACE_LATENCY_US INT64_C(1000)

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

/* ---- the ring of lines ---- */

static struct question_line *ring_head(const struct question_queue *queue)
{
    return &queue->lines[queue->lines[queue->ring_last].next];
}

static void ring_rotate(struct question_queue *queue)
{
    queue->ring_last = queue->lines[queue->ring_last].next;
}

/* To the front, or behind all others. */
static void ring_insert(struct question_queue *queue, uint32_t source, bool is_first)
{
    struct question_line *line = &queue->lines[source];
    line->credit = 0;
    if (queue->ring_count++ == 0) {
        line->next = source;
        queue->ring_last = source;
        return;
    }
    line->next = queue->lines[queue->ring_last].next;
    queue->lines[queue->ring_last].next = source;
    if (!is_first)
        queue->ring_last = source;
}

static void ring_remove_head(struct question_queue *queue)
{
    queue->lines[queue->ring_last].next = ring_head(queue)->next;
    queue->ring_count--;
}

/* The line of a source. Without memory for it, the first: then its owner shares it. */
static uint32_t line_of(struct question_queue *queue, uint32_t source)
{
    if (source < queue->line_count)
        return source;
    uint32_t count = queue->line_count + NEW_LINES;
    while (count <= source)
        count *= 2;
    struct question_line *lines = realloc(queue->lines, count * sizeof(*lines));
    if (!lines)
        return 0;
    memset(lines + queue->line_count, 0, (count - queue->line_count) * sizeof(*lines));
    queue->lines = lines;
    queue->line_count = count;
    return source;
}

static void append(struct question_line *line, struct user_question *question)
{
    question->next = NULL;
    if (line->last)
        line->last->next = question;
    else
        line->first = question;
    line->last = question;
}

static void add(struct question_queue *queue, struct user_question *question)
{
    uint32_t source = line_of(queue, question->source);
    struct question_line *line = &queue->lines[source];
    bool was_empty = !line->first;
    append(line, question);
    line->cost += question_cost(question);
    queue->cost += question_cost(question);
    if (was_empty)
        ring_insert(queue, source, false);
}

/* Takes out the first question of the line whose turn it is. */
static struct user_question *shift(struct question_queue *queue)
{
    struct question_line *line = ring_head(queue);
    struct user_question *question = line->first;
    line->first = question->next;
    line->cost -= question_cost(question);
    queue->cost -= question_cost(question);
    if (!line->first) {
        line->last = NULL;
        ring_remove_head(queue);
    }
    question->next = NULL;
    atomic_fetch_sub_explicit(&queue->intake->waiting, 1, memory_order_relaxed);
    return question;
}

/* Turns the ring to the line whose turn it is. */
static void find_turn(struct question_queue *queue)
{
    struct question_line *line = ring_head(queue);
    while (line->credit <= 0) {
        line->credit += TURN_COST;
        if (line->credit > 0)
            break;
        ring_rotate(queue);
        line = ring_head(queue);
    }
}

static int32_t debt_of(const struct user_question *question)
{
    uint64_t cost = question_cost(question);
    return cost > DEBT_MAX ? DEBT_MAX : (int32_t)cost;
}

/* The turn goes on while there is credit left. */
static void pay_turn(
    struct question_queue *queue, uint32_t source, const struct user_question *question)
{
    struct question_line *line = &queue->lines[source];
    line->credit -= debt_of(question);
    bool is_head = queue->ring_count > 0 && ring_head(queue) == line && line->first;
    if (line->credit <= 0 && is_head)
        ring_rotate(queue);
}

/* ---- how long a newcomer waits ---- */

static void follow(int64_t *average, int64_t value, int64_t start)
{
    if (*average == 0)
        *average = start;
    if (value > *average * PACE_STEP_MAX)
        value = *average * PACE_STEP_MAX;
    *average += (value - *average) / (1 << PACE_SHIFT);
}

void question_queue_note_pace(
    struct question_queue *queue, uint64_t cost, int64_t sent_us, int64_t now_us)
{
    struct question_pace *pace = &queue->pace;
    int64_t start_us = sent_us > pace->last_us ? sent_us : pace->last_us;
    pace->last_us = now_us;
    follow(&pace->latency_us, now_us - sent_us, PACE_LATENCY_US);
    if (cost > 0)
        follow(&pace->cost_ns, (now_us - start_us) * NS_OF_US / (int64_t)cost, PACE_COST_NS);
}

/* The estimate is taken half as long again: a queue that is just as long as deadlines are lets all
 * that stand in it expire, with the work done for them, at the first slow moment. One that has
 * stood for a while is no burst that will pass, and no shorter for being long: there newcomers are
 * taken for a part of their time only, so that what is taken is answered soon, and in spite of a
 * slow moment. Only what waits already counts: the first in a queue is always tried, so that an
 * estimate that was true once does not last for ever. */
static bool is_hopeless(
    const struct question_queue *queue, const struct user_question *question, int64_t now_us)
{
    if (question->deadline_us == INT64_MAX || question_queue_is_empty(queue))
        return false;
    uint64_t own = question->source < queue->line_count ? queue->lines[question->source].cost : 0;
    uint64_t ahead = (own + TURN_COST) * queue->ring_count;
    if (ahead > queue->cost)
        ahead = queue->cost;
    int64_t latency_us = queue->pace.latency_us;
    int64_t ahead_us = (int64_t)ahead * queue->pace.cost_ns / NS_OF_US;
    bool is_standing = now_us - queue->standing_since_us > STANDING_US;
    int64_t needed_us = latency_us + latency_us / 2 +
                        (is_standing ? ahead_us * STANDING_MARGIN : ahead_us + ahead_us / 2);
    return now_us + needed_us > question->deadline_us && question->deadline_us > now_us;
}

void question_intake_take(
    struct question_intake *intake, struct question_queue queues[USER_QUESTION_KINDS])
{
    struct user_question *newest =
        atomic_exchange_explicit(&intake->newest, NULL, memory_order_acquire);
    struct user_question *oldest = NULL;
    while (newest) {
        struct user_question *question = newest;
        newest = question->next;
        question->next = oldest;
        oldest = question;
    }
    int64_t now_us = (int64_t)monotonic_clock_us();
    for (size_t i = 0; i < USER_QUESTION_KINDS; i++)
        if (question_queue_is_empty(&queues[i]))
            queues[i].standing_since_us = now_us;
    while (oldest) {
        struct user_question *question = oldest;
        struct question_queue *queue = &queues[question->kind];
        oldest = question->next;
        if (!is_hopeless(queue, question, now_us)) {
            add(queue, question);
            continue;
        }
        atomic_fetch_sub_explicit(&intake->waiting, 1, memory_order_relaxed);
        question->on_done(question, USER_HOPELESS);
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

const struct user_question *question_queue_next(struct question_queue *queue, int64_t now_us)
{
    while (!question_queue_is_empty(queue)) {
        find_turn(queue);
        enum user_outcome outcome;
        if (!question_is_over(ring_head(queue)->first, now_us, &outcome))
            return ring_head(queue)->first;
        struct user_question *question = shift(queue);
        question->on_done(question, outcome);
    }
    return NULL;
}

struct user_question *question_queue_pop_next(struct question_queue *queue)
{
    uint32_t source = queue->lines[queue->ring_last].next;
    struct user_question *question = shift(queue);
    pay_turn(queue, source, question);
    return question;
}

struct user_question *question_queue_pop(struct question_queue *queue, int64_t now_us)
{
    return question_queue_next(queue, now_us) ? question_queue_pop_next(queue) : NULL;
}

static void put_back_one(struct question_queue *queue, struct user_question *question)
{
    uint32_t source = line_of(queue, question->source);
    struct question_line *line = &queue->lines[source];
    bool was_empty = !line->first;
    question->next = line->first;
    line->first = question;
    if (!line->last)
        line->last = question;
    line->cost += question_cost(question);
    queue->cost += question_cost(question);
    atomic_fetch_add_explicit(&queue->intake->waiting, 1, memory_order_relaxed);
    if (was_empty)
        ring_insert(queue, source, true);
    else
        line->credit += debt_of(question);
}

void question_queue_put_back(struct question_queue *queue, struct user_question *first)
{
    struct user_question *last = NULL;
    while (first) {
        struct user_question *question = first;
        first = question->next;
        question->next = last;
        last = question;
    }
    while (last) {
        struct user_question *question = last;
        last = question->next;
        put_back_one(queue, question);
    }
}

static bool end_if_over(
    struct question_queue *queue, struct user_question *question, int64_t now_us)
{
    enum user_outcome outcome;
    if (!question_is_over(question, now_us, &outcome))
        return false;
    queue->cost -= question_cost(question);
    atomic_fetch_sub_explicit(&queue->intake->waiting, 1, memory_order_relaxed);
    question->on_done(question, outcome);
    return true;
}

/* An on_done may ask the next question, which goes into the list and not into a line. */
static void sweep_line(struct question_queue *queue, struct question_line *line, int64_t now_us)
{
    struct user_question *question = line->first;
    line->first = NULL;
    line->last = NULL;
    line->cost = 0;
    while (question) {
        struct user_question *next = question->next;
        if (!end_if_over(queue, question, now_us)) {
            append(line, question);
            line->cost += question_cost(question);
            if (question->on_wait)
                question->on_wait(question);
        }
        question = next;
    }
}

void question_queue_sweep(struct question_queue *queue, int64_t now_us)
{
    for (uint32_t lines = queue->ring_count; lines > 0; lines--) {
        struct question_line *line = ring_head(queue);
        sweep_line(queue, line, now_us);
        if (line->first)
            ring_rotate(queue);
        else
            ring_remove_head(queue);
    }
}

void question_queue_answer_all(struct question_queue *queue, enum user_outcome outcome)
{
    while (!question_queue_is_empty(queue)) {
        struct user_question *question = shift(queue);
        question->on_done(question, outcome);
    }
}

void question_queue_cleanup(struct question_queue *queue)
{
    free(queue->lines);
    queue->lines = NULL;
    queue->line_count = 0;
}
