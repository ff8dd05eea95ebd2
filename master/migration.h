/* Runs `userd-worker migrate ...` once, to its end. The master itself never opens the database.
 *
 * The child's output is ours. SIGINT and SIGTERM are passed on as SIGTERM, a second one as SIGKILL:
 * each migration is a transaction, so that it is done or not done either way. There is no time
 * limit of ours: how long a migration may take is for the one who watches it to say.
 */
#ifndef USERD_MASTER_MIGRATION_H
#define USERD_MASTER_MIGRATION_H

#include <stdbool.h>

#include "common/attributes.h"
#include "common/settings.h"

#define MIGRATION_MAX_WORDS 2

/* `words`: "up", "down" and perhaps a number, or "status"; ended by NULL. Returns the exit status
 * for main(): the child's, or 128 and the signal's number that ended it, or EX_OSERR, logged, when
 * it could not be run. Blocks SIGINT, SIGTERM and SIGCHLD, and leaves them blocked. */
int migration_run(
    const struct settings *settings, const char *const *words, bool *ret_was_interrupted);

#endif
