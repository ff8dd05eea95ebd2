#include "worker/store/schema_session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/monotonic_clock.h"

/* A migration may rewrite a table. */
#define STATEMENT_TIMEOUT_MS (60 * 60 * 1000)

#define LOCK_NOT_AVAILABLE "55P03" /* SQLSTATE */
#define DEADLOCK_DETECTED  "40P01"

struct schema_session {
    sd_event *event;                  /* owned */
    struct db_connection *connection; /* owned */
    struct db_request request;
    uint64_t deadline_us; /* of waiting, CLOCK_MONOTONIC; 0: none */
    bool is_answered;
    bool is_refused; /* the last attempt to connect, for good */
    enum db_outcome outcome;
    PGresult *result; /* owned: of the last step */
    char error[512];
    char sqlstate[6];
};

/* Work that goes through whole tables may do so in one sweep. A lock that is not to be had soon is
 * tried for anew: whoever waits for one keeps others from the table. */
static const struct db_statement set_up = {
    .sql = "SELECT set_config('enable_seqscan', 'on', false),"
           " set_config('lock_timeout', '2000', false)",
    .is_plain = true,
};
static const struct db_statement *const session_checks[] = {&set_up, NULL};

/* Everything here is sent once: nothing is worth preparing. */
static const struct db_statement *const no_statements[] = {NULL};

static void on_answer(struct db_request *request, const struct db_answer *answer)
{
    struct schema_session *session = CONTAINER_OF(request, struct schema_session, request);
    session->is_answered = true;
    session->outcome = answer->outcome;
    if (answer->outcome == DB_DONE)
        session->result = PQcopyResult(
            answer->results[answer->result_count - 1], PG_COPYRES_ATTRS | PG_COPYRES_TUPLES);
    else
        (void)snprintf(session->error, sizeof(session->error), "%s%s%s", answer->message,
            answer->sqlstate[0] ? " sqlstate=" : "", answer->sqlstate);
    memcpy(session->sqlstate, answer->sqlstate, sizeof(session->sqlstate));
}

static void on_attempt_failed(const char *reason, bool is_final, void *userdata)
{
    struct schema_session *session = userdata;
    (void)snprintf(session->error, sizeof(session->error), "%s", reason);
    session->is_refused = is_final;
}

static int run_loop(struct schema_session *session, uint64_t timeout_us)
{
    int status = 0;
    if (sd_event_get_exit_code(session->event, &status) >= 0)
        return -EINTR;
    int result = sd_event_run(session->event, timeout_us);
    if (result < 0)
        return result;
    return sd_event_get_exit_code(session->event, &status) >= 0 ? -EINTR : 0;
}

int schema_session_new(sd_event *event, const struct settings *settings, int64_t timeout_ms,
    struct schema_session **ret_session)
{
    struct schema_session *session = calloc(1, sizeof(*session));
    if (!session)
        return -ENOMEM;
    session->event = sd_event_ref(event);
    if (timeout_ms > 0)
        session->deadline_us = monotonic_clock_us() + (uint64_t)timeout_ms * 1000;
    const struct db_options options = {
        .url = settings->database.url,
        .application = "userd migrate",
        .connect_timeout_ms = settings->database.connect_timeout_ms,
        .statement_timeout_ms = STATEMENT_TIMEOUT_MS,
        .session_checks = session_checks,
    };
    const struct db_connection_handlers handlers = {.on_attempt_failed = on_attempt_failed};
    int error =
        db_connection_new(event, &options, no_statements, &handlers, session, &session->connection);
    if (error < 0) {
        schema_session_free(session);
        return error;
    }
    *ret_session = session;
    return 0;
}

struct schema_session *schema_session_free(struct schema_session *session)
{
    if (!session)
        return NULL;
    db_connection_free(session->connection);
    PQclear(session->result);
    sd_event_unref(session->event);
    free(session);
    return NULL;
}

void schema_session_freep(struct schema_session **session)
{
    *session = schema_session_free(*session);
}

static uint64_t time_left_us(const struct schema_session *session)
{
    uint64_t now_us = monotonic_clock_us();
    if (session->deadline_us == 0)
        return UINT64_MAX;
    return session->deadline_us > now_us ? session->deadline_us - now_us : 0;
}

bool schema_session_has_time(const struct schema_session *session)
{
    return time_left_us(session) > 0;
}

int schema_session_await(struct schema_session *session)
{
    session->is_refused = false;
    (void)snprintf(session->error, sizeof(session->error), "no answer from the database");
    while (!db_connection_is_ready(session->connection)) {
        uint64_t left_us = time_left_us(session);
        if (left_us == 0)
            return -ETIMEDOUT;
        int error = run_loop(session, left_us);
        if (error < 0)
            return error;
        if (session->is_refused)
            return -EACCES;
    }
    return 0;
}

int schema_session_run(struct schema_session *session, const struct db_step *steps,
    size_t step_count, PGresult **ret_result)
{
    session->is_answered = false;
    session->request.on_answer = on_answer;
    int error = db_connection_submit(session->connection, &session->request, steps, step_count);
    if (error < 0)
        return error == -ENOTCONN ? -ECONNRESET : error;
    while (error == 0 && !session->is_answered)
        error = run_loop(session, UINT64_MAX);
    PGresult *result = TAKE_PTR(session->result);
    bool is_done = error == 0 && session->outcome == DB_DONE;
    if (is_done && ret_result && result) {
        *ret_result = result;
        return 0;
    }
    PQclear(result);
    if (error < 0)
        return error;
    if (is_done)
        return ret_result ? -ENOMEM : 0;
    return session->outcome == DB_ERROR ? -EBADMSG : -ECONNRESET;
}

const char *schema_session_error(const struct schema_session *session)
{
    return session->error;
}

const char *schema_session_sqlstate(const struct schema_session *session)
{
    return session->sqlstate;
}

bool schema_session_was_held_up(const struct schema_session *session)
{
    return strcmp(session->sqlstate, LOCK_NOT_AVAILABLE) == 0 ||
           strcmp(session->sqlstate, DEADLOCK_DETECTED) == 0;
}

const struct db_backend *schema_session_backend(const struct schema_session *session)
{
    return db_connection_backend(session->connection);
}

int schema_session_sleep(struct schema_session *session, unsigned int delay_ms)
{
    uint64_t end_us = monotonic_clock_us() + (uint64_t)delay_ms * 1000;
    int error = 0;
    for (uint64_t time_us = monotonic_clock_us(); error == 0 && time_us < end_us;
         time_us = monotonic_clock_us())
        error = run_loop(session, end_us - time_us);
    return error;
}
