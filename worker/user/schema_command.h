/* `userd migrate up | down [N] | status`, as the program userd-worker runs it.
 *
 * Waits for the database for as long as it takes, and for another migration that is running for at
 * most a minute. Each migration is one transaction; a migration that was applied and has changed
 * since is refused. After `up` the users of the legacy service get the claims to their names.
 */
#ifndef USERD_WORKER_USER_SCHEMA_COMMAND_H
#define USERD_WORKER_USER_SCHEMA_COMMAND_H

#include "common/process_link.h"

/* `argv[0]` is "up", "down" or "status". Returns the exit status: 0; 1 when a migration failed or
 * is refused; EX_USAGE; EX_UNAVAILABLE when the database was lost on the way or another migration
 * runs; EX_TEMPFAIL when it was interrupted. */
MUST_CHECK int schema_command(struct process_link *link, int argc, char **argv);

#endif
