/* Where questions wait: order, bound, deadlines, cancellation, and many threads at once. */
#include <criterion/criterion.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "common/monotonic_clock.h"
#include "worker/store/question_queue.h"

#define THREADS             4
#define QUESTIONS_OF_THREAD 20000

struct test_question {
    struct user_question question;
    int number;
    int answers;
    int waits;
    enum user_outcome outcome;
};

struct fixture {
    struct question_intake intake;
    struct question_queue queues[USER_QUESTION_KINDS];
};

static void on_done(struct user_question *question, enum user_outcome outcome)
{
    struct test_question *asked = (struct test_question *)(void *)question;
    asked->answers++;
    asked->outcome = outcome;
}

static void count_wait(struct user_question *question)
{
    ((struct test_question *)(void *)question)->waits++;
}

static struct test_question make_question(int number, int64_t deadline_us)
{
    return (struct test_question){
        .question = {.on_done = on_done, .deadline_us = deadline_us, .kind = USER_QUESTION_NAMES},
        .number = number,
    };
}

static void set_up(struct fixture *fixture, size_t bound)
{
    memset((void *)fixture, 0, sizeof(*fixture));
    cr_assert_eq(question_intake_init(&fixture->intake, bound), 0);
    atomic_store(&fixture->intake.is_open, true);
    for (size_t i = 0; i < USER_QUESTION_KINDS; i++)
        fixture->queues[i].intake = &fixture->intake;
}

static void tear_down(struct fixture *fixture)
{
    for (size_t i = 0; i < USER_QUESTION_KINDS; i++)
        question_queue_cleanup(&fixture->queues[i]);
    question_intake_cleanup(&fixture->intake);
}

static bool put(struct fixture *fixture, struct test_question *question)
{
    enum user_outcome outcome = USER_DONE;
    bool is_taken = question_intake_put(&fixture->intake, &question->question, &outcome);
    if (!is_taken)
        question->outcome = outcome;
    return is_taken;
}

static int pop_number(struct fixture *fixture, int64_t now_us)
{
    struct user_question *question =
        question_queue_pop(&fixture->queues[USER_QUESTION_NAMES], now_us);
    return question ? ((struct test_question *)(void *)question)->number : -1;
}

/* How often the loop was woken since the last look. */
static eventfd_t wake_ups(const struct fixture *fixture)
{
    eventfd_t count = 0;
    (void)eventfd_read(fixture->intake.wake_fd, &count);
    return count;
}

Test(question_queue, keeps_the_order_of_asking)
{
    struct fixture fixture;
    struct test_question questions[3];
    set_up(&fixture, 10);
    for (int i = 0; i < 3; i++) {
        questions[i] = make_question(i, INT64_MAX);
        cr_assert(put(&fixture, &questions[i]));
    }
    question_intake_take(&fixture.intake, fixture.queues);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(pop_number(&fixture, 0), i);
    cr_assert_eq(pop_number(&fixture, 0), -1);
    cr_assert_eq(atomic_load(&fixture.intake.waiting), 0);
    tear_down(&fixture);
}

Test(question_queue, wakes_the_loop_only_for_the_first)
{
    struct fixture fixture;
    struct test_question first = make_question(1, INT64_MAX);
    struct test_question second = make_question(2, INT64_MAX);
    struct test_question third = make_question(3, INT64_MAX);
    set_up(&fixture, 10);
    cr_assert_eq(wake_ups(&fixture), 0);
    cr_assert(put(&fixture, &first));
    cr_assert(put(&fixture, &second));
    cr_assert_eq(wake_ups(&fixture), 1);
    question_intake_take(&fixture.intake, fixture.queues);
    cr_assert(put(&fixture, &third));
    cr_assert_eq(wake_ups(&fixture), 1);
    tear_down(&fixture);
}

Test(question_queue, refuses_what_is_over_its_bound)
{
    struct fixture fixture;
    struct test_question questions[3];
    set_up(&fixture, 2);
    for (int i = 0; i < 3; i++)
        questions[i] = make_question(i, INT64_MAX);
    cr_assert(put(&fixture, &questions[0]));
    cr_assert(put(&fixture, &questions[1]));
    cr_assert_not(put(&fixture, &questions[2]));
    cr_assert_eq(questions[2].outcome, USER_OVERLOADED);
    question_intake_take(&fixture.intake, fixture.queues);
    cr_assert_not(put(&fixture, &questions[2])); /* the queues count too */
    cr_assert_eq(pop_number(&fixture, 0), 0);
    cr_assert(put(&fixture, &questions[2]));
    tear_down(&fixture);
}

