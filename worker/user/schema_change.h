/* The schema moved up or down: what `userd migrate` does, on a connection that is there. Logs what
 * it does and what it refuses.
 *
 * All return 0 or what schema_session_run() does, and: -ECANCELED: refused, or failed and rolled
 * back; said already. -EAGAIN: a lock was not to be had in time; nothing was done, try again.
 * -EEXIST: a file that was applied has changed since; said already.
 */
#ifndef USERD_WORKER_USER_SCHEMA_CHANGE_H
#define USERD_WORKER_USER_SCHEMA_CHANGE_H

#include "worker/store/schema_store.h"

/* Zeroed at first, but for `session`. */
struct schema_change {
    struct schema_session *session; /* the caller's */
    struct schema_applied *applied; /* owned */
    size_t applied_count;
    char (*checksums)[SCHEMA_CHECKSUM_SIZE]; /* owned: of the embedded files */
};

void schema_change_cleanup(struct schema_change *change);

/* Each migration is one transaction. Then the users of the legacy service get the claims to their
 * names. */
MUST_CHECK int schema_change_up(struct schema_change *change);
/* Runs all that up would apply, rolls it back, and prints what it was. */
MUST_CHECK int schema_change_rehearse(struct schema_change *change);
/* The last `wanted` migrations, in one transaction. */
MUST_CHECK int schema_change_down(struct schema_change *change, int wanted);
MUST_CHECK int schema_change_print_status(struct schema_change *change);

#endif
