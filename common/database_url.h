/* Database URLs as people write them: libpq's own, SQLAlchemy's "postgresql+asyncpg://", and
 * libpq's keyword strings ("host=... dbname=..."). All become a form that libpq reads in one way
 * only.
 *
 * A password may hold any character, encoded or not: the user's part of a URL ends at the first @
 * that is followed by well-formed hosts, database and parameters. What cannot be read is described
 * without a word of it, since any word may belong to the password.
 */
#ifndef USERD_COMMON_DATABASE_URL_H
#define USERD_COMMON_DATABASE_URL_H

#include <stdbool.h>

#include "common/attributes.h"

#define DATABASE_URL_REASON_SIZE 256

struct database_url {
    char *url;                              /* owned, wiped: in normal form */
    char ignored[DATABASE_URL_REASON_SIZE]; /* parameters that were left out, comma separated */
    char reason[DATABASE_URL_REASON_SIZE];  /* -EINVAL: what is wrong with it */
};

/* 0; -ENOMEM; -EINVAL with ret_url->reason. database_url_cleanup() in any case. */
MUST_CHECK int database_url_normalise(const char *url, struct database_url *ret_url);
void database_url_cleanup(struct database_url *url);

/* Puts a password into a URL in normal form that has none. *ret_url is malloc'ed. -EEXIST when the
 * URL already carries one. -EINVAL when it has no user to put it behind. */
MUST_CHECK int database_url_set_password(const char *url, const char *password, char **ret_url);
/* Whether a URL in normal form carries a password. */
bool database_url_has_password(const char *url);
/* Whether it carries parameters, which only libpq can judge. */
bool database_url_has_parameters(const char *url);

/* The same URL with each secret replaced by "***", for people; all of it where it cannot be read.
 * malloc'ed; NULL without memory. */
char *database_url_redact(const char *url);

#endif
