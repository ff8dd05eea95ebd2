/* Finds out whether a pooler between us and PostgreSQL lends out its server connections for single
 * transactions or statements (PgBouncer: pool_mode = transaction or statement). There advisory
 * locks, settings and prepared statements stay behind on a connection that the next client gets,
 * and nothing that userd does is safe.
 *
 * Asks the session, and a second one made for this, which backend answers: a backend that changes
 * under a session, or that both of them have, is lent out. Loop thread only.
 */
#ifndef USERD_WORKER_DB_DB_POOLING_H
#define USERD_WORKER_DB_DB_POOLING_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <systemd/sd-event.h>

#include "common/attributes.h"
#include "worker/db/db_backend.h"

#define DB_POOLING_REASON                                                              \
    "a connection pooler lends out its connections for single transactions or "        \
    "statements (PgBouncer: pool_mode = transaction or statement): session locks and " \
    "prepared statements do not survive that; use pool_mode = session, or connect to " \
    "PostgreSQL itself"

struct db_pooling_options {
    const char *url; /* all must outlive it */
    const char *application;
    int timeout_ms;                   /* for reaching the server a second time */
    PGconn *session;                  /* nobody else's until on_done */
    const struct db_backend *backend; /* what the session had at first */
};

struct db_pooling;

/* on_done: `is_broken`: the session is of no use. A second session that cannot be had says nothing:
 * in session mode a pool may be full, and otherwise it is not, for the first one rests. */
MUST_CHECK int db_pooling_new(sd_event *event, const struct db_pooling_options *options,
    void (*on_done)(bool is_lent_out, bool is_broken, void *userdata), void *userdata,
    struct db_pooling **ret_pooling);
struct db_pooling *db_pooling_free(struct db_pooling *pooling);

#endif
