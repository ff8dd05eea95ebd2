#include "worker/db/db_connection.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "common/log.h"
#include "common/monotonic_clock.h"
#include "common/retry_delay.h"
#include "worker/db/db_connect.h"
#include "worker/db/db_pipeline.h"

#define STABLE_AFTER_US   1000000  /* a session that lived this long starts the back-off anew */
#define REPEAT_WARNING_US 30000000 /* a failure that goes on is said again after this time */
#define TIMER_ACCURACY_US 10000
#define SILENCE_FACTOR    2 /* times statement_timeout_ms */

struct db_connection {
    sd_event *event; /* owned */
    struct db_options options;
    const struct db_statement *const *statements;
    struct db_connection_handlers handlers;
    void *userdata;
    struct db_connect *attempt;  /* owned: while connecting */
    PGconn *session;             /* owned: while ready */
    sd_event_source *io;         /* owned: the session's socket */
    sd_event_source *timer;      /* owned: the next attempt, or the bound of silence */
    struct db_pipeline pipeline; /* requests in flight on the session */
    unsigned int handler_depth;  /* handlers that are running now */
    bool is_freed;               /* by a handler: the outermost function here frees */
    unsigned int failed_attempts;
    int64_t ready_since_us;
    int64_t last_heard_us; /* the last input, or the first request after nothing was in flight */
    int64_t last_warning_us;
};

static void set_timer(struct db_connection *connection, int64_t delay_us)
{
    int error = sd_event_source_set_time_relative(connection->timer, (uint64_t)delay_us);
    if (error >= 0)
        error = sd_event_source_set_enabled(connection->timer, SD_EVENT_ONESHOT);
    if (error < 0)
        log_error("database timer cannot be set application=\"%s\" error=%d",
            connection->options.application, error);
}

static void schedule_attempt(struct db_connection *connection)
{
    set_timer(connection, retry_delay_ms(connection->failed_attempts) * 1000);
}

static void enter_handler(struct db_connection *connection)
{
    connection->handler_depth++;
}

static void free_now(struct db_connection *connection)
{
    sd_event_source_disable_unref(connection->io);
    sd_event_source_disable_unref(connection->timer);
    db_connect_free(connection->attempt);
    PQfinish(connection->session);
    sd_event_unref(connection->event);
    free(connection);
}

/* True when the connection still exists. */
static bool leave_handler(struct db_connection *connection)
{
    assert(connection->handler_depth > 0);
    connection->handler_depth--;
    if (!connection->is_freed)
        return true;
    if (connection->handler_depth == 0)
        free_now(connection);
    return false;
}

/* ---- losing a session ---- */

/* Ends the session: answers what is in flight, says so, and arms the next attempt. */
static void lose_session(struct db_connection *connection, const char *reason)
{
    char *kept_reason = strndup(reason, strcspn(reason, "\n"));
    log_warn("database connection lost application=\"%s\" in_flight=%zu reason=\"%s\"",
        connection->options.application, connection->pipeline.in_flight,
        kept_reason ? kept_reason : "");
    connection->io = sd_event_source_disable_unref(connection->io);
    PQfinish(TAKE_PTR(connection->session));
    connection->pipeline.is_stopped = false;
    if ((int64_t)monotonic_clock_turn_us(connection->event) - connection->ready_since_us >=
        STABLE_AFTER_US)
        connection->failed_attempts = 0;

    enter_handler(connection);
    db_pipeline_answer_lost(&connection->pipeline, kept_reason ? kept_reason : "connection lost");
    free(kept_reason);
    if (!connection->is_freed && connection->handlers.on_lost)
        connection->handlers.on_lost(connection->userdata);
    if (leave_handler(connection))
        schedule_attempt(connection);
}

static void update_io_events(struct db_connection *connection, int flushed)
{
    (void)sd_event_source_set_io_events(connection->io, EPOLLIN | (flushed > 0 ? EPOLLOUT : 0U));
}

/* Reads and answers all that has come. NULL, or why the session is lost. */
static const char *read_results(struct db_connection *connection)
{
    if (!PQconsumeInput(connection->session))
        return PQerrorMessage(connection->session);
    const char *lost_reason = db_pipeline_read(&connection->pipeline, connection->session);
    if (lost_reason || connection->is_freed)
        return lost_reason;
    int flushed = PQflush(connection->session);
    if (flushed < 0)
        return PQerrorMessage(connection->session);
    update_io_events(connection, flushed);
    return NULL;
}

static int on_session_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct db_connection *connection = userdata;
    (void)source;
    (void)fd;
    (void)revents;
    size_t in_flight = connection->pipeline.in_flight;
    connection->last_heard_us = (int64_t)monotonic_clock_turn_us(connection->event);

    enter_handler(connection);
    const char *lost_reason = read_results(connection);
    bool has_progress =
        !connection->is_freed && !lost_reason && connection->pipeline.in_flight < in_flight;
    if (has_progress && connection->handlers.on_progress)
        connection->handlers.on_progress(connection->userdata);
    if (!leave_handler(connection))
        return 0;
    if (!lost_reason && connection->pipeline.is_stopped)
        lost_reason = "reset";
    if (lost_reason)
        lose_session(connection, lost_reason);
    return 0;
}

/* ---- connecting ---- */

static void on_session_ready(struct db_connection *connection, PGconn *session)
{
    connection->session = session;
    int error = sd_event_add_io(
        connection->event, &connection->io, PQsocket(session), EPOLLIN, on_session_io, connection);
    if (error < 0) {
        PQfinish(TAKE_PTR(connection->session));
        log_error("database socket cannot be watched application=\"%s\" error=%d",
            connection->options.application, error);
        schedule_attempt(connection);
        return;
    }
    connection->ready_since_us = (int64_t)monotonic_clock_turn_us(connection->event);
    connection->last_warning_us = 0;
    log_info("database connected application=\"%s\" backend_pid=%d",
        connection->options.application, PQbackendPID(session));
    enter_handler(connection);
    if (connection->handlers.on_ready)
        connection->handlers.on_ready(connection->userdata);
    if (leave_handler(connection) && connection->pipeline.is_stopped)
        lose_session(connection, "reset");
}

