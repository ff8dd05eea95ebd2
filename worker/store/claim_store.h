/* Claims for the names of users that userd did not make: what `userd migrate up` does after the
 * migrations. */
#ifndef USERD_WORKER_STORE_CLAIM_STORE_H
#define USERD_WORKER_STORE_CLAIM_STORE_H

#include "worker/store/schema_session.h"

#define CLAIM_STORE_BATCH 5000

/* A user without a claim; the texts belong to `result`. */
struct unclaimed_user {
    int32_t row_id;
    int32_t auth_id;
    const char *username;
    size_t username_length;
};
struct unclaimed_users {
    PGresult *result; /* owned */
    size_t count;
    struct unclaimed_user users[CLAIM_STORE_BATCH];
};
void unclaimed_users_cleanup(struct unclaimed_users *users);

struct new_claim {
    const struct unclaimed_user *user;
    char *canonical; /* the caller's */
    size_t canonical_length;
};

/* All return what schema_session_run() does. */

/* Claims of users that are gone or that the legacy service has renamed. */
MUST_CHECK int claim_store_remove_stale(struct schema_session *session, int64_t *ret_removed);
/* The next up to CLAIM_STORE_BATCH users without a claim above `row_id`, in the order of row ids.
 */
MUST_CHECK int claim_store_find_unclaimed(
    struct schema_session *session, int32_t row_id, struct unclaimed_users *ret_users);
/* Writes the claims that are free, for users that still have that name; of equal ones the first. */
MUST_CHECK int claim_store_insert(struct schema_session *session, const struct new_claim *claims,
    size_t count, int64_t *ret_inserted);

#endif
