/* Which server process a session is with: whom to ask about it, and how it is found there. */
#ifndef USERD_WORKER_DB_DB_BACKEND_H
#define USERD_WORKER_DB_DB_BACKEND_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/db/db_target.h"

struct db_backend {
    struct db_target server; /* owned: as libpq reached it */
    int32_t pid;             /* by pg_backend_pid(): a pooler's protocol has another number */
    int64_t started_us;      /* with the pid unique on that server; microseconds since 1970 */
    bool is_pooled; /* there is a pooler in between, and each session has its own backend */
};

#endif
