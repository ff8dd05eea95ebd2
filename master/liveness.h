/* Watches the heartbeats that READY children write to the scoreboard, and kills who is silent for
 * too long: its loop, or a worker's rpc thread, hangs or was stopped. Its end is then like any
 * other death. SIGKILL, since a stopped process takes no other signal. */
#ifndef USERD_MASTER_LIVENESS_H
#define USERD_MASTER_LIVENESS_H

#include <systemd/sd-event.h>

#include "master/child_table.h"

struct liveness;

/* Both must outlive it. */
MUST_CHECK int liveness_new(sd_event *event, struct child_table *children,
    const struct scoreboard *scoreboard, unsigned int timeout_ms, struct liveness **ret_liveness);
/* NULL is fine. Always returns NULL. */
struct liveness *liveness_free(struct liveness *liveness);

void liveness_set_timeout(struct liveness *liveness, unsigned int timeout_ms);
/* False when a child that was killed for its silence is still there. */
bool liveness_is_answering(const struct liveness *liveness);

#endif
