/* One libpq connection on the worker's loop: non-blocking, pipeline mode, prepared statements, for
 * ever reconnecting.
 *
 * A request is one implicit transaction: all of its steps travel in one round trip and end with one
 * Sync, at which PostgreSQL commits. It needs no BEGIN and no COMMIT, and must leave no transaction
 * block open: one that does costs the connection. LOCK TABLE, which insists on a block, goes into a
 * DO statement. Several requests may be in flight; their answers come in order. When the connection
 * is lost every request in flight is answered DB_LOST, which for a write means "not known"; then
 * the connection is made anew with back-off and jitter, and the statements are prepared again
 * before on_ready. Nothing here knows what the SQL means. Loop thread only.
 */
#ifndef USERD_WORKER_DB_DB_CONNECTION_H
#define USERD_WORKER_DB_DB_CONNECTION_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <systemd/sd-event.h>

#include "common/attributes.h"
#include "worker/db/db_backend.h"
#include "worker/db/db_parameters.h"

/* A named statement, written on top of a file of worker/store/. Prepared on connect, unless
 * `is_plain`: then it is sent by text each time (DO, session checks). */
struct db_statement {
    const char *name;
    const char *sql;
    bool is_plain;
};

struct db_step {
    const struct db_statement *statement;
    const struct db_parameters
        *parameters; /* NULL: none. Needed only until db_connection_submit() returns */
};

enum db_outcome {
    DB_DONE,  /* every step worked and the transaction is committed */
    DB_ERROR, /* PostgreSQL refused a step; the transaction is rolled back */
    DB_LOST,  /* the connection went away: it may or may not be committed */
};

struct db_answer {
    enum db_outcome outcome;
    PGresult *const
        *results; /* one per step when DB_DONE, binary format; valid during on_answer only */
    size_t result_count;
    char sqlstate[6];       /* DB_ERROR */
    const char *message;    /* DB_ERROR, DB_LOST: for the log; no trailing line feed */
    const char *constraint; /* DB_ERROR: name of the violated constraint, or "" */
};

#define DB_MAX_STEPS 8

struct db_request {
    void (*on_answer)(struct db_request *request, const struct db_answer *answer);
    /* private to db_connection while in flight */
    struct db_request *next;
    size_t step_count;
    size_t results_seen;
    PGresult *results[DB_MAX_STEPS];
};

struct db_options {
    const char *url;          /* libpq URL or keywords */
    const char *application;  /* application_name: "userd worker-1 relay" */
    int connect_timeout_ms;   /* for each host and address of the URL */
    int statement_timeout_ms; /* set on the session, and the bound of silence while requests are in
                                 flight: past twice this the connection counts as lost, unless
                                 PostgreSQL says that a commit waits for a synchronous standby */
    /* Run on each new connection before the statements are prepared; NULL, or plain statements
     * without parameters, ended by NULL. The result of each, by its number, is checked by
     * `accepts_session` (NULL: any success will do): false means "not yet", reconnect later. */
    const struct db_statement *const *session_checks;
    bool (*accepts_session)(size_t number, const PGresult *result, void *userdata);
    /* PostgreSQL refused a check itself. NULL: that is logged like any failure to connect. */
    void (*on_check_failed)(const char *sqlstate, void *userdata);
    void *check_userdata; /* private: db_connection puts its own `userdata` here */
};

struct db_connection_handlers {
    void (*on_ready)(void *userdata);
    /* Was ready, is no more; requests in flight have been answered. */
    void (*on_lost)(void *userdata);
    /* There is room again for another request (see db_connection_in_flight). May be NULL. */
    void (*on_progress)(void *userdata);
    /* The commit of what was sent first waits for a synchronous standby, or (false) does so no
     * more. The session is kept, for its backend would stay whatever became of the session, and so
     * are its requests, unless they are abandoned. May be NULL. */
    void (*on_held)(bool is_held, void *userdata);
    /* An attempt to connect failed. `is_final`: trying again, which is done all the same, will not
     * help until somebody changes a setting. May be NULL. */
    void (*on_attempt_failed)(const char *reason, bool is_final, void *userdata);
};

struct db_connection;

/* Starts connecting at once. `statements` (an array of pointers, ended by NULL) and the options'
 * texts must outlive it. Handlers never run inside a function that is called here, except
 * db_connection_free() and db_connection_reset(). */
MUST_CHECK int db_connection_new(sd_event *event, const struct db_options *options,
    const struct db_statement *const *statements, const struct db_connection_handlers *handlers,
    void *userdata, struct db_connection **ret_connection);
/* Requests in flight are answered DB_LOST; on_lost does not run. May be called by any handler. NULL
 * is fine. Always returns NULL. */
struct db_connection *db_connection_free(struct db_connection *connection);

bool db_connection_is_ready(const struct db_connection *connection);
size_t db_connection_in_flight(const struct db_connection *connection);
/* A commit waits for a synchronous standby: see on_held. */
bool db_connection_is_held(const struct db_connection *connection);
/* Which backend a ready connection is with. */
const struct db_backend *db_connection_backend(const struct db_connection *connection);
/* Answers DB_LOST to every request in flight, which for a write means "not known", and keeps the
 * session: what PostgreSQL answers later is thrown away. Called by on_held. */
void db_connection_abandon(struct db_connection *connection, const char *reason);
/* Another connection to the same server was found dead: this one says soon that it lives, or counts
 * as lost as well. */
void db_connection_suspect(struct db_connection *connection);
/* Sends a request. The caller keeps it alive until on_answer. 0, -ENOTCONN when not ready, -ENOMEM;
 * nothing was sent when it fails. */
MUST_CHECK int db_connection_submit(struct db_connection *connection, struct db_request *request,
    const struct db_step *steps, size_t step_count);
/* Drops the connection and makes it anew (a session lock was lost, the session is not to be trusted
 * any more). Called by a handler it waits until that has returned. One that is held is made anew
 * when its commit is confirmed; until then it is lost. */
void db_connection_reset(struct db_connection *connection);

#endif
