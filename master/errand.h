/* Runs a child once, to its end: what a person asks for and no running service is needed for.
 *
 * `userd-worker migrate ...` changes the schema, `userd-eventd dead-letters ...` looks after the
 * dead letters. The master itself never opens the database or Kafka. The child's output is ours.
 * SIGINT and SIGTERM are passed on as SIGTERM, a second one as SIGKILL: a migration is a
 * transaction, and a dead letter that was sent again and not noted is sent once more. There is no
 * time limit of ours: how long an errand may take is for the one who watches it to say.
 */
#ifndef USERD_MASTER_ERRAND_H
#define USERD_MASTER_ERRAND_H

#include <stdbool.h>

#include "common/attributes.h"
#include "common/settings.h"

enum errand_kind {
    ERRAND_MIGRATE,      /* words: "up", "down" and perhaps a number, or "status" */
    ERRAND_DEAD_LETTERS, /* words: as `userd dead-letters` takes them */
};

/* `words`: ended by NULL. Returns the exit status for main(): the child's, or 128 and the signal's
 * number that ended it, or EX_OSERR, logged, when it could not be run. Blocks SIGINT, SIGTERM and
 * SIGCHLD, and leaves them blocked. */
int errand_run(enum errand_kind kind, const struct settings *settings, const char *const *words,
    bool *ret_was_interrupted);

#endif
