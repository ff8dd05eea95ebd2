/* The least schema version (migrations/NNNN_*.sql) that this program's statements work with. */
#ifndef USERD_WORKER_STORE_SCHEMA_VERSION_H
#define USERD_WORKER_STORE_SCHEMA_VERSION_H

#define SCHEMA_VERSION_NEEDED 3

#endif
