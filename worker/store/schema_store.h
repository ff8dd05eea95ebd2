/* The table schema_migration, and the SQL that moves the schema from one version to another. */
#ifndef USERD_WORKER_STORE_SCHEMA_STORE_H
#define USERD_WORKER_STORE_SCHEMA_STORE_H

#include "worker/store/schema_migrations.h"
#include "worker/store/schema_session.h"

#define SCHEMA_NAME_SIZE     96
#define SCHEMA_CHECKSUM_SIZE 65 /* SHA-256 in hexadecimal */

struct schema_applied {
    int32_t version;
    char name[SCHEMA_NAME_SIZE];
    char checksum[SCHEMA_CHECKSUM_SIZE];
    char applied_at[40];
};

/* All return what schema_session_run() does. */

enum schema_lock {
    SCHEMA_LOCK_MIGRATION, /* one migration at a time */
    SCHEMA_LOCK_USE,       /* no worker is connected to this database, and none connects */
};

/* *ret_is_locked false: `holder` says who has it (at most size - 1 bytes). The lock is the
 * session's: it goes with it. */
MUST_CHECK int schema_store_try_lock(struct schema_session *session, enum schema_lock lock,
    bool *ret_is_locked, char *holder, size_t holder_size);
MUST_CHECK int schema_store_create_table(struct schema_session *session);
/* In the order of versions; malloc'ed. None when there is no such table. */
MUST_CHECK int schema_store_read(
    struct schema_session *session, struct schema_applied **ret_applied, size_t *ret_count);
/* What PostgreSQL's sha256() makes of each embedded up file, in the order of schema_migrations. */
MUST_CHECK int schema_store_checksums(
    struct schema_session *session, char (*ret_checksums)[SCHEMA_CHECKSUM_SIZE]);
/* One transaction: the file's SQL, and the row. */
MUST_CHECK int schema_store_apply(
    struct schema_session *session, const struct schema_migration *migration);
/* All of it in one transaction, in this order: all are taken back, or none. */
MUST_CHECK int schema_store_take_back(
    struct schema_session *session, const struct schema_migration *const *migrations, size_t count);
/* Runs the up files in one transaction that is rolled back. 0: they would all work. */
MUST_CHECK int schema_store_rehearse(
    struct schema_session *session, const struct schema_migration *const *migrations, size_t count);

#endif
