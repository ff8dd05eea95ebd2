/* The names that may stand in a database URL: libpq's keywords, and what SQLAlchemy's drivers add.
 *
 * Which keywords the libpq that is installed knows, and which values it takes, only a worker can
 * say (master/settings_check.h asks one). This list is of all its releases: it is there to tell a
 * URL's parts from a password that was not encoded, and to name the nearest one to a wrong one. */
#ifndef USERD_COMMON_DATABASE_PARAMETERS_H
#define USERD_COMMON_DATABASE_PARAMETERS_H

#include <stdbool.h>
#include <stddef.h>

enum database_parameter {
    DATABASE_PARAMETER_OF_LIBPQ,
    DATABASE_PARAMETER_SSL,     /* asyncpg's name for sslmode */
    DATABASE_PARAMETER_IGNORED, /* a driver's own, without a meaning here */
    DATABASE_PARAMETER_UNKNOWN,
};

enum database_parameter database_parameters_find(const char *name);
/* The known name that was probably meant, or NULL. */
const char *database_parameters_nearest(const char *name);
/* Whether its value must not be shown. */
bool database_parameters_is_secret(const char *name);
/* What `ssl=VALUE` is as sslmode; NULL: no driver takes such a value. */
const char *database_parameters_ssl_mode(const char *value);

#endif
