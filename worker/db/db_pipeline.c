#include "worker/db/db_pipeline.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

/* Errors after which the session is of no use: a plan that a migration made stale, statements that
 * a pooler forgot, a server that became read-only, a transaction block that a request left open. */
static const char *const spoiling_sqlstates[] = {"0A000", "26000", "25006", "25P02"};

static void clear_error(struct db_pipeline *pipeline)
{
    pipeline->sqlstate[0] = '\0';
    free(pipeline->message);
    pipeline->message = NULL;
    free(pipeline->constraint);
    pipeline->constraint = NULL;
}

static void clear_results(struct db_request *request)
{
    for (size_t i = 0; i < request->step_count; i++) {
        PQclear(request->results[i]);
        request->results[i] = NULL;
    }
}

/* Takes the oldest request out of those in flight and answers it. */
static void answer_first(struct db_pipeline *pipeline, const struct db_answer *answer)
{
    struct db_request *request = pipeline->first;
    pipeline->first = request->next;
    if (!pipeline->first)
        pipeline->last = NULL;
    pipeline->in_flight--;
    /* The handler may free the request, or send it again: the results are kept apart from it. */
    struct db_request finished = *request;
    struct db_answer with_results = *answer;
    if (answer->outcome == DB_DONE) {
        with_results.results = finished.results;
        with_results.result_count = finished.step_count;
    }
    request->on_answer(request, &with_results);
    clear_results(&finished);
}

void db_pipeline_answer_lost(struct db_pipeline *pipeline, const char *reason)
{
    const struct db_answer lost = {.outcome = DB_LOST, .message = reason, .constraint = ""};
    clear_error(pipeline);
    pipeline->abandoned = 0;
    while (pipeline->first)
        answer_first(pipeline, &lost);
}

/* Counted before they are answered: a handler may send the next request. */
void db_pipeline_abandon(struct db_pipeline *pipeline, const char *reason)
{
    const struct db_answer lost = {.outcome = DB_LOST, .message = reason, .constraint = ""};
    size_t count = pipeline->in_flight;
    clear_error(pipeline);
    pipeline->abandoned += count;
    for (; count > 0 && pipeline->first; count--)
        answer_first(pipeline, &lost);
}

static void keep_error(struct db_pipeline *pipeline, const PGresult *result)
{
    if (pipeline->sqlstate[0])
        return;
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *constraint = PQresultErrorField(result, PG_DIAG_CONSTRAINT_NAME);
    /* libpq's own errors, out of memory most of all, carry no SQLSTATE: XX000, internal error. */
    (void)snprintf(
        pipeline->sqlstate, sizeof(pipeline->sqlstate), "%s", sqlstate ? sqlstate : "XX000");
    pipeline->message = strdup(message ? message : PQresultErrorMessage(result));
    pipeline->constraint = strdup(constraint ? constraint : "");
}

static bool is_spoiling(const char *sqlstate)
{
    for (size_t i = 0; i < ARRAY_LENGTH(spoiling_sqlstates); i++)
        if (strcmp(sqlstate, spoiling_sqlstates[i]) == 0)
            return true;
    return false;
}

/* At the Sync of the oldest request: its transaction has ended. */
static void finish_first(struct db_pipeline *pipeline, PGconn *session)
{
    struct db_answer answer = {.outcome = DB_DONE, .constraint = ""};
    char *message = TAKE_PTR(pipeline->message);
    char *constraint = TAKE_PTR(pipeline->constraint);
    if (pipeline->sqlstate[0]) {
        answer.outcome = DB_ERROR;
        memcpy(answer.sqlstate, pipeline->sqlstate, sizeof(answer.sqlstate));
        answer.message = message ? message : "";
        answer.constraint = constraint ? constraint : "";
        pipeline->is_stopped |= is_spoiling(pipeline->sqlstate);
        pipeline->sqlstate[0] = '\0';
    }
    if (PQtransactionStatus(session) == PQTRANS_INERROR ||
        PQtransactionStatus(session) == PQTRANS_INTRANS) {
        log_error("database request left its transaction open action=reconnect");
        pipeline->is_stopped = true;
    }
    answer_first(pipeline, &answer);
    free(message);
    free(constraint);
}

/* Takes one result, and owns it. */
static void take_result(struct db_pipeline *pipeline, PGconn *session, PGresult *result)
{
    struct db_request *request = pipeline->first;
    if (pipeline->abandoned > 0) {
        if (PQresultStatus(result) == PGRES_PIPELINE_SYNC)
            pipeline->abandoned--;
        PQclear(result);
        return;
    }
    switch (PQresultStatus(result)) {
    case PGRES_PIPELINE_SYNC:
        PQclear(result);
        finish_first(pipeline, session);
        return;
    case PGRES_FATAL_ERROR:
    case PGRES_BAD_RESPONSE:
        keep_error(pipeline, result);
        PQclear(result);
        return;
    case PGRES_PIPELINE_ABORTED:
        PQclear(result);
        return;
    case PGRES_EMPTY_QUERY:
    case PGRES_COMMAND_OK:
    case PGRES_TUPLES_OK:
    case PGRES_COPY_OUT:
    case PGRES_COPY_IN:
    case PGRES_NONFATAL_ERROR:
    case PGRES_COPY_BOTH:
    case PGRES_SINGLE_TUPLE:
        break;
    }
    if (request->results_seen < request->step_count)
        request->results[request->results_seen++] = result;
    else
        PQclear(result);
}

static bool send_step(PGconn *session, const struct db_step *step)
{
    static const struct db_parameters no_parameters = {0};
    int formats[DB_MAX_PARAMETERS];
    const struct db_parameters *parameters = step->parameters ? step->parameters : &no_parameters;
    const char *values[DB_MAX_PARAMETERS];
    for (int i = 0; i < parameters->count; i++) {
        values[i] = parameters->is_null[i] ? NULL : parameters->buffer + parameters->offsets[i];
        formats[i] = 1; /* binary */
    }
    if (step->statement->is_plain)
        return PQsendQueryParams(session, step->statement->sql, parameters->count,
                   parameters->types, values, parameters->lengths, formats, 1) != 0;
    return PQsendQueryPrepared(session, step->statement->name, parameters->count, values,
               parameters->lengths, formats, 1) != 0;
}

const char *db_pipeline_read(struct db_pipeline *pipeline, PGconn *session)
{
    while ((pipeline->first || pipeline->abandoned > 0) && !pipeline->is_stopped &&
           !PQisBusy(session)) {
        PGresult *result = PQgetResult(session);
        if (result)
            take_result(pipeline, session, result);
        else if (PQstatus(session) == CONNECTION_BAD)
            return PQerrorMessage(session);
    }
    return pipeline->is_stopped ? "reset" : NULL;
}

bool db_pipeline_send(struct db_pipeline *pipeline, PGconn *session, struct db_request *request,
    const struct db_step *steps, size_t step_count)
{
    for (size_t i = 0; i < step_count; i++)
        if (!send_step(session, &steps[i]))
            return false;
    if (!PQpipelineSync(session))
        return false;
    request->next = NULL;
    request->step_count = step_count;
    request->results_seen = 0;
    memset((void *)request->results, 0, sizeof(request->results));
    if (pipeline->last)
        pipeline->last->next = request;
    else
        pipeline->first = request;
    pipeline->last = request;
    pipeline->in_flight++;
    return true;
}
