/* Says in the log whom a migration waits for while it waits for a lock: asks PostgreSQL by a
 * session of its own, again and again, from a moment after the start until the end. */
#ifndef USERD_WORKER_STORE_SCHEMA_BLOCKERS_H
#define USERD_WORKER_STORE_SCHEMA_BLOCKERS_H

#include <systemd/sd-event.h>

#include "common/settings.h"
#include "worker/store/schema_session.h"

struct schema_blockers;

/* `settings` and `session` must outlive it. Without memory nothing is said. */
struct schema_blockers *schema_blockers_new(
    sd_event *event, const struct settings *settings, const struct schema_session *session);
/* NULL is fine. Always returns NULL. */
struct schema_blockers *schema_blockers_free(struct schema_blockers *blockers);

#endif
