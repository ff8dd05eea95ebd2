#include "worker/db/db_connect.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "common/log.h"
#include "worker/db/db_dial.h"
#include "worker/db/db_pooling.h"
#include "worker/db/db_query.h"

#define TIMER_ACCURACY_US 10000
#define POOLING_SHARE     2 /* of the time limit, for a pooler to be examined */

/* With a pooler in between the protocol's own pid is not that of the backend. */
static const char identify_sql[] =
    "SELECT pg_backend_pid(), (extract(epoch FROM backend_start) * 1000000)::int8"
    " FROM pg_stat_get_activity(pg_backend_pid())";

/* The session's own settings. A read-write server and READ COMMITTED are what the statements rely
 * on; a database whose default gives up durability does not get its way. Batches are short: JIT
 * would only cost. A statement is planned once: by default PostgreSQL finds that a plan made for
 * the one id of a lone call is so much cheaper than the one for any number that it plans each anew,
 * which takes it longer than to run it. Every statement has its index, and a plan that was made
 * while a table was small is kept for long: it must not be a sequential scan. PostgreSQL ends a
 * session whose host is lost, and with it its locks, within seconds and not hours; by a Unix socket
 * the settings mean nothing. A trigger tells our writes from those of others by userd.writer. */
static const char session_setup_sql[] =
    "SELECT set_config('statement_timeout', $1, false),"
    " set_config('idle_in_transaction_session_timeout', $1, false),"
    " set_config('default_transaction_isolation', 'read committed', false),"
    " set_config('jit', 'off', false),"
    " set_config('plan_cache_mode', 'force_generic_plan', false),"
    " set_config('enable_seqscan', 'off', false),"
    " set_config('userd.writer', 'on', false),"
    " set_config('tcp_keepalives_idle', '5', false),"
    " set_config('tcp_keepalives_interval', '2', false),"
    " set_config('tcp_keepalives_count', '3', false),"
    " set_config('tcp_user_timeout', '15000', false),"
    " CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')"
    " THEN set_config('synchronous_commit', 'on', false) END";

enum phase { PHASE_DIAL, PHASE_IDENTIFY, PHASE_SET_UP, PHASE_PREPARE };

struct db_connect {
    sd_event *event;
    const struct db_options *options;
    const struct db_statement *const *statements;
    db_connect_done *on_done;
    void *userdata;
    enum phase phase;
    struct db_dial_options dial_options;
    struct db_pooling_options pooling_options;
    struct db_dial *dial;       /* owned */
    PGconn *session;            /* owned until on_done */
    struct db_backend backend;  /* owned until on_done */
    struct db_query query;      /* in PHASE_IDENTIFY */
    struct db_pooling *pooling; /* owned: in PHASE_IDENTIFY */
    sd_event_source *io;        /* owned: from PHASE_SET_UP on */
    sd_event_source *timer;     /* owned: the time limit from PHASE_IDENTIFY on */
    size_t results_seen; /* of a phase: in PHASE_SET_UP those behind the first are the checks' */
    bool is_refused;     /* by a session check */
    char *reason;        /* owned: the first thing that PostgreSQL complained about */
};

static void drop_session(struct db_connect *connect)
{
    connect->io = sd_event_source_disable_unref(connect->io);
    connect->timer = sd_event_source_disable_unref(connect->timer);
    db_query_cancel(&connect->query);
    connect->pooling = db_pooling_free(connect->pooling);
    PQfinish(TAKE_PTR(connect->session));
    db_target_cleanup(&connect->backend.server);
}

static void succeed(struct db_connect *connect)
{
    struct db_backend backend = connect->backend;
    connect->backend = (struct db_backend){0};
    connect->io = sd_event_source_disable_unref(connect->io);
    connect->timer = sd_event_source_disable_unref(connect->timer);
    connect->on_done(TAKE_PTR(connect->session), &backend, NULL, connect->userdata);
}

/* There is no use in another server. */
static void fail(struct db_connect *connect, const char *reason, bool is_final)
{
    const struct db_connect_failure failure = {.reason = reason, .is_final = is_final};
    drop_session(connect);
    connect->on_done(NULL, NULL, &failure, connect->userdata);
}

/* This server would not do: perhaps another one. */
static void try_another(struct db_connect *connect, const char *reason)
{
    char *kept_reason = strndup(reason, strcspn(reason, "\n"));
    free(connect->reason);
    connect->reason = NULL;
    drop_session(connect);
    connect->phase = PHASE_DIAL;
    db_dial_next(
        connect->dial, kept_reason && kept_reason[0] ? kept_reason : "connection lost", false);
    free(kept_reason);
}

