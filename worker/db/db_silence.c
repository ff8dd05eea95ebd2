#include "worker/db/db_silence.h"

#include "common/log.h"
#include "common/monotonic_clock.h"
#include "worker/db/db_connection_private.h"

#define SILENCE_FACTOR 2 /* times statement_timeout_ms: the session is lost */
#define PROBE_PACE_US  1000000
#define PROBE_GRACE_US 2000000 /* a probe that asks is waited for */
#define HELD_PACE_US   3000000
#define HELD_LIMIT_US  10000000 /* of what cannot be asked about any more */
/* After another session was found dead: PostgreSQL is asked about one that is busy, and one that
 * was idle must have answered. */
#define SUSPECT_PATIENCE_US 1000000
#define PING_LIMIT_US       1500000

static const struct db_statement ping_statement = {.sql = "SELECT 1", .is_plain = true};

/* A request in flight is heard of within this time, or the connection counts as lost. */
static int64_t silence_limit_us(const struct db_connection *connection)
{
    int64_t limit_us = (int64_t)connection->options.statement_timeout_ms * SILENCE_FACTOR * 1000;
    if (connection->is_pinging)
        return PING_LIMIT_US;
    return connection->is_held && limit_us < HELD_LIMIT_US ? HELD_LIMIT_US : limit_us;
}

/* After so long PostgreSQL is asked what has become of the backend. A statement would have run into
 * its timeout by then; what has none is a commit. */
static int64_t patience_us(const struct db_connection *connection)
{
    if (connection->is_held)
        return 0;
    int64_t patience_us = (int64_t)connection->options.statement_timeout_ms * 1000 / 5 * 6;
    return connection->is_suspect && patience_us > SUSPECT_PATIENCE_US ? SUSPECT_PATIENCE_US
                                                                       : patience_us;
}

static bool is_waiting(const struct db_connection *connection)
{
    return connection->pipeline.in_flight > 0 || connection->pipeline.abandoned > 0;
}

static void hold(struct db_connection *connection, int64_t now_us)
{
    connection->last_sign_us = now_us;
    if (connection->is_held)
        return;
    connection->is_held = true;
    connection->held_since_us = now_us;
    log_warn("database waits for its synchronous standby: the commit is done there, and is not"
             " confirmed application=\"%s\" backend_pid=%d in_flight=%zu action=keep_session",
        connection->options.application, connection->backend.pid, connection->pipeline.in_flight);
    db_connection_enter_handler(connection);
    if (connection->handlers.on_held)
        connection->handlers.on_held(true, connection->userdata);
    (void)db_connection_leave_handler(connection);
}

static void on_probed(enum db_probe_finding finding, void *userdata)
{
    struct db_connection *connection = userdata;
    int64_t now_us = (int64_t)monotonic_clock_turn_us(connection->event);
    bool has_answered = connection->last_sign_us > connection->probed_us;
    connection->probe = db_probe_free(connection->probe);
    connection->probed_us = now_us;
    db_connection_set_timer(connection, 0); /* what now? */
    if (has_answered)
        return;
    switch (finding) {
    case DB_PROBE_WAITS_FOR_STANDBY:
        hold(connection, now_us);
        break;
    case DB_PROBE_REFUSED:
        connection->last_sign_us = now_us;
        break;
    case DB_PROBE_RESTS:
        db_connection_lose(
            connection, "no answer, and the server knows of no statement of this session");
        break;
    case DB_PROBE_WORKS:
    case DB_PROBE_UNREACHABLE:
        break;
    }
}

/* How long until there is something to do about a session that says nothing. */
static int64_t probe_when_due(struct db_connection *connection, int64_t now_us)
{
    int64_t wait_us = connection->last_sign_us + patience_us(connection) - now_us;
    int64_t pace_us = connection->is_held ? HELD_PACE_US : PROBE_PACE_US;
    if (wait_us < connection->probed_us + pace_us - now_us)
        wait_us = connection->probed_us + pace_us - now_us;
    if (connection->probe || connection->is_pinging)
        return INT64_MAX;
    if (wait_us > 0)
        return wait_us;
    const struct db_probe_options options = {
        .url = connection->options.url,
        .application = connection->options.application,
        .timeout_ms = connection->options.connect_timeout_ms,
    };
    connection->probed_us = now_us;
    int error = db_probe_new(connection->event, &options, &connection->backend, on_probed,
        connection, &connection->probe);
    return error < 0 ? PROBE_PACE_US : INT64_MAX;
}

void db_silence_check(struct db_connection *connection)
{
    if (connection->pipeline.is_stopped && !connection->is_held) {
        db_connection_lose(connection, "reset");
        return;
    }
    if (!is_waiting(connection))
        return;
    int64_t now_us = (int64_t)monotonic_clock_turn_us(connection->event);
    int64_t left_us = connection->last_sign_us + silence_limit_us(connection) - now_us;
    if (connection->probe && left_us < connection->probed_us + PROBE_GRACE_US - now_us)
        left_us = connection->probed_us + PROBE_GRACE_US - now_us;
    if (left_us <= 0) {
        db_connection_lose(connection, connection->is_pinging
                                           ? "no answer after another session was found dead"
                                           : "no answer within twice the statement timeout");
        return;
    }
    int64_t wait_us = probe_when_due(connection, now_us);
    db_connection_set_timer(connection, wait_us < left_us ? wait_us : left_us);
}

/* Left armed when nothing is in flight any more: setting a timer for each lone request would cost a
 * system call. */
void db_silence_watch(struct db_connection *connection)
{
    int enabled = SD_EVENT_OFF;
    connection->last_sign_us = (int64_t)monotonic_clock_turn_us(connection->event);
    if (sd_event_source_get_enabled(connection->timer, &enabled) <= 0)
        db_connection_set_timer(connection, patience_us(connection));
}

void db_silence_end(struct db_connection *connection)
{
    int64_t now_us = (int64_t)monotonic_clock_turn_us(connection->event);
    connection->last_sign_us = now_us;
    connection->is_suspect = false;
    if (!connection->is_held)
        return;
    connection->is_held = false;
    log_info("database commits again: a synchronous standby has confirmed application=\"%s\""
             " waited_ms=%lld",
        connection->options.application, (long long)((now_us - connection->held_since_us) / 1000));
    if (!connection->is_freed && connection->handlers.on_held)
        connection->handlers.on_held(false, connection->userdata);
}

bool db_connection_is_held(const struct db_connection *connection)
{
    return connection->is_held;
}

static void on_ping(struct db_request *request, const struct db_answer *answer)
{
    (void)answer;
    CONTAINER_OF(request, struct db_connection, ping)->is_pinging = false;
}

void db_connection_suspect(struct db_connection *connection)
{
    static const struct db_step step = {.statement = &ping_statement};
    if (!db_connection_is_ready(connection) || connection->is_held || connection->is_suspect)
        return;
    connection->is_suspect = true;
    if (!is_waiting(connection)) {
        connection->ping.on_answer = on_ping;
        connection->is_pinging = db_connection_submit(connection, &connection->ping, &step, 1) == 0;
    }
    db_connection_set_timer(connection, 0);
}
