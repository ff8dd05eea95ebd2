/* A database URL, or a libpq keyword string, taken apart and put together again. */
#ifndef USERD_COMMON_DATABASE_PARTS_H
#define USERD_COMMON_DATABASE_PARTS_H

#include <stdbool.h>
#include <stddef.h>

#include "common/attributes.h"
#include "common/database_parameters.h"

#define DATABASE_PARTS_MAX_PARAMETERS 64

struct database_part {
    char *name;  /* owned */
    char *value; /* owned; decoded */
};

struct database_parts {
    bool is_keywords; /* a keyword string: parameters alone */
    char *user;       /* owned, as all below; decoded; NULL: none */
    char *password;   /* decoded; NULL: none */
    char *hosts;      /* as they stand: "h1:5432,[::1],%2Frun" */
    char *database;   /* decoded; NULL: none */
    struct database_part parameters[DATABASE_PARTS_MAX_PARAMETERS];
    size_t parameter_count;
};

/* 0; -ENOMEM; -EINVAL with *ret_reason (static text). *ret_parts is to be cleaned up in any case.
 */
MUST_CHECK int database_parts_read(
    const char *url, struct database_parts *ret_parts, const char **ret_reason);
MUST_CHECK int database_parts_add(
    struct database_parts *parts, const char *name, const char *value);
/* *ret_url is malloc'ed: what libpq reads in one way only. */
MUST_CHECK int database_parts_write(const struct database_parts *parts, char **ret_url);
/* Wipes all. */
void database_parts_cleanup(struct database_parts *parts);

#endif
