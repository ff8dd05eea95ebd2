#include "worker/db/db_connect.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "common/log.h"
#include "worker/db/db_resolve.h"

#define PARAMETER_SLOTS   64 /* libpq 15 knows 41 keywords */
#define TIMER_ACCURACY_US 10000

/* The session's own settings. A read-write server and READ COMMITTED are what the statements rely
 * on; a database whose default gives up durability does not get its way. Batches are short: JIT
 * would only cost. A statement is planned once: by default PostgreSQL finds that a plan made for
 * the one id of a lone call is so much cheaper than the one for any number that it plans each anew,
 * which takes it longer than to run it. Every statement has its index, and a plan that was made
 * while a table was small is kept for long: it must not be a sequential scan. */
static const char session_setup_sql[] =
    "SELECT set_config('statement_timeout', $1, false),"
    " set_config('idle_in_transaction_session_timeout', $1, false),"
    " set_config('default_transaction_isolation', 'read committed', false),"
    " set_config('jit', 'off', false),"
    " set_config('plan_cache_mode', 'force_generic_plan', false),"
    " set_config('enable_seqscan', 'off', false),"
    " CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')"
    " THEN set_config('synchronous_commit', 'on', false) END";

/* Unless the URL says otherwise. */
static const struct {
    const char *keyword;
    const char *value;
} parameter_defaults[] = {
    {"client_encoding", "UTF8"},
    {"gssencmode", "disable"}, /* its handshake may block */
    {"keepalives_idle", "15"},
    {"keepalives_interval", "5"},
    {"keepalives_count", "3"},
    {"target_session_attrs", "read-write"},
    {"tcp_user_timeout", "30000"},
};

enum phase { PHASE_RESOLVE, PHASE_CONNECT, PHASE_SET_UP, PHASE_PREPARE };

struct db_connect {
    sd_event *event;
    const struct db_options *options;
    const struct db_statement *const *statements;
    db_connect_done *on_done;
    void *userdata;
    enum phase phase;
    PQconninfoOption *parameters; /* owned: the URL, taken apart */
    struct db_resolve *resolve;   /* owned */
    PGconn *session;              /* owned until on_done */
    sd_event_source *io;          /* owned */
    sd_event_source *timer;       /* owned: the time limit */
    size_t results_seen;          /* in PHASE_SET_UP: the second is the session check's */
    bool is_refused;              /* by the session check */
    char *reason;                 /* owned: the first thing that PostgreSQL complained about */
};

static void succeed(struct db_connect *connect)
{
    sd_event_source_disable_unref(connect->io);
    connect->io = NULL;
    connect->on_done(TAKE_PTR(connect->session), NULL, connect->userdata);
}

static void fail(struct db_connect *connect, const char *reason)
{
    sd_event_source_disable_unref(connect->timer);
    connect->timer = NULL;
    connect->io = sd_event_source_disable_unref(connect->io);
    connect->on_done(NULL, reason, connect->userdata);
}

/* The first line of libpq's messages says what happened; the others guess why. */
static char *copy_message(const char *message)
{
    return strndup(message, strcspn(message, "\n"));
}

static void fail_with_session_error(struct db_connect *connect)
{
    if (!connect->reason)
        connect->reason = copy_message(PQerrorMessage(connect->session));
    fail(connect, connect->reason && connect->reason[0] ? connect->reason : "connection lost");
}

static void on_notice(void *userdata, const PGresult *result)
{
    (void)userdata;
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    log_debug("database notice sqlstate=%s message=\"%s\"", sqlstate ? sqlstate : "",
        message ? message : "");
}

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
    const struct db_statement *check = connect->options->session_check;

    connect->phase = PHASE_SET_UP;
    if (PQsetnonblocking(connect->session, 1) != 0 || !PQenterPipelineMode(connect->session))
        return false;
    if (!PQsendQueryParams(connect->session, session_setup_sql, 1, NULL, values, NULL, NULL, 1))
        return false;
    if (check && !PQsendQueryParams(connect->session, check->sql, 0, NULL, NULL, NULL, NULL, 1))
        return false;
    return PQpipelineSync(connect->session) != 0;
}

