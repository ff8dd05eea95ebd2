#include "worker/db/db_pooling.h"

#include <errno.h>
#include <stdlib.h>

#include "common/log.h"
#include "worker/db/db_dial.h"
#include "worker/db/db_query.h"

#define TIMER_ACCURACY_US 10000

/* Who is asked, one after the other. A pooler gives out the connection that was used last, or all
 * in turn: twice the same in a row shows the latter also where there are just two. */
enum asked { ASKED_FIRST, ASKED_SECOND };
static const enum asked turns[] = {
    ASKED_FIRST, ASKED_SECOND, ASKED_SECOND, ASKED_FIRST, ASKED_FIRST, ASKED_SECOND};

struct db_pooling {
    sd_event *event; /* owned */
    PGconn *first;   /* the caller's */
    PGconn *second;  /* owned */
    int32_t pids[2]; /* by `enum asked`; 0: not known yet */
    void (*on_done)(bool is_lent_out, bool is_broken, void *userdata);
    void *userdata;
    struct db_dial_options dial_options;
    struct db_dial *dial; /* owned */
    struct db_query query;
    sd_event_source *timer; /* owned */
    size_t turn;
};

static void take_turn(struct db_pooling *pooling);

static void on_pid(const PGresult *result, void *userdata)
{
    struct db_pooling *pooling = userdata;
    enum asked asked = turns[pooling->turn];
    if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1) {
        /* Of the second it says no more than one that cannot be had. */
        pooling->on_done(false, asked == ASKED_FIRST, pooling->userdata);
        return;
    }
    int32_t pid = (int32_t)strtol(PQgetvalue(result, 0, 0), NULL, 10);
    int32_t *known = &pooling->pids[asked];
    bool has_changed = *known != 0 && *known != pid;
    *known = pid;
    if (has_changed || pooling->pids[ASKED_FIRST] == pooling->pids[ASKED_SECOND]) {
        pooling->on_done(true, false, pooling->userdata);
        return;
    }
    pooling->turn++;
    take_turn(pooling);
}

static void on_second(PGconn *session, void *userdata)
{
    struct db_pooling *pooling = userdata;
    pooling->second = session;
    take_turn(pooling);
}

static void on_no_second(const char *reason, bool is_final, bool has_answered, void *userdata)
{
    struct db_pooling *pooling = userdata;
    (void)is_final;
    (void)has_answered;
    log_info("pooler not examined further: no second session reason=\"%s\"", reason);
    pooling->on_done(false, false, pooling->userdata);
}

static void dial_second(struct db_pooling *pooling)
{
    static const struct db_dial_handlers handlers = {
        .on_connected = on_second, .on_failed = on_no_second};
    int error =
        db_dial_new(pooling->event, &pooling->dial_options, &handlers, pooling, &pooling->dial);
    if (error < 0)
        pooling->on_done(false, true, pooling->userdata);
}

static int ask(struct db_pooling *pooling, PGconn *session)
{
    pooling->query = (struct db_query){
        .event = pooling->event, .session = session, .on_done = on_pid, .userdata = pooling};
    return db_query_start(&pooling->query, "SELECT pg_backend_pid()", NULL, 0);
}

static void take_turn(struct db_pooling *pooling)
{
    if (pooling->turn == ARRAY_LENGTH(turns)) {
        pooling->on_done(false, false, pooling->userdata);
        return;
    }
    bool is_first = turns[pooling->turn] == ASKED_FIRST;
    if (!is_first && !pooling->second) {
        dial_second(pooling);
        return;
    }
    if (ask(pooling, is_first ? pooling->first : pooling->second) < 0)
        pooling->on_done(false, true, pooling->userdata);
}

/* In session mode a second session may wait for a place in the pool for as long as the pooler
 * likes.
 */
static int on_time(sd_event_source *source, uint64_t time_us, void *userdata)
{
    struct db_pooling *pooling = userdata;
    (void)source;
    (void)time_us;
    bool is_second = turns[pooling->turn] == ASKED_SECOND;
    if (is_second)
        log_info("pooler not examined further: no second session reason=\"timed out\"");
    pooling->on_done(false, !is_second, pooling->userdata);
    return 0;
}

int db_pooling_new(sd_event *event, const struct db_pooling_options *options,
    void (*on_done)(bool is_lent_out, bool is_broken, void *userdata), void *userdata,
    struct db_pooling **ret_pooling)
{
    struct db_pooling *pooling = calloc(1, sizeof(*pooling));
    if (!pooling)
        return -ENOMEM;
    *pooling = (struct db_pooling){
        .event = sd_event_ref(event),
        .first = options->session,
        .pids = {[ASKED_FIRST] = options->backend->pid},
        .on_done = on_done,
        .userdata = userdata,
        .dial_options =
            {
                .url = options->url,
                .application = options->application,
                .timeout_ms = options->timeout_ms,
                .only = &options->backend->server,
            },
    };
    int error = sd_event_add_time_relative(event, &pooling->timer, CLOCK_MONOTONIC,
        (uint64_t)options->timeout_ms * 1000, TIMER_ACCURACY_US, on_time, pooling);
    if (error >= 0)
        error = ask(pooling, options->session);
    if (error < 0) {
        db_pooling_free(pooling);
        return error;
    }
    *ret_pooling = pooling;
    return 0;
}

struct db_pooling *db_pooling_free(struct db_pooling *pooling)
{
    if (!pooling)
        return NULL;
    db_query_cancel(&pooling->query);
    db_dial_free(pooling->dial);
    PQfinish(pooling->second);
    sd_event_source_disable_unref(pooling->timer);
    sd_event_unref(pooling->event);
    free(pooling);
    return NULL;
}
