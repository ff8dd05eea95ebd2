/* The requests in flight on one session of a db_connection, in the order in which they were sent:
 * sends them, gathers the results of their steps, answers each at its Sync. Neither connects nor
 * waits. Private to db_connection.
 */
#ifndef USERD_WORKER_DB_DB_PIPELINE_H
#define USERD_WORKER_DB_DB_PIPELINE_H

#include "worker/db/db_connection.h"

/* Zeroed at first. */
struct db_pipeline {
    struct db_request *first; /* the callers', as are all behind it */
    struct db_request *last;
    size_t in_flight;
    size_t abandoned; /* requests whose answers, which come before all others, nobody waits for */
    bool is_stopped;  /* the session is of no use any more: nothing further is read from it */
    char sqlstate[6]; /* of the first request's first error; empty: none */
    char *message;    /* owned; NULL without memory */
    char *constraint; /* owned; likewise */
};

/* False: the session is broken, or half of the request is in libpq's buffer; without its Sync
 * PostgreSQL never commits it. The request is then not in flight, and the session must be ended. */
MUST_CHECK bool db_pipeline_send(struct db_pipeline *pipeline, PGconn *session,
    struct db_request *request, const struct db_step *steps, size_t step_count);
/* Answers all requests that the input read so far completes. NULL, or why the session must be
 * ended. Handlers may empty the pipeline or set is_stopped. */
const char *db_pipeline_read(struct db_pipeline *pipeline, PGconn *session);
/* Answers everything in flight with DB_LOST: the session has ended. */
void db_pipeline_answer_lost(struct db_pipeline *pipeline, const char *reason);
/* The same, while the session goes on: what it still answers to them is thrown away. */
void db_pipeline_abandon(struct db_pipeline *pipeline, const char *reason);

#endif
