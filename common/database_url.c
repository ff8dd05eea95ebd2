#include "common/database_url.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/database_parts.h"

#define REDACTED      "***"
#define SSL_MODE      "sslmode"
#define IGNORED_COMMA ", "

static void wipe_text(char **text)
{
    if (*text != NULL)
        explicit_bzero(*text, strlen(*text));
    free(*text);
    *text = NULL;
}

static int replace(char **text, const char *value)
{
    char *copy = strdup(value);
    if (copy == NULL)
        return -ENOMEM;
    wipe_text(text);
    *text = copy;
    return 0;
}

/* ---- parameters ---- */

/* In a keyword string what looks like a name may belong to a password with blanks that was not
 * quoted: it is not repeated. */
static int refuse_unknown(const char *name, bool is_keywords, struct database_url *url)
{
    const char *nearest = database_parameters_nearest(name);
    char shown[64] = "";
    if (!is_keywords)
        (void)snprintf(shown, sizeof(shown), " \"%.40s\"", name);
    (void)snprintf(url->reason, sizeof(url->reason), "has a parameter%s that is unknown%s%s%s",
        shown, nearest != NULL ? ", did you mean \"" : "", nearest != NULL ? nearest : "",
        nearest != NULL ? "\"?" : "");
    return -EINVAL;
}

static int translate_ssl(struct database_part *part, struct database_url *url)
{
    const char *mode = database_parameters_ssl_mode(part->value);
    if (mode == NULL) {
        (void)snprintf(url->reason, sizeof(url->reason),
            "has an unknown value of \"ssl\" (known are disable, allow, prefer, require, "
            "verify-ca, "
            "verify-full, true and false)");
        return -EINVAL;
    }
    int result = replace(&part->name, SSL_MODE);
    return result == 0 ? replace(&part->value, mode) : result;
}

static void note_ignored(const char *name, struct database_url *url)
{
    size_t used = strlen(url->ignored);
    (void)snprintf(url->ignored + used, sizeof(url->ignored) - used, "%s%s",
        used > 0 ? IGNORED_COMMA : "", name);
}

/* Leaves libpq's own. */
static int translate(struct database_parts *parts, struct database_url *url)
{
    size_t kept = 0;
    int result = 0;
    for (size_t i = 0; i < parts->parameter_count && result == 0; i++) {
        struct database_part part = parts->parameters[i];
        parts->parameters[i] = (struct database_part){0};
        enum database_parameter kind = database_parameters_find(part.name);
        if (kind == DATABASE_PARAMETER_UNKNOWN)
            result = refuse_unknown(part.name, parts->is_keywords, url);
        else if (kind == DATABASE_PARAMETER_SSL)
            result = translate_ssl(&part, url);
        if (kind == DATABASE_PARAMETER_IGNORED || result < 0) {
            if (kind == DATABASE_PARAMETER_IGNORED)
                note_ignored(part.name, url);
            wipe_text(&part.name);
            wipe_text(&part.value);
        } else {
            parts->parameters[kept++] = part;
        }
    }
    if (result == 0)
        parts->parameter_count = kept;
    return result;
}

/* ---- the ways in ---- */

int database_url_normalise(const char *url, struct database_url *ret_url)
{
    *ret_url = (struct database_url){0};
    struct database_parts parts CLEANUP(database_parts_cleanup) = {0};
    const char *reason = "";
    int result = database_parts_read(url, &parts, &reason);
    if (result < 0)
        (void)snprintf(ret_url->reason, sizeof(ret_url->reason), "%s", reason);
    if (result == 0)
        result = translate(&parts, ret_url);
    return result == 0 ? database_parts_write(&parts, &ret_url->url) : result;
}

void database_url_cleanup(struct database_url *url)
{
    wipe_text(&url->url);
}

static bool has_password(const struct database_parts *parts)
{
    if (parts->password != NULL)
        return true;
    for (size_t i = 0; i < parts->parameter_count; i++)
        if (strcmp(parts->parameters[i].name, "password") == 0)
            return true;
    return false;
}

bool database_url_has_password(const char *url)
{
    struct database_parts parts CLEANUP(database_parts_cleanup) = {0};
    const char *reason = NULL;
    return database_parts_read(url, &parts, &reason) == 0 && has_password(&parts);
}

bool database_url_has_parameters(const char *url)
{
    struct database_parts parts CLEANUP(database_parts_cleanup) = {0};
    const char *reason = NULL;
    return database_parts_read(url, &parts, &reason) < 0 || parts.parameter_count > 0;
}

int database_url_set_password(const char *url, const char *password, char **ret_url)
{
    struct database_parts parts CLEANUP(database_parts_cleanup) = {0};
    const char *reason = NULL;
    int result = database_parts_read(url, &parts, &reason);
    if (result < 0)
        return result;
    if (has_password(&parts))
        return -EEXIST;
    if (!parts.is_keywords && parts.user == NULL)
        return -EINVAL;
    result = parts.is_keywords ? database_parts_add(&parts, "password", password)
                               : replace(&parts.password, password);
    return result == 0 ? database_parts_write(&parts, ret_url) : result;
}

char *database_url_redact(const char *url)
{
    struct database_parts parts CLEANUP(database_parts_cleanup) = {0};
    const char *reason = NULL;
    if (database_parts_read(url, &parts, &reason) < 0)
        return strdup(REDACTED);
    int result = parts.password != NULL ? replace(&parts.password, REDACTED) : 0;
    for (size_t i = 0; i < parts.parameter_count && result == 0; i++)
        if (database_parameters_is_secret(parts.parameters[i].name))
            result = replace(&parts.parameters[i].value, REDACTED);
    char *redacted = NULL;
    if (result == 0)
        result = database_parts_write(&parts, &redacted);
    return result < 0 ? NULL : redacted;
}
