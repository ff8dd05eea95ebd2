#include "common/database_parameters.h"

#include <string.h>

#include "common/attributes.h"
#include "common/nearest_name.h"

/* Up to PostgreSQL 18. */
static const char *const libpq_keywords[] = {"service", "servicefile", "user", "password",
    "passfile", "channel_binding", "connect_timeout", "dbname", "host", "hostaddr", "port",
    "client_encoding", "options", "application_name", "fallback_application_name", "keepalives",
    "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout", "sslmode",
    "sslnegotiation", "sslcompression", "sslcert", "sslkey", "sslkeylogfile", "sslcertmode",
    "sslpassword", "sslrootcert", "sslcrl", "sslcrldir", "sslsni", "requirepeer", "require_auth",
    "min_protocol_version", "max_protocol_version", "ssl_min_protocol_version",
    "ssl_max_protocol_version", "gssencmode", "krbsrvname", "gsslib", "gssdelegation",
    "replication", "target_session_attrs", "load_balance_hosts", "scram_client_key",
    "scram_server_key", "oauth_issuer", "oauth_client_id", "oauth_client_secret", "oauth_scope"};

/* Of SQLAlchemy's asyncpg and psycopg dialects, and of asyncpg. */
static const char *const ignored_names[] = {"prepared_statement_cache_size",
    "prepared_statement_name_func", "async_fallback", "statement_cache_size",
    "max_cached_statement_lifetime", "max_cacheable_statement_size", "command_timeout", "timeout",
    "direct_tls", "prepare_threshold"};

static bool holds(const char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

enum database_parameter database_parameters_find(const char *name)
{
    if (strcmp(name, "ssl") == 0)
        return DATABASE_PARAMETER_SSL;
    if (holds(libpq_keywords, ARRAY_LENGTH(libpq_keywords), name))
        return DATABASE_PARAMETER_OF_LIBPQ;
    return holds(ignored_names, ARRAY_LENGTH(ignored_names), name) ? DATABASE_PARAMETER_IGNORED
                                                                   : DATABASE_PARAMETER_UNKNOWN;
}

const char *database_parameters_nearest(const char *name)
{
    int nearest = nearest_name_find(name, libpq_keywords, ARRAY_LENGTH(libpq_keywords));
    return nearest < 0 ? NULL : libpq_keywords[nearest];
}

bool database_parameters_is_secret(const char *name)
{
    return strstr(name, "password") != NULL || strstr(name, "secret") != NULL ||
           strncmp(name, "scram_", strlen("scram_")) == 0;
}

const char *database_parameters_ssl_mode(const char *value)
{
    static const struct {
        const char *value;
        const char *mode;
    } modes[] = {{"disable", "disable"}, {"allow", "allow"}, {"prefer", "prefer"},
        {"require", "require"}, {"verify-ca", "verify-ca"}, {"verify-full", "verify-full"},
        {"true", "require"}, {"True", "require"}, {"false", "disable"}, {"False", "disable"}};
    for (size_t i = 0; i < ARRAY_LENGTH(modes); i++)
        if (strcmp(modes[i].value, value) == 0)
            return modes[i].mode;
    return NULL;
}