/* One result of set-up or preparation. */
static void take_result(struct db_connect *connect, const PGresult *result)
{
    const struct db_options *options = connect->options;
    connect->results_seen++;
    bool is_check = connect->phase == PHASE_SET_UP && connect->results_seen == 2;
    ExecStatusType status = PQresultStatus(result);

    if (status == PGRES_FATAL_ERROR && !connect->reason) {
        const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
        if (is_check && options->on_check_failed && sqlstate) {
            options->on_check_failed(sqlstate, options->check_userdata);
            connect->is_refused = true;
        }
        connect->reason = copy_message(PQresultErrorMessage(result));
    } else if (is_check && status == PGRES_TUPLES_OK && options->accepts_session) {
        connect->is_refused = !options->accepts_session(result, options->check_userdata);
    }
}

/* The end of a phase's pipeline: true when the attempt goes on. */
static bool finish_phase(struct db_connect *connect)
{
    if (connect->is_refused) {
        fail(connect, NULL);
        return false;
    }
    if (connect->reason) {
        fail(connect, connect->reason);
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

/* Reads what set-up or preparation answered; false when the attempt is over (and perhaps freed). */
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
        if (is_end)
            connect->results_seen = 0;
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

static int watch_session(struct db_connect *connect, uint32_t events, sd_event_io_handler_t handler)
{
    return sd_event_add_io(
        connect->event, &connect->io, PQsocket(connect->session), events, handler, connect);
}

static void start_set_up(struct db_connect *connect)
{
    if (!send_set_up(connect) || watch_session(connect, EPOLLIN | EPOLLOUT, on_session_io) < 0)
        fail_with_session_error(connect);
}

/* libpq may go from one socket to another while it connects, so that each step watches anew. */
static int on_connect_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct db_connect *connect = userdata;
    (void)source;
    (void)fd;
    (void)revents;
    connect->io = sd_event_source_disable_unref(connect->io);
    uint32_t events = EPOLLIN;
    switch (PQconnectPoll(connect->session)) {
    case PGRES_POLLING_OK:
        start_set_up(connect);
        return 0;
    case PGRES_POLLING_WRITING:
        events = EPOLLOUT;
        break;
    case PGRES_POLLING_READING:
        break;
    case PGRES_POLLING_ACTIVE:
    case PGRES_POLLING_FAILED:
        fail_with_session_error(connect);
        return 0;
    }
    if (watch_session(connect, events, on_connect_io) < 0)
        fail(connect, "cannot watch the socket");
    return 0;
}

static const char *parameter_value(const struct db_connect *connect, const char *keyword)
{
    for (const PQconninfoOption *option = connect->parameters; option->keyword; option++)
        if (strcmp(option->keyword, keyword) == 0)
            return option->val && option->val[0] ? option->val : NULL;
    return NULL;
}

struct parameter_list {
    const char *keywords[PARAMETER_SLOTS];
    const char *values[PARAMETER_SLOTS];
    size_t count;
};

static void add_parameter(struct parameter_list *list, const char *keyword, const char *value)
{
    assert(list->count < PARAMETER_SLOTS - 1);
    list->keywords[list->count] = keyword;
    list->values[list->count] = value;
    list->count++;
}

/* `addresses` take the place of the URL's hosts. A keyword that comes later wins. */
static void start_connecting(struct db_connect *connect, const struct db_addresses *addresses)
{
    struct parameter_list list = {0};
    for (size_t i = 0; i < ARRAY_LENGTH(parameter_defaults); i++)
        if (!parameter_value(connect, parameter_defaults[i].keyword))
            add_parameter(&list, parameter_defaults[i].keyword, parameter_defaults[i].value);
    add_parameter(&list, "fallback_application_name", connect->options->application);
    for (const PQconninfoOption *option = connect->parameters; option->keyword; option++)
        if (option->val && option->val[0])
            add_parameter(&list, option->keyword, option->val);
    if (addresses) {
        add_parameter(&list, "host", addresses->hosts);
        add_parameter(&list, "hostaddr", addresses->host_addresses);
        add_parameter(&list, "port", addresses->ports);
    }

    connect->phase = PHASE_CONNECT;
    connect->session = PQconnectStartParams(list.keywords, list.values, 0);
    if (!connect->session) {
        fail(connect, "out of memory");
        return;
    }
    (void)PQsetNoticeReceiver(connect->session, on_notice, NULL);
    if (PQstatus(connect->session) == CONNECTION_BAD) {
        fail_with_session_error(connect);
        return;
    }
    if (watch_session(connect, EPOLLOUT, on_connect_io) < 0)
        fail(connect, "cannot watch the socket");
}

static void on_resolved(const struct db_addresses *addresses, void *userdata)
{
    struct db_connect *connect = userdata;
    if (addresses->error) {
        char reason[256];
        const char *hosts = parameter_value(connect, "host");
        (void)snprintf(
            reason, sizeof(reason), "cannot resolve %s: %s", hosts ? hosts : "", addresses->error);
        fail(connect, reason);
        return;
    }
    start_connecting(connect, addresses);
}

/* The first step, from the loop, so that on_done never runs inside db_connect_new(). */
static int on_start(struct db_connect *connect)
{
    char *error_text = NULL;
    connect->parameters = PQconninfoParse(connect->options->url, &error_text);
    if (!connect->parameters) {
        /* libpq repeats the URL in its message, password and all */
        connect->reason = strdup(
            error_text ? "libpq cannot read database.url: userd check says more" : "out of memory");
        PQfreemem(error_text);
        fail(connect, connect->reason);
        return 0;
    }
    const char *hosts = parameter_value(connect, "host");
    if (!hosts || parameter_value(connect, "hostaddr") || !db_resolve_is_needed(hosts)) {
        start_connecting(connect, NULL);
        return 0;
    }
    int error = db_resolve_new(connect->event, hosts, parameter_value(connect, "port"), on_resolved,
        connect, &connect->resolve);
    if (error < 0)
        fail(connect, strerror(-error));
    return 0;
}

static int on_time(sd_event_source *source, uint64_t time_us, void *userdata)
{
    static const char *const reasons[] = {
        [PHASE_RESOLVE] = "timed out looking up the host",
        [PHASE_CONNECT] = "timed out connecting",
        [PHASE_SET_UP] = "timed out setting the session up",
        [PHASE_PREPARE] = "timed out preparing statements",
    };
    struct db_connect *connect = userdata;
    if (connect->phase == PHASE_RESOLVE && !connect->resolve && !connect->parameters) {
        uint64_t limit_us = (uint64_t)connect->options->connect_timeout_ms * 1000;
        if (sd_event_source_set_time(source, time_us + limit_us) < 0 ||
            sd_event_source_set_enabled(source, SD_EVENT_ONESHOT) < 0) {
            fail(connect, "cannot set a timer");
            return 0;
        }
        return on_start(connect);
    }
    fail(connect, reasons[connect->phase]);
    return 0;
}

int db_connect_new(sd_event *event, const struct db_options *options,
    const struct db_statement *const *statements, db_connect_done *on_done, void *userdata,
    struct db_connect **ret_connect)
{
    struct db_connect *connect = calloc(1, sizeof(*connect));
    if (!connect)
        return -ENOMEM;
    *connect = (struct db_connect){
        .event = sd_event_ref(event),
        .options = options,
        .statements = statements,
        .on_done = on_done,
        .userdata = userdata,
    };
    /* Fires at once to start, and then again at the time limit. */
    int error = sd_event_add_time_relative(
        event, &connect->timer, CLOCK_MONOTONIC, 0, TIMER_ACCURACY_US, on_time, connect);
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
    sd_event_source_disable_unref(connect->io);
    sd_event_source_disable_unref(connect->timer);
    db_resolve_free(connect->resolve);
    PQfinish(connect->session);
    for (PQconninfoOption *option = connect->parameters; option && option->keyword; option++)
        if (option->val && strcmp(option->keyword, "password") == 0)
            explicit_bzero(option->val, strlen(option->val));
    PQconninfoFree(connect->parameters);
    sd_event_unref(connect->event);
    free(connect->reason);
    free(connect);
    return NULL;
}
