/* One attempt to make a session that requests can be sent on: reaches a server (db_dial), finds out
 * who answers there and whether a pooler is in between, sets the session up, runs the session
 * checks, prepares the statements, all without blocking and for each host and address within one
 * time limit; a server that fails on the way is followed by the next one of the URL. What happens
 * after a failure is db_connection's to decide. Loop thread only.
 */
#ifndef USERD_WORKER_DB_DB_CONNECT_H
#define USERD_WORKER_DB_DB_CONNECT_H

#include "worker/db/db_backend.h"
#include "worker/db/db_connection.h"

struct db_connect;

/* Why there is no session. */
struct db_connect_failure {
    const char *reason; /* valid during the call; NULL: a session check said "not yet" */
    bool is_final;      /* it will not be any better until somebody changes a setting */
};

/* `session` is in pipeline mode, non-blocking, idle, and the receiver's to finish, as is what
 * `backend` owns; or both are NULL, and `failure` says why. The receiver may free the attempt. */
typedef void db_connect_done(PGconn *session, struct db_backend *backend,
    const struct db_connect_failure *failure, void *userdata);

/* `options` and `statements` must outlive it. */
MUST_CHECK int db_connect_new(sd_event *event, const struct db_options *options,
    const struct db_statement *const *statements, db_connect_done *on_done, void *userdata,
    struct db_connect **ret_connect);
/* Gives the attempt up. NULL is fine. Always returns NULL. */
struct db_connect *db_connect_free(struct db_connect *connect);

#endif
