/* The numbered SQL files of migrations/, embedded in the program when it is built
 * (embed_migrations.cmake). */
#ifndef USERD_WORKER_STORE_SCHEMA_MIGRATIONS_H
#define USERD_WORKER_STORE_SCHEMA_MIGRATIONS_H

#include <stddef.h>
#include <stdint.h>

struct schema_migration {
    int32_t version;
    const char *name; /* "0001_legacy_base": of 0001_legacy_base.up.sql and .down.sql */
    const char *up;   /* SQL, ended by a NUL */
    const char *down;
};

/* In the order of versions. */
extern const struct schema_migration schema_migrations[];
extern const size_t schema_migration_count;

#endif
