/* Connections that were refused, and are held for a second before they end.
 *
 * A client that is sent away at once may be back at once, thousands of times a second, and each
 * time costs an accept4(), a judgement and a close(). One that waits for its end costs a
 * descriptor. Nothing is read from a connection that is held. Main thread only.
 */
#ifndef USERD_MASTER_REFUSED_CONNECTIONS_H
#define USERD_MASTER_REFUSED_CONNECTIONS_H

#include <stddef.h>
#include <systemd/sd-event.h>

#include "common/attributes.h"

#define REFUSED_CONNECTIONS_MAX     1024
#define REFUSED_CONNECTIONS_HOLD_US 1000000

struct refused_connections;

/* 0, -ENOMEM or what sd-event says. */
MUST_CHECK int refused_connections_new(
    sd_event *event, struct refused_connections **ret_connections);
/* Ends those that are held. NULL is fine. Always returns NULL. */
struct refused_connections *refused_connections_free(struct refused_connections *connections);

/* Takes *fd, which is -1 afterwards. Where there is no room the one that was held longest ends. */
void refused_connections_hold(struct refused_connections *connections, int *fd);
/* Ends all of them: descriptors are needed. */
void refused_connections_end_all(struct refused_connections *connections);
size_t refused_connections_count(const struct refused_connections *connections);

#endif
