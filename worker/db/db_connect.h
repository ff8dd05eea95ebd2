/* One attempt to make a session that requests can be sent on: resolves, connects, sets the session
 * up, runs the session check, prepares the statements, all without blocking and within one time
 * limit. What happens after a failure is db_connection's to decide. Loop thread only.
 */
#ifndef USERD_WORKER_DB_DB_CONNECT_H
#define USERD_WORKER_DB_DB_CONNECT_H

#include "worker/db/db_connection.h"

struct db_connect;

/* `session` is in pipeline mode, non-blocking, idle, and the receiver's to finish; or NULL, and
 * `reason` (valid during the call) says why: it is NULL too when the session check said "not yet".
 * The receiver may free the attempt. */
typedef void db_connect_done(PGconn *session, const char *reason, void *userdata);

/* `options` and `statements` must outlive it. */
MUST_CHECK int db_connect_new(sd_event *event, const struct db_options *options,
    const struct db_statement *const *statements, db_connect_done *on_done, void *userdata,
    struct db_connect **ret_connect);
/* Gives the attempt up. NULL is fine. Always returns NULL. */
struct db_connect *db_connect_free(struct db_connect *connect);

#endif
