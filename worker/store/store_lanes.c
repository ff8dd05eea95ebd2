#include "worker/store/store_lanes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/monotonic_clock.h"
#include "worker/store/schema_version.h"

#define REPEAT_WARNING_US 30000000
#define REASON_SIZE       80

/* The lock first: what is read behind it stays true while the session lives. */
static const struct db_statement use_schema = {
    .sql = "SELECT pg_try_advisory_lock_shared(" SCHEMA_USE_LOCK ")", .is_plain = true};
static const struct db_statement schema_version = {
    .sql = "SELECT coalesce(max(version), 0)::int4 FROM schema_migration", .is_plain = true};

enum check { CHECK_USE_SCHEMA, CHECK_VERSION };
static const struct db_statement *const session_checks[] = {
    [CHECK_USE_SCHEMA] = &use_schema, [CHECK_VERSION] = &schema_version, NULL};

struct store_lane {
    struct store_lanes *lanes;
    struct db_connection *connection; /* owned */
    size_t writes_in_flight;
    size_t large_in_flight;
    size_t ordered_in_flight;
    size_t room_taken;
};

struct store_lanes {
    struct store_lanes_options options;
    bool is_available;
    bool is_closing;
    int64_t last_warning_us;
    char application[32];
    size_t count;
    struct store_lane lanes[];
};

/* Requests that are sent now are answered soon. */
static bool is_usable(const struct store_lane *lane)
{
    return lane->connection && db_connection_is_ready(lane->connection) &&
           !db_connection_is_held(lane->connection);
}

static void update_availability(struct store_lanes *lanes)
{
    bool is_available = false;
    for (size_t i = 0; i < lanes->count; i++)
        is_available |= is_usable(&lanes->lanes[i]);
    if (is_available == lanes->is_available || lanes->is_closing)
        return;
    lanes->is_available = is_available;
    lanes->options.on_availability(is_available, lanes->options.userdata);
}

static void on_ready(void *userdata)
{
    struct store_lane *lane = userdata;
    update_availability(lane->lanes);
    lane->lanes->options.on_room(lane->lanes->options.userdata);
}

/* What is dead here may be dead on the others, and what waited for an answer that has come now, if
 * only as DB_LOST, goes by them. */
static void on_lost(void *userdata)
{
    struct store_lane *lane = userdata;
    struct store_lanes *lanes = lane->lanes;
    for (size_t i = 0; i < lanes->count && !lanes->is_closing; i++)
        if (&lanes->lanes[i] != lane && lanes->lanes[i].connection)
            db_connection_suspect(lanes->lanes[i].connection);
    update_availability(lanes);
    if (lanes->is_available && !lanes->is_closing)
        lanes->options.on_room(lanes->options.userdata);
}

static void on_held(bool is_held, void *userdata)
{
    struct store_lane *lane = userdata;
    struct store_lanes *lanes = lane->lanes;
    if (is_held)
        db_connection_abandon(lane->connection, "waiting for a synchronous standby");
    update_availability(lanes);
    if (!lanes->is_closing)
        lanes->options.on_room(lanes->options.userdata);
}

static void on_progress(void *userdata)
{
    struct store_lane *lane = userdata;
    lane->lanes->options.on_room(lane->lanes->options.userdata);
}

/* ---- the schema must be there ---- */

static bool may_warn(struct store_lanes *lanes)
{
    int64_t now_us = (int64_t)monotonic_clock_turn_us(lanes->options.event);
    if (lanes->last_warning_us && now_us - lanes->last_warning_us < REPEAT_WARNING_US)
        return false;
    lanes->last_warning_us = now_us;
    return true;
}

static void tell_trouble(const struct store_lanes *lanes, const char *reason)
{
    if (lanes->options.on_trouble && !lanes->is_closing)
        lanes->options.on_trouble(reason, lanes->options.userdata);
}

