/* What goes into one batch: questions that end at any moment, and ids that somebody chose. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/monotonic_clock.h"
#include "worker/store/user_store_private.h"

#define ROUNDS      20000
#define QUESTIONS   50
#define IDS         USER_NAMES_MAX
#define FIBONACCI   UINT64_C(0x9e3779b97f4a7c15)
#define CHEAP_TIMES 20

static struct user_store store;

static void on_done(struct user_question *question, enum user_outcome outcome)
{
    (void)question;
    (void)outcome;
}

static void init(void)
{
    memset((void *)&store, 0, sizeof(store));
    cr_assert(keyed_hash_init(&store.hash));
    cr_assert_eq(question_intake_init(&store.intake, 100), 0);
    atomic_store(&store.intake.is_open, true);
    for (size_t i = 0; i < USER_QUESTION_KINDS; i++)
        store.queues[i].intake = &store.intake;
}

static void fini(void)
{
    for (size_t i = 0; i < USER_QUESTION_KINDS; i++)
        question_queue_cleanup(&store.queues[i]);
    question_intake_cleanup(&store.intake);
}

TestSuite(user_batch, .init = init, .fini = fini, .timeout = 60);

struct client {
    pthread_t thread;
    atomic_bool is_cancelled;
    atomic_bool is_over;
};

/* Its calls are watched: it goes away at any moment, as seen by the loop thread. */
static void *cancel_again_and_again(void *userdata)
{
    struct client *client = userdata;
    while (!atomic_load(&client->is_over)) {
        atomic_store(&client->is_cancelled, true);
        atomic_store(&client->is_cancelled, false);
    }
    return NULL;
}

Test(user_batch, holds_no_hole_where_a_call_was_cancelled)
{
    struct client client = {.is_over = false};
    static struct user_name_question questions[QUESTIONS];
    cr_assert_eq(pthread_create(&client.thread, NULL, cancel_again_and_again, &client), 0);
    struct user_batch *batch = calloc(1, sizeof(*batch));
    cr_assert_not_null(batch);
    size_t taken = 0;
    for (int i = 0; i < ROUNDS; i++) {
        for (size_t j = 0; j < QUESTIONS; j++) {
            enum user_outcome outcome;
            questions[j] = (struct user_name_question){.question = {.on_done = on_done,
                                                           .deadline_us = INT64_MAX,
                                                           .is_cancelled = &client.is_cancelled,
                                                           .kind = USER_QUESTION_NAMES,
                                                           .is_single = true}};
            cr_assert(question_intake_put(&store.intake, &questions[j].question, &outcome));
        }
        question_intake_take(&store.intake, store.queues);
        batch->question_count = 0;
        user_read_names.take(batch, &store.queues[USER_QUESTION_NAMES], 1);
        for (size_t j = 0; j < batch->question_count; j++)
            cr_assert(batch->questions[j] != NULL, "round %d", i);
        taken += batch->question_count;
    }
    atomic_store(&client.is_over, true);
    (void)pthread_join(client.thread, NULL);
    cr_assert_gt(taken, 0);
    free(batch);
}

static int64_t cpu_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* What it takes to ask for these ids, in CPU time of this thread. */
static int64_t cost_of(const int32_t *ids)
{
    struct user_names_question question = {
        .question = {.on_done = on_done, .deadline_us = INT64_MAX},
        .auth_ids = ids,
        .auth_id_count = IDS,
    };
    struct user_batch *batch = calloc(1, sizeof(*batch));
    cr_assert_not_null(batch);
    batch->store = &store;
    batch->questions[0] = &question.question;
    batch->question_count = 1;
    batch->sent_count = 1;
    struct db_parameters parameters = {0};
    int64_t start_us = cpu_us();
    user_read_names.add_parameters(batch, &parameters);
    int64_t cost_us = cpu_us() - start_us;
    cr_assert_not(parameters.has_failed);
    db_parameters_cleanup(&parameters);
    user_batch_free(batch);
    return cost_us;
}

/* The ids were chosen for a hash that anybody can compute: they all belong into one place of its
 * table. */
Test(user_batch, takes_ids_that_were_chosen_to_meet_as_any_others)
{
    static int32_t chosen[IDS];
    static int32_t others[IDS];
    size_t count = 0;
    for (uint64_t id = 0; count < IDS; id++) {
        if ((((id * FIBONACCI) >> 32) & (32 * 1024 - 1)) == 0)
            chosen[count++] = (int32_t)id;
    }
    for (size_t i = 0; i < IDS; i++)
        others[i] = (int32_t)(i * 7919);
    (void)cost_of(others); /* warm */
    int64_t usual_us = cost_of(others);
    int64_t chosen_us = cost_of(chosen);
    cr_assert_lt(chosen_us, CHEAP_TIMES * (usual_us + 100), "%lld us against %lld",
        (long long)chosen_us, (long long)usual_us);
}

static size_t asked_of_kind(uint32_t cost, enum user_question_kind kind)
{
    static struct user_names_question question;
    question = (struct user_names_question){
        .question = {.on_done = on_done, .deadline_us = INT64_MAX, .cost = cost}};
    user_store_ask(&store, &question.question, USER_QUESTION_NAMES);
    question_intake_take(&store.intake, store.queues);
    size_t waiting = store.queues[kind].ring_count;
    question_queue_answer_all(&store.queues[kind], USER_UNAVAILABLE);
    return waiting;
}

Test(user_batch, large_questions_wait_apart_from_others)
{
    cr_assert_eq(asked_of_kind(0, USER_QUESTION_NAMES), 1);
    cr_assert_eq(asked_of_kind(USER_BATCH_IDS, USER_QUESTION_NAMES), 1);
    cr_assert_eq(asked_of_kind(USER_BATCH_IDS + 1, USER_QUESTION_NAMES_OF_MANY), 1);
    cr_assert_eq(asked_of_kind(USER_NAMES_MAX, USER_QUESTION_NAMES_OF_MANY), 1);
}
