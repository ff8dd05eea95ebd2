/* Questions of one kind that go to PostgreSQL as one statement, from the queue to the answers.
 * Private to the store.
 *
 * What a kind of question means stands in its shape (user_read.c, user_write.c). When PostgreSQL
 * refuses a batch of writes, each of its questions is asked again alone, so that one bad row hurts
 * only its own asker.
 */
#ifndef USERD_WORKER_STORE_USER_BATCH_H
#define USERD_WORKER_STORE_USER_BATCH_H

#include "worker/store/question_queue.h"
#include "worker/store/store_lanes.h"

#define USER_BATCH_QUESTIONS 1024
#define USER_BATCH_IDS       1024 /* that are asked for; a question with more goes alone */

struct user_batch;

struct user_shape {
    const struct db_statement *statement;
    bool is_write;
    bool is_large;         /* as store_request says */
    bool is_one_at_a_time; /* the next batch is sent when this one has been answered */
    /* Moves the questions that may go together from the queue into the batch; those that are over
     * are answered. */
    void (*take)(struct user_batch *batch, struct question_queue *queue, int64_t now_us);
    /* For the questions that are sent now: a part of the batch, or all of it. */
    void (*add_parameters)(struct user_batch *batch, struct db_parameters *parameters);
    /* Answers each question that was sent. */
    void (*answer)(struct user_batch *batch, const PGresult *result);
    /* What an error means for a write that was sent alone; NULL: nothing of its own. True:
     * *ret_outcome. */
    bool (*explains_error)(const struct db_answer *answer, enum user_outcome *ret_outcome);
};

extern const struct user_shape user_read_names, user_read_names_of_many, user_read_id,
    user_write_rename, user_write_delete;

/* One id that a batch of names asks for. */
struct name_slot {
    int32_t auth_id;
    int32_t row;      /* of the result; -1: none */
    uint32_t seen_by; /* number (from 1) of the last question that was told; 0: none */
    bool is_used;
};

struct user_batch {
    struct store_request request;
    struct user_store *store;
    enum user_question_kind kind;
    struct user_batch *next_free;
    struct user_question *questions[USER_BATCH_QUESTIONS];
    size_t question_count;
    size_t sent_first; /* the part that is in flight */
    size_t sent_count;
    unsigned int attempts;
    uint64_t cost; /* rows that it asks for; 0: too few to fill it */
    int64_t sent_us;
    struct name_slot *names; /* owned: open addressing, names_capacity is a power of two */
    size_t names_capacity;
    size_t names_allocated;
};

static inline struct user_question *user_batch_question(
    const struct user_batch *batch, size_t number)
{
    return batch->questions[batch->sent_first + number];
}

/* Takes what waits in the queue of `kind` and sends it. False: there was nothing to send, or it
 * could not be sent. */
bool user_batch_start(struct user_store *store, enum user_question_kind kind);
/* NULL is fine. */
void user_batch_free(struct user_batch *batch);

#endif
