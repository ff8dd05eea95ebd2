/* A database connection for work that goes step by step: each function runs the loop until its
 * answer is there.
 *
 * For commands, never for the service. Waits for the database and for locks until its time limit is
 * over, but not for what does not pass by itself (a wrong password, a missing database); a
 * statement that runs has no limit. Ends early when the loop is told to exit (a signal, the
 * master's end), which every function reports as -EINTR.
 */
#ifndef USERD_WORKER_STORE_SCHEMA_SESSION_H
#define USERD_WORKER_STORE_SCHEMA_SESSION_H

#include "common/settings.h"
#include "worker/db/db_connection.h"

struct schema_session;

/* `settings` must outlive it. `timeout_ms`: the limit of all waiting together, from now on; 0:
 * none. */
MUST_CHECK int schema_session_new(sd_event *event, const struct settings *settings,
    int64_t timeout_ms, struct schema_session **ret_session);
struct schema_session *schema_session_free(struct schema_session *session);
void schema_session_freep(struct schema_session **session);

/* Until there is a connection. 0; -EACCES: the server refuses it, and will go on doing so;
 * -ETIMEDOUT; -EINTR. For the first two schema_session_error() says why. */
MUST_CHECK int schema_session_await(struct schema_session *session);
/* Whether waiting is allowed for any longer. */
bool schema_session_has_time(const struct schema_session *session);

/* One transaction; *ret_result (may be NULL) is the last step's, the caller's to PQclear().
 * -EBADMSG: PostgreSQL refused it, see schema_session_error(). -ECONNRESET: the connection was
 * lost, and with it all session locks; it is not known whether the transaction was committed.
 * -EINTR, likewise not known. -ENOMEM. */
MUST_CHECK int schema_session_run(struct schema_session *session, const struct db_step *steps,
    size_t step_count, PGresult **ret_result);
/* What PostgreSQL said when it refused, and its SQLSTATE (or ""); valid until the next call. */
const char *schema_session_error(const struct schema_session *session);
const char *schema_session_sqlstate(const struct schema_session *session);
/* Whether it refused for what others held at that time: a lock that was not to be had soon, or a
 * deadlock. The transaction is rolled back, and may be tried again. */
bool schema_session_was_held_up(const struct schema_session *session);
/* Which backend the connection is with, for schema_blockers. */
const struct db_backend *schema_session_backend(const struct schema_session *session);

/* Lets time go by. 0 or -EINTR. */
MUST_CHECK int schema_session_sleep(struct schema_session *session, unsigned int delay_ms);

#endif
