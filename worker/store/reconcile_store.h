/* Claims of users that others than userd have made or renamed: a member of the legacy service
 * beside it, or people. A trigger notes them; what is noted is put right here, in two statements.
 */
#ifndef USERD_WORKER_STORE_RECONCILE_STORE_H
#define USERD_WORKER_STORE_RECONCILE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/store/user_store.h"

/* What was noted, and how much of it one pass takes. */
#define RECONCILE_USERS 500

struct reconcile_pass {
    /* The canonical form of a name: malloc'ed, NULL where it breaks a rule. -ENOMEM ends the pass.
     */
    int (*make_canonical)(
        const char *username, size_t length, char **ret_canonical, size_t *ret_length);
    /* The only answer; false: the database is away or refuses, nothing has changed. */
    void (*on_done)(struct reconcile_pass *pass, bool is_done);
    void *userdata;
    /* outputs */
    size_t ret_noted;   /* entries; RECONCILE_USERS: there may be more */
    size_t ret_users;   /* that they are about, and that are there */
    size_t ret_claimed; /* users that hold their name from now on */
    size_t ret_done;    /* entries that are settled; the others' users are locked by somebody */
    size_t ret_stale;   /* claims to names that their users no longer have, removed */
};

/* Loop thread. The caller keeps the pass until on_done, which may run before this returns. */
void reconcile_store_run(struct user_store *store, struct reconcile_pass *pass);

#endif