Test(question_queue, answers_unavailable_while_closed)
{
    struct fixture fixture;
    struct test_question question = make_question(1, INT64_MAX);
    set_up(&fixture, 2);
    atomic_store(&fixture.intake.is_open, false);
    cr_assert_not(put(&fixture, &question));
    cr_assert_eq(question.outcome, USER_UNAVAILABLE);
    cr_assert_eq(atomic_load(&fixture.intake.waiting), 0);
    tear_down(&fixture);
}

Test(question_queue, does_not_hand_out_what_is_over)
{
    struct fixture fixture;
    atomic_bool is_cancelled = true;
    struct test_question expired = make_question(1, 99);
    struct test_question cancelled = make_question(2, INT64_MAX);
    struct test_question living = make_question(3, 101);
    cancelled.question.is_cancelled = &is_cancelled;
    set_up(&fixture, 10);
    cr_assert(put(&fixture, &expired));
    cr_assert(put(&fixture, &cancelled));
    cr_assert(put(&fixture, &living));
    question_intake_take(&fixture.intake, fixture.queues);
    cr_assert_eq(pop_number(&fixture, 100), 3);
    cr_assert_eq(expired.answers, 1);
    cr_assert_eq(expired.outcome, USER_EXPIRED);
    cr_assert_eq(cancelled.answers, 1);
    cr_assert_eq(cancelled.outcome, USER_CANCELLED);
    cr_assert_eq(living.answers, 0);
    tear_down(&fixture);
}

Test(question_queue, sweeps_out_what_is_over_and_keeps_the_rest_in_order)
{
    struct fixture fixture;
    struct test_question questions[6];
    set_up(&fixture, 10);
    for (int i = 0; i < 6; i++) {
        questions[i] = make_question(i, i % 2 ? 50 : 150);
        cr_assert(put(&fixture, &questions[i]));
    }
    question_intake_take(&fixture.intake, fixture.queues);
    for (int i = 0; i < 6; i++)
        questions[i].question.on_wait = count_wait;
    question_queue_sweep(&fixture.queues[USER_QUESTION_NAMES], 100);
    cr_assert_eq(atomic_load(&fixture.intake.waiting), 3);
    for (int i = 0; i < 6; i++)
        cr_assert_eq(questions[i].answers, i % 2);
    for (int i = 0; i < 6; i++)
        cr_assert_eq(questions[i].waits, 1 - i % 2);
    for (int i = 0; i < 6; i += 2)
        cr_assert_eq(pop_number(&fixture, 100), i);
    tear_down(&fixture);
}

Test(question_queue, takes_questions_back_to_the_front)
{
    struct fixture fixture;
    struct test_question questions[3];
    set_up(&fixture, 10);
    for (int i = 0; i < 3; i++) {
        questions[i] = make_question(i, INT64_MAX);
        cr_assert(put(&fixture, &questions[i]));
    }
    question_intake_take(&fixture.intake, fixture.queues);
    struct question_queue *queue = &fixture.queues[USER_QUESTION_NAMES];
    struct user_question *first = question_queue_pop(queue, 0);
    struct user_question *second = question_queue_pop(queue, 0);
    first->next = second;
    question_queue_put_back(queue, first);
    cr_assert_eq(atomic_load(&fixture.intake.waiting), 3);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(pop_number(&fixture, 0), i);
    tear_down(&fixture);
}

/* `count` questions of one source, numbered from `first_number` on. */
static void put_many(struct fixture *fixture, struct test_question *questions, int count,
    int first_number, uint32_t source, uint32_t cost)
{
    for (int i = 0; i < count; i++) {
        questions[i] = make_question(first_number + i, INT64_MAX);
        questions[i].question.source = source;
        questions[i].question.cost = cost;
        cr_assert(put(fixture, &questions[i]));
    }
    question_intake_take(&fixture->intake, fixture->queues);
}

/* How many are popped before number `wanted`. */
static int popped_before(struct fixture *fixture, int wanted)
{
    int before = 0;
    for (int number = pop_number(fixture, 0); number != wanted; number = pop_number(fixture, 0)) {
        cr_assert_neq(number, -1);
        before++;
    }
    return before;
}

Test(question_queue, lets_sources_take_turns)
{
    struct fixture fixture;
    static struct test_question flood[3][500];
    struct test_question polite[1];
    set_up(&fixture, 10000);
    for (uint32_t i = 0; i < 3; i++)
        put_many(&fixture, flood[i], 500, 0, i + 1, 0);
    put_many(&fixture, polite, 1, 7777, 40, 0);
    int before = popped_before(&fixture, 7777);
    cr_assert(before <= 3 * 8, "%d questions of those who asked for more went first", before);
    for (int i = 0; i < 1500 - before; i++)
        cr_assert_neq(pop_number(&fixture, 0), -1);
    cr_assert_eq(pop_number(&fixture, 0), -1);
    tear_down(&fixture);
}

