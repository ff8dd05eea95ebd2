/* A look at the running service for those who look again and again (`userd top`, userd-metrics):
 * what the master says of itself, and the scoreboard, read-only. */
#ifndef USERD_MASTER_SERVICE_VIEW_H
#define USERD_MASTER_SERVICE_VIEW_H

#include "common/attributes.h"
#include "common/scoreboard.h"

#include "ipc.pb-c.h"

struct admin_client;

struct service_view {
    const Userd__Ipc__AdminResult *master; /* the client's */
    const struct scoreboard *scoreboard;   /* owned */
    struct admin_client *client;           /* owned */
};

/* -ENOENT, -ECONNREFUSED: no service there; -EACCES: not for this user; -ETIMEDOUT, -ECONNRESET: no
 * answer; -EPROTONOSUPPORT: its scoreboard is of another version. */
MUST_CHECK int service_view_open(
    const char *run_dir, unsigned int timeout_ms, struct service_view *ret_view);
/* Zeroed is fine. */
void service_view_close(struct service_view *view);

#endif
