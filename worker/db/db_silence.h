/* What to make of a session that says nothing while requests are in flight: it is dead, or busy, or
 * its commit waits for a synchronous standby. Private to db_connection.
 *
 * After a while PostgreSQL is asked by another session (db_probe). A session whose commit waits for
 * a standby is held: dropping it would leave its backend where it is and add another one, and
 * cancelling it would make a commit visible that no standby has. A session of which PostgreSQL
 * knows no statement is lost at once, and every other one when the silence has lasted too long.
 */
#ifndef USERD_WORKER_DB_DB_SILENCE_H
#define USERD_WORKER_DB_DB_SILENCE_H

#include "worker/db/db_connection.h"

/* A request is the first in flight. */
void db_silence_watch(struct db_connection *connection);
/* Something came: the backend works. Runs on_held. */
void db_silence_end(struct db_connection *connection);
/* The timer has fired while there is a session. */
void db_silence_check(struct db_connection *connection);

#endif
