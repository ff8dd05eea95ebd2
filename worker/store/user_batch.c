#include "worker/store/user_batch.h"

#include <assert.h>
#include <stdlib.h>

#include "common/failpoint.h"
#include "common/log.h"
#include "worker/store/user_store_private.h"

#define CONFLICT_ATTEMPTS   3
#define REFUSALS_PER_SECOND 2 /* that are logged: a batch that is refused goes on one by one */

static const struct user_shape *const shapes[USER_QUESTION_KINDS] = {
    [USER_QUESTION_NAMES] = &user_read_names,
    [USER_QUESTION_NAMES_OF_MANY] = &user_read_names_of_many,
    [USER_QUESTION_ID] = &user_read_id,
    [USER_QUESTION_RENAME] = &user_write_rename,
    [USER_QUESTION_DELETE] = &user_write_delete,
};

/* From the store's own pile if it has one. */
static struct user_batch *new_batch(struct user_store *store, enum user_question_kind kind)
{
    struct user_batch *batch = store->free_batches;
    if (batch)
        store->free_batches = batch->next_free;
    else
        batch = calloc(1, sizeof(*batch));
    if (!batch)
        return NULL;
    batch->store = store;
    batch->kind = kind;
    batch->next_free = NULL;
    batch->question_count = 0;
    batch->sent_first = 0;
    batch->attempts = 0;
    return batch;
}

static void finish_batch(struct user_batch *batch)
{
    struct user_store *store = batch->store;
    store->is_one_in_flight[batch->kind] = false;
    store->batches_in_flight--;
    batch->next_free = store->free_batches;
    store->free_batches = batch;
}

static void answer_sent(struct user_batch *batch, enum user_outcome outcome)
{
    for (size_t i = 0; i < batch->sent_count; i++) {
        struct user_question *question = user_batch_question(batch, i);
        question->on_done(question, outcome);
    }
}

static enum user_outcome error_outcome(
    const struct user_batch *batch, const struct db_answer *answer)
{
    const struct user_shape *shape = shapes[batch->kind];
    enum user_outcome outcome;
    if (shape->explains_error && shape->explains_error(answer, &outcome))
        return outcome;
    bool is_passing =
        user_store_is_passing(answer->sqlstate) || user_store_is_conflict(answer->sqlstate);
    unsigned int suppressed = 0;
    if (log_limit_allows(&batch->store->refusal_limit, REFUSALS_PER_SECOND, &suppressed))
        log_write(is_passing ? LOG_LEVEL_WARN : LOG_LEVEL_ERROR,
            "database refused statement=%s questions=%zu sqlstate=%s message=\"%s\" suppressed=%u",
            shape->statement->name, batch->sent_count, answer->sqlstate, answer->message,
            suppressed);
    return is_passing ? USER_UNAVAILABLE : USER_FAILED;
}

/* Nothing came of it, or it is not known. */
static enum user_outcome lost_outcome(const struct user_batch *batch)
{
    return store_lanes_refuses_writes(batch->store->lanes) ? USER_STANDBY_AWAY : USER_UNAVAILABLE;
}

static int send_batch(struct user_batch *batch)
{
    const struct user_shape *shape = shapes[batch->kind];
    struct db_parameters *parameters = &batch->store->parameters;
    const struct db_step step = {.statement = shape->statement, .parameters = parameters};
    db_parameters_reset(parameters);
    shape->add_parameters(batch, parameters);
    if (shape->is_write)
        FAILPOINT("write.before");
    int error = store_lanes_submit(batch->store->lanes, &batch->request, &step, 1);
    if (shape->is_write && error == 0)
        FAILPOINT("write.sent");
    return error;
}

/* Sends the questions behind those that were sent one by one, until one is on its way; else the
 * batch is finished. */
