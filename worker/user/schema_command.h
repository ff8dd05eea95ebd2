/* `userd migrate up [--dry-run] | down [N] | status`, as the program userd-worker runs it.
 *
 * Waits for the database, for another migration and for locks until --timeout SECONDS are over (60;
 * 0: for as long as it takes), and not at all for what does not pass by itself: a wrong password, a
 * missing database, a bad parameter. A migration that was applied and has changed since is refused.
 */
#ifndef USERD_WORKER_USER_SCHEMA_COMMAND_H
#define USERD_WORKER_USER_SCHEMA_COMMAND_H

#include "common/process_link.h"

/* `argv[0]` is "up", "down" or "status". Returns the exit status: 0; 1 when a migration failed or
 * is refused; EX_USAGE; EX_UNAVAILABLE when the database was lost on the way or another migration
 * runs; EX_TEMPFAIL when it was interrupted. */
MUST_CHECK int schema_command(struct process_link *link, int argc, char **argv);

#endif
