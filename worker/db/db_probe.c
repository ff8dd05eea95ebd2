#include "worker/db/db_probe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "worker/db/db_dial.h"
#include "worker/db/db_query.h"

#define TIMER_ACCURACY_US 10000
#define IDLE              "idle" /* and "idle in transaction" */

/* A role sees what its own backends do, but not under another one (ALTER ROLE ... SET role), where
 * all is NULL. Without track_activities the state is "disabled", and what is waited for is told. */
static const char find_backend_sql[] =
    "SELECT state, coalesce(wait_event, '') FROM pg_stat_get_activity($1::int4)"
    " WHERE backend_start IS NULL"
    " OR (extract(epoch FROM backend_start) * 1000000)::int8 = $2::int8";

struct db_probe {
    sd_event *event; /* owned */
    const struct db_backend *backend;
    void (*on_done)(enum db_probe_finding finding, void *userdata);
    void *userdata;
    struct db_dial_options dial_options;
    struct db_dial *dial;   /* owned */
    PGconn *session;        /* owned */
    sd_event_source *timer; /* owned: the bound of the question */
    struct db_query query;
};

static enum db_probe_finding judge(const PGresult *result)
{
    if (!result)
        return DB_PROBE_UNREACHABLE;
    if (PQresultStatus(result) != PGRES_TUPLES_OK)
        return DB_PROBE_REFUSED;
    if (PQntuples(result) == 0)
        return DB_PROBE_RESTS;
    if (strcmp(PQgetvalue(result, 0, 1), "SyncRep") == 0)
        return DB_PROBE_WAITS_FOR_STANDBY;
    const char *state = PQgetvalue(result, 0, 0);
    bool is_resting =
        strncmp(state, IDLE, strlen(IDLE)) == 0 ||
        (strcmp(state, "disabled") == 0 && strcmp(PQgetvalue(result, 0, 1), "ClientRead") == 0);
    return is_resting ? DB_PROBE_RESTS : DB_PROBE_WORKS;
}

static void on_answer(const PGresult *result, void *userdata)
{
    struct db_probe *probe = userdata;
    probe->on_done(judge(result), probe->userdata);
}

static void on_connected(PGconn *session, void *userdata)
{
    struct db_probe *probe = userdata;
    char pid[16];
    char started[32];
    const char *const values[] = {pid, started};
    (void)snprintf(pid, sizeof(pid), "%d", probe->backend->pid);
    (void)snprintf(started, sizeof(started), "%lld", (long long)probe->backend->started_us);
    probe->session = session;
    probe->query = (struct db_query){
        .event = probe->event, .session = session, .on_done = on_answer, .userdata = probe};
    int error = db_query_start(&probe->query, find_backend_sql, values, ARRAY_LENGTH(values));
    if (error < 0)
        probe->on_done(DB_PROBE_UNREACHABLE, probe->userdata);
}

static void on_failed(const char *reason, bool is_final, bool has_answered, void *userdata)
{
    struct db_probe *probe = userdata;
    (void)is_final;
    log_debug("database probe failed application=\"%s\" reason=\"%s\"",
        probe->dial_options.application, reason);
    probe->on_done(has_answered ? DB_PROBE_REFUSED : DB_PROBE_UNREACHABLE, probe->userdata);
}

static int on_time(sd_event_source *source, uint64_t time_us, void *userdata)
{
    struct db_probe *probe = userdata;
    (void)source;
    (void)time_us;
    probe->on_done(DB_PROBE_UNREACHABLE, probe->userdata);
    return 0;
}

int db_probe_new(sd_event *event, const struct db_probe_options *options,
    const struct db_backend *backend,
    void (*on_done)(enum db_probe_finding finding, void *userdata), void *userdata,
    struct db_probe **ret_probe)
{
    static const struct db_dial_handlers handlers = {
        .on_connected = on_connected, .on_failed = on_failed};
    struct db_probe *probe = calloc(1, sizeof(*probe));
    if (!probe)
        return -ENOMEM;
    *probe = (struct db_probe){
        .event = sd_event_ref(event),
        .backend = backend,
        .on_done = on_done,
        .userdata = userdata,
        .dial_options =
            {
                .url = options->url,
                .application = options->application,
                .timeout_ms = options->timeout_ms,
                .only = &backend->server,
            },
    };
    int error = db_dial_new(event, &probe->dial_options, &handlers, probe, &probe->dial);
    if (error >= 0)
        error = sd_event_add_time_relative(event, &probe->timer, CLOCK_MONOTONIC,
            (uint64_t)options->timeout_ms * 1000, TIMER_ACCURACY_US, on_time, probe);
    if (error < 0) {
        db_probe_free(probe);
        return error;
    }
    *ret_probe = probe;
    return 0;
}

struct db_probe *db_probe_free(struct db_probe *probe)
{
    if (!probe)
        return NULL;
    db_query_cancel(&probe->query);
    db_dial_free(probe->dial);
    PQfinish(probe->session);
    sd_event_source_disable_unref(probe->timer);
    sd_event_unref(probe->event);
    free(probe);
    return NULL;
}