static void send_next_alone(struct user_batch *batch)
{
    int64_t now_us = user_store_now_us();
    for (batch->sent_first += batch->sent_count; batch->sent_first < batch->question_count;
         batch->sent_first++) {
        struct user_question *question = batch->questions[batch->sent_first];
        enum user_outcome outcome = USER_UNAVAILABLE;
        batch->sent_count = 1;
        batch->attempts = 0;
        if (!question_is_over(question, now_us, &outcome)) {
            if (send_batch(batch) == 0)
                return;
            outcome = lost_outcome(batch);
        }
        question->on_done(question, outcome);
    }
    finish_batch(batch);
}

/* A batch of writes was refused: one by one, then. A write that was alone: again, if it met others.
 */
static void on_write_refused(struct user_batch *batch, const struct db_answer *answer)
{
    if (batch->sent_count > 1) {
        log_debug(
            "database refused a batch statement=%s questions=%zu sqlstate=%s action=one_by_one",
            shapes[batch->kind]->statement->name, batch->sent_count, answer->sqlstate);
        batch->sent_count = 0;
        send_next_alone(batch);
        return;
    }
    batch->attempts++;
    bool is_again = user_store_is_conflict(answer->sqlstate) && batch->attempts < CONFLICT_ATTEMPTS;
    if (is_again && send_batch(batch) == 0)
        return;
    answer_sent(batch, error_outcome(batch, answer));
    send_next_alone(batch);
}

static void on_answer(struct store_request *request, const struct db_answer *answer)
{
    struct user_batch *batch = CONTAINER_OF(request, struct user_batch, request);
    const struct user_shape *shape = shapes[batch->kind];
    switch (answer->outcome) {
    case DB_DONE:
        if (shape->is_write)
            FAILPOINT("write.committed");
        if (batch->sent_count == batch->question_count)
            question_queue_note_pace(&batch->store->queues[batch->kind], batch->cost,
                batch->sent_us, user_store_now_us());
        shape->answer(batch, answer->results[0]);
        break;
    case DB_ERROR:
        if (shape->is_write) {
            on_write_refused(batch, answer);
            return;
        }
        answer_sent(batch, error_outcome(batch, answer));
        break;
    case DB_LOST:
        answer_sent(batch, lost_outcome(batch));
        break;
    }
    /* Only a batch that was refused as a whole has more to send. */
    send_next_alone(batch);
}

bool user_batch_start(struct user_store *store, enum user_question_kind kind)
{
    const struct user_shape *shape = shapes[kind];
    struct user_batch *batch = new_batch(store, kind);
    if (!batch) {
        question_queue_answer_all(&store->queues[kind], USER_OVERLOADED);
        return false;
    }
    store->batches_in_flight++;
    store->is_one_in_flight[kind] = shape->is_one_at_a_time;
    batch->request.on_answer = on_answer;
    batch->request.is_write = shape->is_write;
    batch->request.is_large = shape->is_large;
    batch->request.takes_room = true;
    batch->sent_us = user_store_now_us();
    shape->take(batch, &store->queues[kind], batch->sent_us);
    batch->sent_count = batch->question_count;
    batch->cost = 0;
    /* A batch that took all there was says how long a statement takes, and not how long a row. */
    for (size_t i = 0; i < batch->question_count && !question_queue_is_empty(&store->queues[kind]);
         i++)
        batch->cost += question_cost(batch->questions[i]);
    if (batch->question_count == 0) {
        finish_batch(batch);
        return false;
    }
    if (send_batch(batch) < 0) {
        answer_sent(batch, lost_outcome(batch));
        finish_batch(batch);
        return false;
    }
    if (store->options.slot) {
        scoreboard_add(&store->options.slot->batches, 1);
        scoreboard_add(&store->options.slot->batched_requests, batch->question_count);
        atomic_store_explicit(&store->options.slot->questions_waiting,
            atomic_load_explicit(&store->intake.waiting, memory_order_relaxed),
            memory_order_relaxed);
    }
    return true;
}

void user_batch_free(struct user_batch *batch)
{
    if (!batch)
        return;
    free(batch->names);
    free(batch);
}
