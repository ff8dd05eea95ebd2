/* The least schema version (migrations/NNNN_*.sql) that this program's statements work with. */
#ifndef USERD_WORKER_STORE_SCHEMA_VERSION_H
#define USERD_WORKER_STORE_SCHEMA_VERSION_H

#define SCHEMA_VERSION_NEEDED 6

/* The advisory lock that every session of a running worker shares, so that `userd migrate down`,
 * which takes it alone, is refused wherever one runs. Any number will do, as long as it is this one
 * in every version of userd. */
#define SCHEMA_USE_LOCK "7310580"

#endif
