/* Turns the host names of a connection's parameters into addresses, off the loop.
 *
 * PQconnectStart() looks names up with getaddrinfo(), which blocks for as long as the name servers
 * like; a short-lived thread does it here instead, and libpq is given the addresses (hostaddr)
 * beside the names, which TLS still checks. Addresses, socket directories and empty hosts are
 * passed through. Loop thread only.
 */
#ifndef USERD_WORKER_DB_DB_RESOLVE_H
#define USERD_WORKER_DB_DB_RESOLVE_H

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "common/attributes.h"

/* As libpq takes them: comma separated lists of one length. */
struct db_addresses {
    char *hosts;
    char *host_addresses;
    char *ports;
    char *unknown;     /* the first host that has none: "HOST: why"; NULL: each has some */
    const char *error; /* not NULL: why there are none at all; static text */
};

struct db_resolve;

/* Whether a list of hosts holds a name at all. */
bool db_resolve_is_needed(const char *hosts);

/* Starts looking up `hosts` with their `ports` (one, or one for each host; NULL: the default).
 * `on_done` runs once on the loop; the addresses live until it returns, and it may free the
 * resolve. */
MUST_CHECK int db_resolve_new(sd_event *event, const char *hosts, const char *ports,
    void (*on_done)(const struct db_addresses *addresses, void *userdata), void *userdata,
    struct db_resolve **ret_resolve);
/* A thread that still waits for a name server is left to itself, and cleans up after itself. */
struct db_resolve *db_resolve_free(struct db_resolve *resolve);

#endif