static void fail_with_session_error(struct db_connect *connect)
{
    try_another(connect, connect->reason ? connect->reason : PQerrorMessage(connect->session));
}

/* ---- set-up and preparation ---- */

static bool send_prepares(struct db_connect *connect)
{
    connect->phase = PHASE_PREPARE;
    for (const struct db_statement *const *statement = connect->statements; *statement; statement++)
        if (!(*statement)->is_plain &&
            !PQsendPrepare(connect->session, (*statement)->name, (*statement)->sql, 0, NULL))
            return false;
    return PQpipelineSync(connect->session) != 0;
}

static bool send_set_up(struct db_connect *connect)
{
    char timeout[32];
    (void)snprintf(timeout, sizeof(timeout), "%d", connect->options->statement_timeout_ms);
    const char *const values[] = {timeout};
    const struct db_statement *const *check = connect->options->session_checks;

    connect->phase = PHASE_SET_UP;
    connect->results_seen = 0;
    if (PQsetnonblocking(connect->session, 1) != 0 || !PQenterPipelineMode(connect->session))
        return false;
    if (!PQsendQueryParams(connect->session, session_setup_sql, 1, NULL, values, NULL, NULL, 1))
        return false;
    for (; check && *check; check++)
        if (!PQsendQueryParams(connect->session, (*check)->sql, 0, NULL, NULL, NULL, NULL, 1))
            return false;
    return PQpipelineSync(connect->session) != 0;
}

/* One result of set-up or preparation. */
static void take_result(struct db_connect *connect, const PGresult *result)
{
    const struct db_options *options = connect->options;
    bool is_check = connect->phase == PHASE_SET_UP && connect->results_seen > 0;
    size_t check_number = connect->results_seen - 1;
    connect->results_seen++;
    ExecStatusType status = PQresultStatus(result);

    if (status == PGRES_FATAL_ERROR && !connect->reason) {
        const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
        const char *message = PQresultErrorMessage(result);
        if (is_check && options->on_check_failed && sqlstate) {
            options->on_check_failed(sqlstate, options->check_userdata);
            connect->is_refused = true;
        }
        connect->reason = strndup(message, strcspn(message, "\n"));
    } else if (is_check && status == PGRES_TUPLES_OK && options->accepts_session &&
               !connect->is_refused) {
        connect->is_refused =
            !options->accepts_session(check_number, result, options->check_userdata);
    }
}

/* The end of a phase's pipeline: true when the attempt goes on. */
static bool finish_phase(struct db_connect *connect)
{
    connect->results_seen = 0;
    if (connect->is_refused) {
        fail(connect, NULL, false);
        return false;
    }
    if (connect->reason) {
        try_another(connect, connect->reason);
        return false;
    }
    if (connect->phase == PHASE_PREPARE) {
        succeed(connect);
        return false;
    }
    if (!send_prepares(connect)) {
        fail_with_session_error(connect);
        return false;
    }
    return true;
}

/* Reads what set-up or preparation answered; false when the session is gone (and perhaps all
 * freed). */
static bool read_results(struct db_connect *connect)
{
    if (!PQconsumeInput(connect->session)) {
        fail_with_session_error(connect);
        return false;
    }
    while (!PQisBusy(connect->session)) {
        PGresult *result = PQgetResult(connect->session);
        if (!result && PQstatus(connect->session) == CONNECTION_BAD) {
            fail_with_session_error(connect);
            return false;
        }
        if (!result)
            continue; /* between the results of two statements */
        bool is_end = PQresultStatus(result) == PGRES_PIPELINE_SYNC;
        if (!is_end)
            take_result(connect, result);
        PQclear(result);
        if (is_end && !finish_phase(connect))
            return false;
    }
    return true;
}

static int on_session_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct db_connect *connect = userdata;
    (void)fd;
    (void)revents;
    if (!read_results(connect))
        return 0;
    int flushed = PQflush(connect->session);
    if (flushed < 0) {
        fail_with_session_error(connect);
        return 0;
    }
    (void)sd_event_source_set_io_events(source, EPOLLIN | (flushed > 0 ? EPOLLOUT : 0U));
    return 0;
}

static void start_set_up(struct db_connect *connect)
{
    if (!send_set_up(connect) ||
        sd_event_add_io(connect->event, &connect->io, PQsocket(connect->session),
            EPOLLIN | EPOLLOUT, on_session_io, connect) < 0)
        fail_with_session_error(connect);
}

