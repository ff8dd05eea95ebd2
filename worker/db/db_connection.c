#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "common/log.h"
#include "common/monotonic_clock.h"
#include "common/retry_delay.h"
#include "worker/db/db_connection_private.h"
#include "worker/db/db_silence.h"

#define STABLE_AFTER_US   5000000  /* a session that lived this long starts the back-off anew */
#define REPEAT_WARNING_US 30000000 /* a failure that goes on is said again after this time */
#define TIMER_ACCURACY_US 10000

void db_connection_set_timer(struct db_connection *connection, int64_t delay_us)
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
    unsigned int failures = connection->failed_attempts + connection->early_ends;
    db_connection_set_timer(connection, retry_delay_ms(failures) * 1000);
}

void db_connection_enter_handler(struct db_connection *connection)
{
    connection->handler_depth++;
}

static void free_now(struct db_connection *connection)
{
    sd_event_source_disable_unref(connection->io);
    sd_event_source_disable_unref(connection->timer);
    db_connect_free(connection->attempt);
    db_probe_free(connection->probe);
    db_target_cleanup(&connection->backend.server);
    PQfinish(connection->session);
    sd_event_unref(connection->event);
    free(connection);
}

bool db_connection_leave_handler(struct db_connection *connection)
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

static void forget_session(struct db_connection *connection)
{
    connection->io = sd_event_source_disable_unref(connection->io);
    connection->probe = db_probe_free(connection->probe);
    db_target_cleanup(&connection->backend.server);
    PQfinish(TAKE_PTR(connection->session));
    connection->pipeline.is_stopped = false;
    connection->is_held = false;
    connection->is_given_up = false;
    connection->is_suspect = false;
}

void db_connection_lose(struct db_connection *connection, const char *reason)
{
    char *kept_reason = strndup(reason, strcspn(reason, "\n"));
    log_warn("database connection lost application=\"%s\" in_flight=%zu reason=\"%s\"",
        connection->options.application, connection->pipeline.in_flight,
        kept_reason ? kept_reason : "");
    bool was_given_up = connection->is_given_up;
    forget_session(connection);
    /* What refuses a session soon after it was made would have it made anew without end. */
    bool has_lasted =
        (int64_t)monotonic_clock_turn_us(connection->event) - connection->ready_since_us >=
        STABLE_AFTER_US;
    connection->early_ends = has_lasted ? 0 : connection->early_ends + 1;

    db_connection_enter_handler(connection);
    db_pipeline_answer_lost(&connection->pipeline, kept_reason ? kept_reason : "connection lost");
    free(kept_reason);
    if (!connection->is_freed && !was_given_up && connection->handlers.on_lost)
        connection->handlers.on_lost(connection->userdata);
    if (db_connection_leave_handler(connection))
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
    size_t in_flight = connection->pipeline.in_flight;

    db_connection_enter_handler(connection);
    const char *lost_reason = read_results(connection);
    if (!lost_reason && (revents & EPOLLIN) != 0)
        db_silence_end(connection);
    bool has_progress =
        !connection->is_freed && !lost_reason && connection->pipeline.in_flight < in_flight;
    if (has_progress && connection->handlers.on_progress)
        connection->handlers.on_progress(connection->userdata);
    if (!db_connection_leave_handler(connection))
        return 0;
    if (!lost_reason && connection->pipeline.is_stopped)
        lost_reason = "reset";
    if (lost_reason)
        db_connection_lose(connection, lost_reason);
    return 0;
}

/* ---- connecting ---- */

static void on_session_ready(
    struct db_connection *connection, PGconn *session, const struct db_backend *backend)
{
    connection->session = session;
    connection->backend = *backend;
    connection->failed_attempts = 0;
    connection->is_pinging = false;
    int error = sd_event_add_io(
        connection->event, &connection->io, PQsocket(session), EPOLLIN, on_session_io, connection);
    if (error < 0) {
        forget_session(connection);
        log_error("database socket cannot be watched application=\"%s\" error=%d",
            connection->options.application, error);
        schedule_attempt(connection);
        return;
    }
    connection->ready_since_us = (int64_t)monotonic_clock_turn_us(connection->event);
    connection->last_warning_us = 0;
    log_info("database connected application=\"%s\" backend_pid=%d%s",
        connection->options.application, connection->backend.pid,
        connection->backend.is_pooled ? " pooler=session_mode" : "");
    db_connection_enter_handler(connection);
    if (connection->handlers.on_ready)
        connection->handlers.on_ready(connection->userdata);
    if (db_connection_leave_handler(connection) && connection->pipeline.is_stopped)
        db_connection_lose(connection, "reset");
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

static void on_attempt_done(PGconn *session, struct db_backend *backend,
    const struct db_connect_failure *failure, void *userdata)
{
    struct db_connection *connection = userdata;
    if (session) {
        connection->attempt = db_connect_free(connection->attempt);
        on_session_ready(connection, session, backend);
        return;
    }
    connection->failed_attempts++;
    if (failure->reason)
        warn_of_failure(connection, failure->reason);
    db_connection_enter_handler(connection);
    if (failure->reason && connection->handlers.on_attempt_failed)
        connection->handlers.on_attempt_failed(
            failure->reason, failure->is_final, connection->userdata);
    connection->attempt = db_connect_free(connection->attempt);
    if (db_connection_leave_handler(connection))
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

static int on_timer(sd_event_source *source, uint64_t time_us, void *userdata)
{
    struct db_connection *connection = userdata;
    (void)source;
    (void)time_us;
    if (connection->session)
        db_silence_check(connection);
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
    db_connection_enter_handler(connection);
    connection->io = sd_event_source_disable_unref(connection->io);
    db_pipeline_answer_lost(&connection->pipeline, "closed");
    (void)db_connection_leave_handler(connection);
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
        db_connection_set_timer(connection, 0);
        return -ENOTCONN;
    }
    if (connection->pipeline.in_flight == 1 && connection->pipeline.abandoned == 0)
        db_silence_watch(connection);
    update_io_events(connection, PQflush(connection->session));
    return 0;
}

const struct db_backend *db_connection_backend(const struct db_connection *connection)
{
    return &connection->backend;
}

void db_connection_abandon(struct db_connection *connection, const char *reason)
{
    db_connection_enter_handler(connection);
    db_pipeline_abandon(&connection->pipeline, reason);
    (void)db_connection_leave_handler(connection);
}

/* One that is held would leave its backend behind, and the next session another one: it is ended
 * when its commit is confirmed, and counts as lost from now on. */
static void give_up_session(struct db_connection *connection)
{
    if (connection->is_given_up)
        return;
    connection->is_given_up = true;
    db_connection_enter_handler(connection);
    db_pipeline_abandon(&connection->pipeline, "reset");
    if (!connection->is_freed && connection->handlers.on_lost)
        connection->handlers.on_lost(connection->userdata);
    (void)db_connection_leave_handler(connection);
}

void db_connection_reset(struct db_connection *connection)
{
    if (!connection->session || connection->is_freed)
        return;
    connection->pipeline.is_stopped = true;
    if (connection->is_held)
        give_up_session(connection);
    else if (connection->handler_depth == 0)
        db_connection_lose(connection, "reset");
}