static void warn_of_failure(struct db_connection *connection, const char *reason)
{
    int64_t now = (int64_t)monotonic_clock_turn_us(connection->event);
    if (connection->last_warning_us != 0 && now - connection->last_warning_us < REPEAT_WARNING_US)
        return;
    connection->last_warning_us = now;
    log_warn("database cannot be reached application=\"%s\" attempts=%u reason=\"%s\" action=retry",
        connection->options.application, connection->failed_attempts, reason);
}

static void on_attempt_done(PGconn *session, const char *reason, void *userdata)
{
    struct db_connection *connection = userdata;
    if (!session) {
        connection->failed_attempts++;
        if (reason)
            warn_of_failure(connection, reason);
    }
    connection->attempt = db_connect_free(connection->attempt);
    if (session)
        on_session_ready(connection, session);
    else
        schedule_attempt(connection);
}

static void start_attempt(struct db_connection *connection)
{
    int error = db_connect_new(connection->event, &connection->options, connection->statements,
        on_attempt_done, connection, &connection->attempt);
    if (error < 0) {
        connection->failed_attempts++;
        warn_of_failure(connection, strerror(-error));
        schedule_attempt(connection);
    }
}

/* A request in flight is heard of within this time, or the connection counts as lost. */
static int64_t silence_limit_us(const struct db_connection *connection)
{
    return (int64_t)connection->options.statement_timeout_ms * SILENCE_FACTOR * 1000;
}

static void check_silence(struct db_connection *connection)
{
    if (connection->pipeline.is_stopped) {
        lose_session(connection, "reset");
        return;
    }
    if (connection->pipeline.in_flight == 0)
        return;
    int64_t left_us = connection->last_heard_us + silence_limit_us(connection) -
                      (int64_t)monotonic_clock_turn_us(connection->event);
    if (left_us <= 0)
        lose_session(connection, "no answer within twice the statement timeout");
    else
        set_timer(connection, left_us);
}

/* Left armed when nothing is in flight any more: setting a timer for each lone request would cost a
 * system call. */
static void watch_for_silence(struct db_connection *connection)
{
    int enabled = SD_EVENT_OFF;
    connection->last_heard_us = (int64_t)monotonic_clock_turn_us(connection->event);
    if (sd_event_source_get_enabled(connection->timer, &enabled) <= 0)
        set_timer(connection, silence_limit_us(connection));
}

static int on_timer(sd_event_source *source, uint64_t time_us, void *userdata)
{
    struct db_connection *connection = userdata;
    (void)source;
    (void)time_us;
    if (connection->session)
        check_silence(connection);
    else if (!connection->attempt)
        start_attempt(connection);
    return 0;
}

/* ---- for the callers ---- */

int db_connection_new(sd_event *event, const struct db_options *options,
    const struct db_statement *const *statements, const struct db_connection_handlers *handlers,
    void *userdata, struct db_connection **ret_connection)
{
    struct db_connection *connection = calloc(1, sizeof(*connection));
    if (!connection)
        return -ENOMEM;
    *connection = (struct db_connection){
        .event = sd_event_ref(event),
        .options = *options,
        .statements = statements,
        .handlers = *handlers,
        .userdata = userdata,
    };
    connection->options.check_userdata = userdata;
    int error = sd_event_add_time_relative(
        event, &connection->timer, CLOCK_MONOTONIC, 0, TIMER_ACCURACY_US, on_timer, connection);
    if (error < 0) {
        free_now(connection);
        return error;
    }
    *ret_connection = connection;
    return 0;
}

struct db_connection *db_connection_free(struct db_connection *connection)
{
    if (!connection || connection->is_freed)
        return NULL;
    connection->is_freed = true;
    (void)sd_event_source_set_enabled(connection->timer, SD_EVENT_OFF);
    enter_handler(connection);
    connection->io = sd_event_source_disable_unref(connection->io);
    db_pipeline_answer_lost(&connection->pipeline, "closed");
    (void)leave_handler(connection);
    return NULL;
}

bool db_connection_is_ready(const struct db_connection *connection)
{
    return connection->session && !connection->is_freed && !connection->pipeline.is_stopped;
}

size_t db_connection_in_flight(const struct db_connection *connection)
{
    return connection->pipeline.in_flight;
}

int db_connection_submit(struct db_connection *connection, struct db_request *request,
    const struct db_step *steps, size_t step_count)
{
    assert(step_count > 0 && step_count <= DB_MAX_STEPS);
    if (!db_connection_is_ready(connection))
        return -ENOTCONN;
    for (size_t i = 0; i < step_count; i++)
        if (steps[i].parameters && steps[i].parameters->has_failed)
            return -ENOMEM;

    if (!db_pipeline_send(&connection->pipeline, connection->session, request, steps, step_count)) {
        /* Half of it may be in libpq's buffer; without its Sync PostgreSQL never commits it. */
        connection->pipeline.is_stopped = true;
        set_timer(connection, 0);
        return -ENOTCONN;
    }
    if (connection->pipeline.in_flight == 1)
        watch_for_silence(connection);
    update_io_events(connection, PQflush(connection->session));
    return 0;
}

void db_connection_reset(struct db_connection *connection)
{
    if (!connection->session || connection->is_freed)
        return;
    connection->pipeline.is_stopped = true;
    if (connection->handler_depth == 0)
        lose_session(connection, "reset");
}