/* ---- who answers ---- */

static void on_pooling_known(bool is_lent_out, bool is_broken, void *userdata)
{
    struct db_connect *connect = userdata;
    connect->pooling = db_pooling_free(connect->pooling);
    if (is_lent_out) {
        fail(connect, DB_POOLING_REASON, true);
        return;
    }
    if (is_broken) {
        fail_with_session_error(connect);
        return;
    }
    connect->backend.is_pooled = true;
    start_set_up(connect);
}

static void examine_pooler(struct db_connect *connect)
{
    connect->pooling_options = (struct db_pooling_options){
        .url = connect->options->url,
        .application = connect->options->application,
        .timeout_ms = connect->options->connect_timeout_ms / POOLING_SHARE,
        .session = connect->session,
        .backend = &connect->backend,
    };
    int error = db_pooling_new(
        connect->event, &connect->pooling_options, on_pooling_known, connect, &connect->pooling);
    if (error < 0)
        fail_with_session_error(connect);
}

static void on_identified(const PGresult *result, void *userdata)
{
    struct db_connect *connect = userdata;
    if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1) {
        if (result && PQresultErrorMessage(result)[0])
            try_another(connect, PQresultErrorMessage(result));
        else
            fail_with_session_error(connect);
        return;
    }
    connect->backend.pid = (int32_t)strtol(PQgetvalue(result, 0, 0), NULL, 10);
    connect->backend.started_us = strtoll(PQgetvalue(result, 0, 1), NULL, 10);
    if (PQbackendPID(connect->session) == connect->backend.pid)
        start_set_up(connect);
    else
        examine_pooler(connect);
}

static int on_time(sd_event_source *source, uint64_t time_us, void *userdata)
{
    static const char *const reasons[] = {
        [PHASE_DIAL] = "timed out connecting",
        [PHASE_IDENTIFY] = "timed out asking who answers",
        [PHASE_SET_UP] = "timed out setting the session up",
        [PHASE_PREPARE] = "timed out preparing statements",
    };
    struct db_connect *connect = userdata;
    (void)source;
    (void)time_us;
    try_another(connect, reasons[connect->phase]);
    return 0;
}

static void on_connected(PGconn *session, void *userdata)
{
    struct db_connect *connect = userdata;
    const struct db_target server = {
        .host = PQhost(session), .host_address = PQhostaddr(session), .port = PQport(session)};
    connect->session = session;
    connect->phase = PHASE_IDENTIFY;
    connect->query = (struct db_query){
        .event = connect->event, .session = session, .on_done = on_identified, .userdata = connect};
    int error = db_target_copy(&server, &connect->backend.server);
    if (error >= 0)
        error = sd_event_add_time(connect->event, &connect->timer, CLOCK_MONOTONIC,
            db_dial_deadline_us(connect->dial), TIMER_ACCURACY_US, on_time, connect);
    if (error >= 0)
        error = db_query_start(&connect->query, identify_sql, NULL, 0);
    if (error < 0)
        fail_with_session_error(connect);
}

static void on_dial_failed(const char *reason, bool is_final, bool has_answered, void *userdata)
{
    (void)has_answered;
    fail(userdata, reason, is_final);
}

int db_connect_new(sd_event *event, const struct db_options *options,
    const struct db_statement *const *statements, db_connect_done *on_done, void *userdata,
    struct db_connect **ret_connect)
{
    static const struct db_dial_handlers handlers = {
        .on_connected = on_connected, .on_failed = on_dial_failed};
    struct db_connect *connect = calloc(1, sizeof(*connect));
    if (!connect)
        return -ENOMEM;
    *connect = (struct db_connect){
        .event = sd_event_ref(event),
        .options = options,
        .statements = statements,
        .on_done = on_done,
        .userdata = userdata,
        .dial_options =
            {
                .url = options->url,
                .application = options->application,
                .timeout_ms = options->connect_timeout_ms,
            },
    };
    int error = db_dial_new(event, &connect->dial_options, &handlers, connect, &connect->dial);
    if (error < 0) {
        db_connect_free(connect);
        return error;
    }
    *ret_connect = connect;
    return 0;
}

struct db_connect *db_connect_free(struct db_connect *connect)
{
    if (!connect)
        return NULL;
    drop_session(connect);
    db_dial_free(connect->dial);
    sd_event_unref(connect->event);
    free(connect->reason);
    free(connect);
    return NULL;
}
