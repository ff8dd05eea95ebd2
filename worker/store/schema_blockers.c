#include "worker/store/schema_blockers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/monotonic_clock.h"
#include "worker/db/db_connection.h"

#define FIRST_LOOK_US     300000
#define NEXT_LOOK_US      1000000
#define REPEAT_US         10000000
#define STATEMENT_MS      5000
#define TIMER_ACCURACY_US 10000
#define TEXT_SIZE         512

static const struct db_statement find_blockers = {
    .sql = "SELECT string_agg(format('%s pid %s of role %s%s',"
           " coalesce(nullif(a.application_name, ''), 'unnamed'), a.pid,"
           " coalesce(a.usename::text, '?'), coalesce(' (' || a.state || ')', '')), ', ')"
           " FROM pg_stat_activity a WHERE a.pid = ANY (pg_blocking_pids($1::int4))",
    .is_plain = true,
};
static const struct db_statement *const no_statements[] = {NULL};

struct schema_blockers {
    const struct schema_session *session;
    struct db_options options;
    sd_event *event;                  /* owned */
    struct db_connection *connection; /* owned: once it is needed */
    sd_event_source *timer;           /* owned */
    struct db_request request;
    bool is_asked;
    uint64_t said_us;
    char said[TEXT_SIZE];
};

static void on_answer(struct db_request *request, const struct db_answer *answer)
{
    struct schema_blockers *blockers = CONTAINER_OF(request, struct schema_blockers, request);
    char text[TEXT_SIZE];
    blockers->is_asked = false;
    if (answer->outcome != DB_DONE || db_result_is_null(answer->results[0], 0, 0))
        return;
    size_t length = 0;
    const char *value = db_result_bytes(answer->results[0], 0, 0, &length);
    (void)snprintf(text, sizeof(text), "%.*s", (int)length, value);
    uint64_t now_us = monotonic_clock_turn_us(blockers->event);
    if (strcmp(text, blockers->said) == 0 && now_us - blockers->said_us < REPEAT_US)
        return;
    blockers->said_us = now_us;
    memcpy(blockers->said, text, sizeof(text));
    log_warn("migration waits for a lock holder=\"%s\"", text);
}

static void ask(struct schema_blockers *blockers)
{
    struct db_parameters parameters CLEANUP(db_parameters_cleanup) = {0};
    const struct db_step step = {.statement = &find_blockers, .parameters = &parameters};
    if (blockers->is_asked || !db_connection_is_ready(blockers->connection))
        return;
    db_parameters_add_int4(&parameters, schema_session_backend(blockers->session)->pid);
    blockers->request.on_answer = on_answer;
    blockers->is_asked =
        db_connection_submit(blockers->connection, &blockers->request, &step, 1) == 0;
}

static void on_ready(void *userdata)
{
    ask(userdata);
}

static int on_time(sd_event_source *source, uint64_t time_us, void *userdata)
{
    static const struct db_connection_handlers handlers = {.on_ready = on_ready};
    struct schema_blockers *blockers = userdata;
    (void)time_us;
    (void)sd_event_source_set_time_relative(source, NEXT_LOOK_US);
    (void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
    if (blockers->connection)
        ask(blockers);
    else if (db_connection_new(blockers->event, &blockers->options, no_statements, &handlers,
                 blockers, &blockers->connection) < 0)
        blockers->connection = NULL;
    return 0;
}

struct schema_blockers *schema_blockers_new(
    sd_event *event, const struct settings *settings, const struct schema_session *session)
{
    struct schema_blockers *blockers = calloc(1, sizeof(*blockers));
    if (!blockers)
        return NULL;
    *blockers = (struct schema_blockers){
        .session = session,
        .event = sd_event_ref(event),
        .options =
            {
                .url = settings->database.url,
                .application = "userd migrate watch",
                .connect_timeout_ms = settings->database.connect_timeout_ms,
                .statement_timeout_ms = STATEMENT_MS,
            },
    };
    if (sd_event_add_time_relative(event, &blockers->timer, CLOCK_MONOTONIC, FIRST_LOOK_US,
            TIMER_ACCURACY_US, on_time, blockers) < 0)
        return schema_blockers_free(blockers);
    return blockers;
}

struct schema_blockers *schema_blockers_free(struct schema_blockers *blockers)
{
    if (!blockers)
        return NULL;
    db_connection_free(blockers->connection);
    sd_event_source_disable_unref(blockers->timer);
    sd_event_unref(blockers->event);
    free(blockers);
    return NULL;
}