static void on_attempt_failed(const char *reason, bool is_final, void *userdata)
{
    (void)is_final;
    const struct store_lane *lane = userdata;
    tell_trouble(lane->lanes, reason);
}

static void warn_of_schema(struct store_lanes *lanes, int32_t version)
{
    char reason[REASON_SIZE];
    (void)snprintf(reason, sizeof(reason), "schema is at version %d, this program needs %d",
        version, SCHEMA_VERSION_NEEDED);
    tell_trouble(lanes, reason);
    if (!may_warn(lanes))
        return;
    log_warn("schema is at version %d, this program needs %d: run `userd migrate up`", version,
        SCHEMA_VERSION_NEEDED);
}

/* A newer schema is fine: migrations expand first, and contract only what no running program needs.
 */
static bool accepts_session(size_t number, const PGresult *result, void *userdata)
{
    const struct store_lane *lane = userdata;
    if (number == CHECK_USE_SCHEMA) {
        bool is_locked = db_result_bool(result, 0, 0);
        if (!is_locked && may_warn(lane->lanes))
            log_warn("schema is being taken back by `userd migrate down` action=retry");
        return is_locked;
    }
    int32_t version = db_result_int4(result, 0, 0);
    if (version < SCHEMA_VERSION_NEEDED)
        warn_of_schema(lane->lanes, version);
    return version >= SCHEMA_VERSION_NEEDED;
}

static void on_check_failed(const char *sqlstate, void *userdata)
{
    struct store_lane *lane = userdata;
    if (strcmp(sqlstate, "42P01") == 0) /* undefined_table: no migration has run */
        warn_of_schema(lane->lanes, 0);
    else
        log_warn("schema version cannot be read sqlstate=%s action=retry", sqlstate);
}

/* ---- choosing ---- */

/* How much is in flight, in statements of calls. */
static size_t load_of(const struct store_lane *lane)
{
    return db_connection_in_flight(lane->connection) +
           lane->large_in_flight * STORE_LANES_IN_FLIGHT;
}

/* The ready lane from number `first` on with the least in flight; NULL: none is ready. */
static const struct store_lane *least_busy(
    const struct store_lanes *lanes, size_t first, bool is_without_writes)
{
    const struct store_lane *best = NULL;
    for (size_t i = first; i < lanes->count; i++) {
        const struct store_lane *lane = &lanes->lanes[i];
        if (!is_usable(lane) || (is_without_writes && lane->writes_in_flight > 0))
            continue;
        if (!best || load_of(lane) < load_of(best))
            best = lane;
    }
    return best;
}

static const struct store_lane *choose(const struct store_lanes *lanes, bool is_write)
{
    const struct store_lane *lane =
        is_write ? least_busy(lanes, 1, false) : least_busy(lanes, 0, true);
    return lane ? lane : least_busy(lanes, 0, false);
}

static const struct store_lane *choose_large(const struct store_lanes *lanes)
{
    for (size_t i = 0; i < lanes->count; i++)
        if (lanes->lanes[i].large_in_flight > 0 && is_usable(&lanes->lanes[i]))
            return &lanes->lanes[i];
    return choose(lanes, false);
}

/* Ordered requests keep to the connection that has others of them. */
static const struct store_lane *choose_ordered(const struct store_lanes *lanes)
{
    for (size_t i = 0; i < lanes->count; i++)
        if (lanes->lanes[i].ordered_in_flight > 0 && is_usable(&lanes->lanes[i]))
            return &lanes->lanes[i];
    return choose(lanes, true);
}

bool store_lanes_refuses_writes(const struct store_lanes *lanes)
{
    for (size_t i = 0; i < lanes->count; i++)
        if (lanes->lanes[i].connection && db_connection_is_held(lanes->lanes[i].connection))
            return true;
    return false;
}

bool store_lanes_has_room(const struct store_lanes *lanes, bool is_write, bool is_large)
{
    const struct store_lane *lane = is_large ? choose_large(lanes) : choose(lanes, is_write);
    return lane && lane->room_taken < STORE_LANES_IN_FLIGHT;
}

