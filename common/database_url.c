#include "common/database_url.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCHEME          "postgresql"
#define AUTHORITY_MARK  "://"
#define REDACTED        "***"
#define UNRESERVED_MARK "-._~"

/* A keyword string as libpq takes it begins with a keyword and an equals sign, or is empty. */
static bool is_keyword_string(const char *url)
{
    const char *equals = strchr(url, '=');
    if (equals == NULL)
        return false;
    for (const char *character = url; character < equals; character++) {
        if (!isalpha((unsigned char)*character) && *character != '_' && *character != ' ')
            return false;
    }
    return true;
}

int database_url_normalise(const char *url, char **ret_url, const char **ret_reason)
{
    if (is_keyword_string(url)) {
        *ret_url = strdup(url);
        return *ret_url == NULL ? -ENOMEM : 0;
    }
    const char *mark = strstr(url, AUTHORITY_MARK);
    if (mark == NULL) {
        *ret_reason = *url == '\0' ? "is empty" : "has no scheme";
        return -EINVAL;
    }
    size_t scheme_length = strcspn(url, "+:"); /* SQLAlchemy: dialect+driver */
    bool is_known =
        (scheme_length == strlen("postgres") && strncmp(url, "postgres", scheme_length) == 0) ||
        (scheme_length == strlen(SCHEME) && strncmp(url, SCHEME, scheme_length) == 0);
    if (!is_known) {
        *ret_reason = "is not a PostgreSQL URL";
        return -EINVAL;
    }
    return asprintf(ret_url, SCHEME "%s", mark) < 0 ? -ENOMEM : 0;
}

/* Where the user info, and the password within it, lie: [user_start, password_start),
 * [password_start, at). */
struct user_info {
    const char *user;
    const char *colon; /* before the password; NULL without one */
    const char *at;    /* NULL without user info */
};

static struct user_info find_user_info(const char *url)
{
    struct user_info info = {0};
    const char *mark = strstr(url, AUTHORITY_MARK);
    if (mark == NULL)
        return info;
    info.user = mark + strlen(AUTHORITY_MARK);
    size_t authority_length = strcspn(info.user, "/?#");
    info.at = memchr(info.user, '@', authority_length);
    if (info.at != NULL)
        info.colon = memchr(info.user, ':', (size_t)(info.at - info.user));
    return info;
}

static char *percent_encode(const char *text)
{
    char *encoded = malloc(strlen(text) * strlen("%XX") + 1);
    if (encoded == NULL)
        return NULL;
    char *next = encoded;
    for (; *text != '\0'; text++) {
        if (isalnum((unsigned char)*text) || strchr(UNRESERVED_MARK, *text) != NULL)
            *next++ = *text;
        else
            next += sprintf(next, "%%%02X", (unsigned int)(unsigned char)*text);
    }
    *next = '\0';
    return encoded;
}

/* libpq's connection strings quote with ' and escape ' and \ by a backslash. */
static char *quote_keyword(const char *text)
{
    char *quoted = malloc(strlen(text) * 2 + 1);
    if (quoted == NULL)
        return NULL;
    char *next = quoted;
    for (; *text != '\0'; text++) {
        if (*text == '\'' || *text == '\\')
            *next++ = '\\';
        *next++ = *text;
    }
    *next = '\0';
    return quoted;
}

static void wipe(char *text)
{
    explicit_bzero(text, strlen(text));
    free(text);
}

static int set_keyword_password(const char *url, const char *password, char **ret_url)
{
    if (strstr(url, "password") != NULL)
        return -EEXIST;
    char *quoted = quote_keyword(password);
    if (quoted == NULL)
        return -ENOMEM;
    int length = asprintf(ret_url, "%s password='%s'", url, quoted);
    wipe(quoted);
    return length < 0 ? -ENOMEM : 0;
}

int database_url_set_password(const char *url, const char *password, char **ret_url)
{
    if (is_keyword_string(url))
        return set_keyword_password(url, password, ret_url);
    struct user_info info = find_user_info(url);
    if (info.at == NULL)
        return -EINVAL;
    if (info.colon != NULL)
        return -EEXIST;
    char *encoded = percent_encode(password);
    if (encoded == NULL)
        return -ENOMEM;
    int length = asprintf(ret_url, "%.*s:%s%s", (int)(info.at - url), url, encoded, info.at);
    wipe(encoded);
    return length < 0 ? -ENOMEM : 0;
}

char *database_url_redact(const char *url)
{
    char *redacted = NULL;
    if (is_keyword_string(url)) {
        const char *password = strstr(url, "password");
        if (password == NULL)
            return strdup(url);
        /* quoting rules make the end hard to find: nothing behind the keyword is shown */
        return asprintf(&redacted, "%.*spassword=" REDACTED, (int)(password - url), url) < 0
                   ? NULL
                   : redacted;
    }
    struct user_info info = find_user_info(url);
    const char *query = strchr(url, '?'); /* may carry password= as well */
    int visible_length =
        query != NULL && strstr(query, "password") != NULL ? (int)(query - url) : (int)strlen(url);
    if (info.colon == NULL)
        return asprintf(&redacted, "%.*s", visible_length, url) < 0 ? NULL : redacted;
    return asprintf(&redacted, "%.*s:" REDACTED "%.*s", (int)(info.colon - url), url,
               visible_length - (int)(info.at - url), info.at) < 0
               ? NULL
               : redacted;
}
