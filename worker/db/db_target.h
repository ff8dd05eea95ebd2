/* The servers of a connection's parameters, one by one: libpq takes them as comma separated lists,
 * and bounds an attempt on all of them together only. */
#ifndef USERD_WORKER_DB_DB_TARGET_H
#define USERD_WORKER_DB_DB_TARGET_H

#include <stddef.h>

#include "common/attributes.h"

#define DB_TARGET_DEFAULT_PORT "5432"

/* NULL: as the other parameters say. An empty string is an element that was left empty; an empty
 * port is the default one, as in libpq. */
struct db_target {
    char *host;         /* owned, as all here: a name, an address or a socket directory */
    char *host_address; /* the numeric address of `host` */
    char *port;
};

struct db_target_list {
    struct db_target *items; /* owned */
    size_t count;
};

/* Lists as libpq takes them; each may be NULL. Without hosts, and where the lists do not fit each
 * other (libpq says so when it is asked to connect), there is one target of NULLs. -ENOMEM leaves
 * *ret_list empty. */
MUST_CHECK int db_target_list_split(const char *hosts, const char *host_addresses,
    const char *ports, struct db_target_list *ret_list);
/* An empty list is fine. */
void db_target_list_cleanup(struct db_target_list *list);

MUST_CHECK int db_target_copy(const struct db_target *target, struct db_target *ret_copy);
void db_target_cleanup(struct db_target *target);

#endif
