/* Gives users that the legacy service made the claim to their names: after `userd migrate up`, as
 * often as one likes.
 *
 * Claims that no longer fit their user go first. Then each user without one gets it, if the rules
 * allow the name and nobody holds its canonical form; of several the lowest row id wins. Names are
 * left as they are.
 */
#ifndef USERD_WORKER_USER_USERNAME_ADOPTION_H
#define USERD_WORKER_USER_USERNAME_ADOPTION_H

#include "worker/store/schema_session.h"

/* What schema_session_run() returns. */
MUST_CHECK int username_adoption_run(struct schema_session *session);

#endif