Test(question_queue, counts_rows_and_not_questions)
{
    struct fixture fixture;
    struct test_question heavy[20];
    static struct test_question light[200];
    set_up(&fixture, 10000);
    put_many(&fixture, heavy, 20, 1000, 1, 800);
    put_many(&fixture, light, 200, 0, 2, 1);
    int heavy_count = 0;
    for (int i = 0; i < 200; i++)
        heavy_count += pop_number(&fixture, 0) >= 1000;
    cr_assert(heavy_count >= 1 && heavy_count <= 3, "%d heavy ones beside light ones", heavy_count);
    tear_down(&fixture);
}

/* What is put behind a thousand rows waits for 1.1 seconds then. */
static void note_millisecond_for_a_row(struct fixture *fixture, int64_t now_us)
{
    for (int i = 0; i < 100; i++)
        question_queue_note_pace(&fixture->queues[USER_QUESTION_NAMES], 100, now_us + i * 100000,
            now_us + (i + 1) * 100000);
}

Test(question_queue, answers_at_once_what_cannot_be_in_time)
{
    struct fixture fixture;
    static struct test_question own[1000];
    struct test_question late = make_question(1, INT64_MAX);
    struct test_question barely = make_question(4, INT64_MAX);
    struct test_question in_time = make_question(2, INT64_MAX);
    struct test_question other = make_question(3, INT64_MAX);
    set_up(&fixture, 10000);
    int64_t now_us = (int64_t)monotonic_clock_us();
    note_millisecond_for_a_row(&fixture, now_us);
    put_many(&fixture, own, 1000, 100, 1, 0);
    late.question.source = barely.question.source = in_time.question.source = 1;
    other.question.source = 2;
    late.question.deadline_us = other.question.deadline_us = now_us + 500000;
    barely.question.deadline_us = now_us + 1400000;
    in_time.question.deadline_us = now_us + 2000000;
    cr_assert(put(&fixture, &late) && put(&fixture, &barely) && put(&fixture, &in_time) &&
              put(&fixture, &other));
    question_intake_take(&fixture.intake, fixture.queues);
    cr_assert_eq(late.answers, 1);
    cr_assert_eq(late.outcome, USER_HOPELESS);
    cr_assert_eq(barely.answers, 1, "the first slow moment would be too much");
    cr_assert_eq(in_time.answers, 0);
    cr_assert_eq(other.answers, 0, "it does not stand behind the others");
    cr_assert_eq(atomic_load(&fixture.intake.waiting), 1002);
    tear_down(&fixture);
}

/* Behind a second's work; whether a newcomer with three seconds to go is taken. */
static bool takes_newcomer(int64_t standing_us)
{
    struct fixture fixture;
    static struct test_question own[1000];
    struct test_question newcomer = make_question(1, INT64_MAX);
    set_up(&fixture, 10000);
    int64_t now_us = (int64_t)monotonic_clock_us();
    note_millisecond_for_a_row(&fixture, now_us);
    put_many(&fixture, own, 1000, 100, 1, 0);
    newcomer.question.source = 1;
    newcomer.question.deadline_us = now_us + 3000000;
    fixture.queues[USER_QUESTION_NAMES].standing_since_us =
        (int64_t)monotonic_clock_us() - standing_us;
    cr_assert(put(&fixture, &newcomer));
    question_intake_take(&fixture.intake, fixture.queues);
    tear_down(&fixture);
    return newcomer.answers == 0;
}

Test(question_queue, is_kept_shorter_when_it_is_no_burst)
{
    cr_assert(takes_newcomer(0), "a burst has the whole of its deadlines");
    cr_assert_not(takes_newcomer(1000000));
}

Test(question_queue, does_not_hold_a_slow_database_against_a_short_queue)
{
    struct fixture fixture;
    struct test_question own[10];
    struct test_question newcomer = make_question(1, INT64_MAX);
    set_up(&fixture, 10000);
    int64_t now_us = (int64_t)monotonic_clock_us();
    for (int i = 0; i < 100; i++)
        question_queue_note_pace(&fixture.queues[USER_QUESTION_NAMES], 0, now_us, now_us + 200000);
    put_many(&fixture, own, 10, 100, 1, 0);
    fixture.queues[USER_QUESTION_NAMES].standing_since_us -= 1000000;
    newcomer.question.source = 1;
    newcomer.question.deadline_us = now_us + 700000;
    cr_assert(put(&fixture, &newcomer));
    question_intake_take(&fixture.intake, fixture.queues);
    tear_down(&fixture);
    cr_assert_eq(newcomer.answers, 0, "200 ms in the database, next to nothing in the queue");
}