static void on_answer(struct db_request *db_request, const struct db_answer *answer)
{
    struct store_request *request = CONTAINER_OF(db_request, struct store_request, request);
    if (request->is_write)
        request->lane->writes_in_flight--;
    if (request->is_large)
        request->lane->large_in_flight--;
    if (request->is_ordered)
        request->lane->ordered_in_flight--;
    if (request->takes_room)
        request->lane->room_taken--;
    request->on_answer(request, answer);
}

int store_lanes_submit(struct store_lanes *lanes, struct store_request *request,
    const struct db_step *steps, size_t step_count)
{
    if (request->is_write && store_lanes_refuses_writes(lanes))
        return -EAGAIN;
    const struct store_lane *chosen = request->is_ordered ? choose_ordered(lanes)
                                      : request->is_large ? choose_large(lanes)
                                                          : choose(lanes, request->is_write);
    if (!chosen || lanes->is_closing)
        return -ENOTCONN;
    struct store_lane *lane = &lanes->lanes[chosen - lanes->lanes];
    request->lane = lane;
    request->request.on_answer = on_answer;
    int error = db_connection_submit(lane->connection, &request->request, steps, step_count);
    if (!error && request->is_write)
        lane->writes_in_flight++;
    if (!error && request->is_large)
        lane->large_in_flight++;
    if (!error && request->is_ordered)
        lane->ordered_in_flight++;
    if (!error && request->takes_room)
        lane->room_taken++;
    return error;
}

bool store_lanes_is_available(const struct store_lanes *lanes)
{
    return lanes->is_available;
}

bool store_lanes_is_idle(const struct store_lanes *lanes)
{
    for (size_t i = 0; i < lanes->count; i++)
        if (lanes->lanes[i].connection && db_connection_in_flight(lanes->lanes[i].connection) > 0)
            return false;
    return true;
}

int store_lanes_new(const struct store_lanes_options *options, struct store_lanes **ret_lanes)
{
    size_t count = options->settings->database.connections > 0
                       ? (size_t)options->settings->database.connections
                       : 1;
    struct store_lanes *lanes = calloc(1, sizeof(*lanes) + count * sizeof(lanes->lanes[0]));
    if (!lanes)
        return -ENOMEM;
    lanes->options = *options;
    lanes->count = count;
    (void)snprintf(lanes->application, sizeof(lanes->application), "userd worker-%u",
        (unsigned int)options->slot_number);
    const struct db_options db_options = {
        .url = options->settings->database.url,
        .application = lanes->application,
        .connect_timeout_ms = options->settings->database.connect_timeout_ms,
        .statement_timeout_ms = options->settings->database.statement_timeout_ms,
        .session_checks = session_checks,
        .accepts_session = accepts_session,
        .on_check_failed = on_check_failed,
    };
    const struct db_connection_handlers handlers = {
        .on_ready = on_ready,
        .on_lost = on_lost,
        .on_progress = on_progress,
        .on_held = on_held,
        .on_attempt_failed = on_attempt_failed,
    };
    for (size_t i = 0; i < count; i++) {
        struct store_lane *lane = &lanes->lanes[i];
        lane->lanes = lanes;
        int error = db_connection_new(
            options->event, &db_options, options->statements, &handlers, lane, &lane->connection);
        if (error < 0) {
            store_lanes_free(lanes);
            return error;
        }
    }
    *ret_lanes = lanes;
    return 0;
}

struct store_lanes *store_lanes_free(struct store_lanes *lanes)
{
    if (!lanes)
        return NULL;
    lanes->is_closing = true;
    for (size_t i = 0; i < lanes->count; i++)
        lanes->lanes[i].connection = db_connection_free(lanes->lanes[i].connection);
    free(lanes);
    return NULL;
}
