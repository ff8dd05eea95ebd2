/* One statement on a session that nobody else uses: sent, awaited on the loop, its result handed
 * over. Text in, text out. For what is asked before a session is taken into service. Loop thread
 * only. */
#ifndef USERD_WORKER_DB_DB_QUERY_H
#define USERD_WORKER_DB_DB_QUERY_H

#include <libpq-fe.h>
#include <systemd/sd-event.h>

#include "common/attributes.h"

#define DB_QUERY_MAX_VALUES 4

struct db_query {
    sd_event *event; /* the caller's, as is the session */
    PGconn *session; /* in blocking mode or not, and not in pipeline mode */
    /* `result` is NULL when the session is broken; it goes when the handler returns. The handler
     * may start the next query with the same object. */
    void (*on_done)(const PGresult *result, void *userdata);
    void *userdata;
    /* private */
    sd_event_source *io; /* owned while it runs */
    PGresult *result;    /* owned: the first one */
};

/* The caller has filled in what is not private, and zeroed the rest. 0 or a negative errno; on_done
 * never runs inside. */
MUST_CHECK int db_query_start(
    struct db_query *query, const char *sql, const char *const *values, size_t value_count);
/* on_done does not run any more. One that does not run is fine. */
void db_query_cancel(struct db_query *query);

#endif
