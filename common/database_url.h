/* Database URLs as people write them: libpq's own, and SQLAlchemy's "postgresql+asyncpg://". */
#ifndef USERD_COMMON_DATABASE_URL_H
#define USERD_COMMON_DATABASE_URL_H

#include "common/attributes.h"

/* Rewrites `url` to what libpq takes: scheme "postgres", "postgresql" or either with "+driver"
 * becomes "postgresql"; a libpq keyword string ("host=... dbname=...") is passed as it is. *ret_url
 * is malloc'ed. -EINVAL with *ret_reason (static text) when it is neither. */
MUST_CHECK int database_url_normalise(const char *url, char **ret_url, const char **ret_reason);

/* Puts a password into a URL that has none: percent-encoded behind the user, or as a quoted
 * keyword. -EEXIST when the URL already carries one. -EINVAL when it has no user to put it behind.
 */
MUST_CHECK int database_url_set_password(const char *url, const char *password, char **ret_url);

/* The same URL with the password replaced by "***", for messages. malloc'ed; NULL without memory.
 */
char *database_url_redact(const char *url);

#endif