Test(question_queue, is_a_burst_again_once_it_was_empty)
{
    struct fixture fixture;
    struct test_question first = make_question(1, INT64_MAX);
    set_up(&fixture, 10);
    cr_assert(put(&fixture, &first));
    question_intake_take(&fixture.intake, fixture.queues);
    fixture.queues[USER_QUESTION_NAMES].standing_since_us = 1;
    cr_assert_eq(pop_number(&fixture, 0), 1);
    question_intake_take(&fixture.intake, fixture.queues);
    cr_assert_gt(fixture.queues[USER_QUESTION_NAMES].standing_since_us, 1);
    tear_down(&fixture);
}

/* A thousand calls with a second to go stand in the queue; whether another one is taken. */
static bool takes_one_more(struct fixture *fixture)
{
    static struct test_question own[1000];
    struct test_question one_more = make_question(1, INT64_MAX);
    put_many(fixture, own, 1000, 1, 1, 0);
    one_more.question.source = 1;
    one_more.question.deadline_us = (int64_t)monotonic_clock_us() + 1000000;
    cr_assert(put(fixture, &one_more));
    question_intake_take(&fixture->intake, fixture->queues);
    tear_down(fixture);
    return one_more.answers == 0;
}

Test(question_queue, does_not_take_calls_that_came_one_by_one_for_a_slow_database)
{
    struct fixture fixture;
    set_up(&fixture, 10000);
    int64_t now_us = (int64_t)monotonic_clock_us();
    for (int i = 0; i < 1000; i++)
        question_queue_note_pace(
            &fixture.queues[USER_QUESTION_NAMES], 0, now_us + i * 10000, now_us + i * 10000 + 5000);
    cr_assert(takes_one_more(&fixture));
}

Test(question_queue, does_not_take_one_that_stood_still_for_a_slow_one)
{
    struct fixture fixture;
    set_up(&fixture, 10000);
    int64_t now_us = (int64_t)monotonic_clock_us();
    question_queue_note_pace(&fixture.queues[USER_QUESTION_NAMES], 1000, now_us - 4000000, now_us);
    cr_assert(takes_one_more(&fixture));
}

struct asker {
    struct fixture *fixture;
    struct test_question *questions;
};

static void *ask_many(void *argument)
{
    const struct asker *asker = argument;
    for (int i = 0; i < QUESTIONS_OF_THREAD; i++) {
        asker->questions[i] = make_question(i, INT64_MAX);
        if (!put(asker->fixture, &asker->questions[i]))
            return argument;
    }
    return NULL;
}

Test(question_queue, loses_nothing_between_threads)
{
    struct fixture fixture;
    struct asker askers[THREADS];
    pthread_t threads[THREADS];
    size_t taken = 0;
    set_up(&fixture, (size_t)THREADS * QUESTIONS_OF_THREAD);
    for (size_t i = 0; i < THREADS; i++) {
        askers[i].fixture = &fixture;
        askers[i].questions = calloc(QUESTIONS_OF_THREAD, sizeof(struct test_question));
        cr_assert_not_null(askers[i].questions);
        cr_assert_eq(pthread_create(&threads[i], NULL, ask_many, &askers[i]), 0);
    }
    while (taken < (size_t)THREADS * QUESTIONS_OF_THREAD) {
        struct pollfd wake = {.fd = fixture.intake.wake_fd, .events = POLLIN};
        cr_assert_eq(poll(&wake, 1, 10000), 1, "a question waits and nobody was woken");
        (void)wake_ups(&fixture);
        question_intake_take(&fixture.intake, fixture.queues);
        while (pop_number(&fixture, 0) >= 0)
            taken++;
    }
    for (size_t i = 0; i < THREADS; i++) {
        void *refused = NULL;
        cr_assert_eq(pthread_join(threads[i], &refused), 0);
        cr_assert_null(refused);
        free(askers[i].questions);
    }
    tear_down(&fixture);
}

/* The asker's thread cancels at any moment. */
Test(question_queue, takes_out_the_next_question_though_it_was_cancelled_meanwhile)
{
    struct fixture fixture;
    set_up(&fixture, 10);
    atomic_bool is_cancelled = false;
    struct test_question asked = make_question(1, INT64_MAX);
    asked.question.is_cancelled = &is_cancelled;
    enum user_outcome outcome;
    cr_assert(question_intake_put(&fixture.intake, &asked.question, &outcome));
    question_intake_take(&fixture.intake, fixture.queues);
    struct question_queue *queue = &fixture.queues[USER_QUESTION_NAMES];
    cr_assert_eq(question_queue_next(queue, 1), &asked.question);
    atomic_store(&is_cancelled, true);
    cr_assert_eq(question_queue_pop_next(queue), &asked.question);
    cr_assert_eq(asked.answers, 0);
    cr_assert(question_queue_is_empty(queue));
    tear_down(&fixture);
}
