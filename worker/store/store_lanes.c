#include "worker/store/store_lanes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/monotonic_clock.h"
#include "worker/store/schema_version.h"

#define REPEAT_WARNING_US 30000000

static const struct db_statement schema_version = {
    .name = "schema_version",
    .sql = "SELECT coalesce(max(version), 0)::int4 FROM schema_migration",
    .is_plain = true,
};

struct store_lane {
    struct store_lanes *lanes;
    struct db_connection *connection; /* owned */
    size_t writes_in_flight;
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

static void update_availability(struct store_lanes *lanes)
{
    bool is_available = false;
    for (size_t i = 0; i < lanes->count; i++)
        is_available |=
            lanes->lanes[i].connection && db_connection_is_ready(lanes->lanes[i].connection);
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

static void on_lost(void *userdata)
{
    struct store_lane *lane = userdata;
    update_availability(lane->lanes);
}

static void on_progress(void *userdata)
{
    struct store_lane *lane = userdata;
    lane->lanes->options.on_room(lane->lanes->options.userdata);
}

/* ---- the schema must be there ---- */

static void warn_of_schema(struct store_lanes *lanes, int32_t version)
{
    uint64_t now_us = monotonic_clock_turn_us(lanes->options.event);
    if (lanes->last_warning_us && (int64_t)now_us - lanes->last_warning_us < REPEAT_WARNING_US)
        return;
    lanes->last_warning_us = (int64_t)now_us;
    log_warn("schema is at version %d, this program needs %d: run `userd migrate up`", version,
        SCHEMA_VERSION_NEEDED);
}

/* A newer schema is fine: migrations expand first, and contract only what no running program needs.
 */
static bool accepts_session(const PGresult *result, void *userdata)
{
    struct store_lane *lane = userdata;
    int32_t version = db_result_int4(result, 0, 0);
    if (version >= SCHEMA_VERSION_NEEDED)
        return true;
    warn_of_schema(lane->lanes, version);
    return false;
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

static bool is_ready(const struct store_lane *lane)
{
    return lane->connection && db_connection_is_ready(lane->connection);
}

/* The ready lane from number `first` on with the fewest requests in flight; NULL: none is ready. */
static const struct store_lane *least_busy(
    const struct store_lanes *lanes, size_t first, bool is_without_writes)
{
    const struct store_lane *best = NULL;
    for (size_t i = first; i < lanes->count; i++) {
        const struct store_lane *lane = &lanes->lanes[i];
        if (!is_ready(lane) || (is_without_writes && lane->writes_in_flight > 0))
            continue;
        if (!best ||
            db_connection_in_flight(lane->connection) < db_connection_in_flight(best->connection))
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

bool store_lanes_has_room(const struct store_lanes *lanes, bool is_write)
{
    const struct store_lane *lane = choose(lanes, is_write);
    return lane && lane->room_taken < STORE_LANES_IN_FLIGHT;
}

static void on_answer(struct db_request *db_request, const struct db_answer *answer)
{
    struct store_request *request = CONTAINER_OF(db_request, struct store_request, request);
    if (request->is_write)
        request->lane->writes_in_flight--;
    if (request->takes_room)
        request->lane->room_taken--;
    request->on_answer(request, answer);
}

int store_lanes_submit(struct store_lanes *lanes, struct store_request *request,
    const struct db_step *steps, size_t step_count)
{
    const struct store_lane *chosen = choose(lanes, request->is_write);
    if (!chosen || lanes->is_closing)
        return -ENOTCONN;
    struct store_lane *lane = &lanes->lanes[chosen - lanes->lanes];
    request->lane = lane;
    request->request.on_answer = on_answer;
    int error = db_connection_submit(lane->connection, &request->request, steps, step_count);
    if (!error && request->is_write)
        lane->writes_in_flight++;
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
        .session_check = &schema_version,
        .accepts_session = accepts_session,
        .on_check_failed = on_check_failed,
    };
    const struct db_connection_handlers handlers = {
        .on_ready = on_ready,
        .on_lost = on_lost,
        .on_progress = on_progress,
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
