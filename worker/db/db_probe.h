/* Asks PostgreSQL, by a session made for this, what has become of a backend that says nothing: is
 * it dead, does it work, or does its commit wait for a synchronous standby? Loop thread only. */
#ifndef USERD_WORKER_DB_DB_PROBE_H
#define USERD_WORKER_DB_DB_PROBE_H

#include <systemd/sd-event.h>

#include "common/attributes.h"
#include "worker/db/db_backend.h"

enum db_probe_finding {
    DB_PROBE_WAITS_FOR_STANDBY, /* its commit is done here, and waits to be confirmed elsewhere */
    DB_PROBE_WORKS,             /* on a statement */
    DB_PROBE_RESTS,             /* it has no statement, or there is no such backend any more */
    DB_PROBE_REFUSED,           /* the server lives, and would not let us ask */
    DB_PROBE_UNREACHABLE,
};

struct db_probe_options {
    const char *url; /* all must outlive it */
    const char *application;
    int timeout_ms;
};

struct db_probe;

/* `backend` must outlive it. on_done runs once, never inside, and may free the probe. */
MUST_CHECK int db_probe_new(sd_event *event, const struct db_probe_options *options,
    const struct db_backend *backend,
    void (*on_done)(enum db_probe_finding finding, void *userdata), void *userdata,
    struct db_probe **ret_probe);
struct db_probe *db_probe_free(struct db_probe *probe);

#endif
