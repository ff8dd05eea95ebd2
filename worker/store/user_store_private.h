/* What the files of the store share, and nobody else sees. */
#ifndef USERD_WORKER_STORE_USER_STORE_PRIVATE_H
#define USERD_WORKER_STORE_USER_STORE_PRIVATE_H

#include "common/keyed_hash.h"
#include "common/log.h"
#include "worker/store/question_queue.h"
#include "worker/store/store_lanes.h"
#include "worker/store/user_batch.h"

#define USER_STORE_STATEMENTS       12
#define USER_STORE_UNIQUE_VIOLATION "23505" /* SQLSTATE */

/* NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding): padded to cache lines */
struct user_store {
    struct user_store_options options;
    sd_event *event;           /* owned */
    struct store_lanes *lanes; /* owned */
    struct keyed_hash hash;    /* of ids that callers choose */
    struct log_limit refusal_limit;
    struct question_intake intake;
    struct question_queue queues[USER_QUESTION_KINDS];
    sd_event_source *wake_source;    /* owned: the intake's eventfd */
    sd_event_source *sweep_timer;    /* owned: armed while questions wait */
    struct user_batch *free_batches; /* owned: kept for the next one */
    size_t batches_in_flight;
    size_t others_in_flight;      /* event batches and position questions */
    unsigned int careful_batches; /* of registrations to come, that may not be all new */
    bool is_one_in_flight[USER_QUESTION_KINDS]; /* of kinds of which one batch goes at a time */
    unsigned int next_kind;                     /* who goes first next time */
    struct db_parameters parameters;            /* owned: the statement that is being sent */
    const struct db_statement *statements[USER_STORE_STATEMENTS + 1];
};

extern const struct db_statement event_store_new_registrations, event_store_registrations,
    event_store_deletions;
extern const struct db_statement position_store_find, position_store_other_clusters,
    position_store_identity;

extern const struct db_statement reconcile_store_find, reconcile_store_apply;

/* CLOCK_MONOTONIC, now, not when the loop woke up. */
int64_t user_store_now_us(void);
/* Sends what waits while there is room. */
void user_store_dispatch(struct user_store *store);
/* After a COMMIT that wrote outbox rows. */
void user_store_wake_relay(const struct user_store *store);
/* Whether an error comes from the server's state and not from the statement: worth trying again
 * later. */
bool user_store_is_passing(const char *sqlstate);
/* Whether an error comes from running beside others: worth trying again at once. */
bool user_store_is_conflict(const char *sqlstate);

#endif
