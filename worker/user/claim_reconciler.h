/* Looks after the claims of users that others than userd have made or renamed while it runs: every
 * second, by the worker that publishes the outbox, so that one worker of all instances does it.
 * Says how many there were. Loop thread only. */
#ifndef USERD_WORKER_USER_CLAIM_RECONCILER_H
#define USERD_WORKER_USER_CLAIM_RECONCILER_H

#include <systemd/sd-event.h>

#include "common/attributes.h"
#include "common/scoreboard.h"
#include "worker/store/user_store.h"

struct claim_reconciler;

/* `slot` is this worker's own. All must outlive it. */
MUST_CHECK int claim_reconciler_new(sd_event *event, struct user_store *store,
    const struct scoreboard_slot *slot, struct claim_reconciler **ret_reconciler);
/* Before the store, whose answers it then waits for no more. */
struct claim_reconciler *claim_reconciler_free(struct claim_reconciler *reconciler);

#endif
