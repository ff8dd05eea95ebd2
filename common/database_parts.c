#include "common/database_parts.h"

#include <ctype.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCHEME         "postgresql"
#define SHORT_SCHEME   "postgres"
#define AUTHORITY_MARK "://"
#define BLANKS         " \t\r\n\f\v"
#define PORT_DIGITS    5

static const char out_of_memory[] = "is too large for the memory";
static const char no_hosts[] = "has a host or port that cannot be read";
static const char no_parameters[] = "has parameters that cannot be read, expected ?name=value&...";
static const char too_many[] = "has too many parameters";
static const char nul_byte[] = "holds an encoded NUL (%00)";
static const char no_keywords[] = "looks like keywords and cannot be read, expected name=value, "
                                  "quoted with ' where it has blanks";

static void wipe_text(char **text)
{
    if (*text != NULL)
        explicit_bzero(*text, strlen(*text));
    free(*text);
    *text = NULL;
}

void database_parts_cleanup(struct database_parts *parts)
{
    wipe_text(&parts->user);
    wipe_text(&parts->password);
    wipe_text(&parts->hosts);
    wipe_text(&parts->database);
    for (size_t i = 0; i < parts->parameter_count; i++) {
        wipe_text(&parts->parameters[i].name);
        wipe_text(&parts->parameters[i].value);
    }
    *parts = (struct database_parts){0};
}

/* Takes both, also on failure. */
static int take_parameter(struct database_parts *parts, char *name, char *value)
{
    bool has_room = parts->parameter_count < DATABASE_PARTS_MAX_PARAMETERS;
    if (name != NULL && value != NULL && has_room) {
        parts->parameters[parts->parameter_count++] =
            (struct database_part){.name = name, .value = value};
        return 0;
    }
    int result = name == NULL || value == NULL ? -ENOMEM : -ENOSPC;
    wipe_text(&name);
    wipe_text(&value);
    return result;
}

int database_parts_add(struct database_parts *parts, const char *name, const char *value)
{
    return take_parameter(parts, strdup(name), strdup(value));
}

/* ---- percent encoding ---- */

static int hex_value(char digit)
{
    static const char digits[] = "0123456789abcdefABCDEF";
    int place = (int)(strchr(digits, digit) - digits);
    return place < 16 ? place : place - 6; /* a letter in upper case */
}

static bool is_encoded(const char *text, size_t length)
{
    return length >= 3 && text[0] == '%' && isxdigit((unsigned char)text[1]) &&
           isxdigit((unsigned char)text[2]);
}

/* A % that begins no encoded byte stands for itself. NULL without memory. */
static char *decode(const char *text, size_t length)
{
    char *decoded = malloc(length + 1);
    if (decoded == NULL)
        return NULL;
    size_t used = 0;
    for (size_t i = 0; i < length; i++) {
        if (is_encoded(text + i, length - i)) {
            decoded[used++] = (char)(hex_value(text[i + 1]) * 16 + hex_value(text[i + 2]));
            i += 2;
        } else {
            decoded[used++] = text[i];
        }
    }
    decoded[used] = '\0';
    return decoded;
}

static void write_encoded(FILE *stream, const char *text, const char *plain)
{
    for (; *text != '\0'; text++) {
        if (isalnum((unsigned char)*text) || strchr("-._~*", *text) != NULL ||
            strchr(plain, *text) != NULL)
            (void)fputc(*text, stream);
        else
            (void)fprintf(stream, "%%%02X", (unsigned int)(unsigned char)*text);
    }
}

/* ---- a URL ---- */

static bool is_port(const char *text, size_t length)
{
    unsigned int port = 0;
    for (size_t i = 0; i < length; i++) {
        if (!isdigit((unsigned char)text[i]) || length > PORT_DIGITS)
            return false;
        port = port * 10 + (unsigned int)(text[i] - '0');
    }
    return length == 0 || (port > 0 && port <= UINT16_MAX);
}

/* "host", "host:port", "[v6]:port", "%2Frun%2Fpostgresql" */
static bool is_host(const char *text, size_t length)
{
    size_t used = 0;
    if (length > 0 && text[0] == '[') {
        const char *end = memchr(text, ']', length);
        if (end == NULL || end == text + 1)
            return false;
        used = (size_t)(end - text) + 1;
        for (size_t i = 1; i + 1 < used; i++)
            if (!isxdigit((unsigned char)text[i]) && strchr(":.%", text[i]) == NULL &&
                !isalnum((unsigned char)text[i]))
                return false;
    } else {
        while (used < length && text[used] != ':') {
            bool is_byte = is_encoded(text + used, length - used);
            if (!is_byte && !isalnum((unsigned char)text[used]) &&
                strchr("-._", text[used]) == NULL)
                return false;
            used += is_byte ? 3 : 1;
        }
    }
    return used == length || (text[used] == ':' && is_port(text + used + 1, length - used - 1));
}

static bool are_hosts(const char *text, size_t length)
{
    for (const char *next = text; next <= text + length;) {
        size_t left = (size_t)(text + length - next);
        const char *comma = memchr(next, ',', left);
        size_t size = comma == NULL ? left : (size_t)(comma - next);
        if (!is_host(next, size))
            return false;
        next += size + 1;
    }
    return true;
}

/* The next name=value of a query: how long it is, or 0 when it is none. */
static size_t parameter_length(const char *query, size_t *ret_name_length)
{
    size_t length = strcspn(query, "&");
    const char *equals = memchr(query, '=', length);
    if (equals == NULL || equals == query)
        return 0;
    *ret_name_length = (size_t)(equals - query);
    return length;
}

static bool are_known_parameters(const char *query)
{
    while (*query != '\0') {
        char name[64];
        size_t name_length = 0;
        size_t length = parameter_length(query, &name_length);
        if (length == 0 || name_length >= sizeof(name))
            return false;
        (void)snprintf(name, sizeof(name), "%.*s", (int)name_length, query);
        if (database_parameters_find(name) == DATABASE_PARAMETER_UNKNOWN)
            return false;
        query += length + (query[length] == '&' ? 1 : 0);
    }
    return true;
}

/* Whether what follows the user's part can be nothing else: HOSTS[/DATABASE][?PARAMETERS]. */
static bool is_well_formed(const char *text)
{
    size_t hosts = strcspn(text, "/?");
    if (!are_hosts(text, hosts))
        return false;
    text += hosts;
    if (*text == '/') {
        size_t database = strcspn(text + 1, "?");
        if (memchr(text + 1, '/', database) != NULL || memchr(text + 1, '@', database) != NULL)
            return false;
        text += 1 + database;
    }
    return *text == '\0' || are_known_parameters(text + 1);
}

/* The @ behind the user's part; NULL: there is none. "u:?..." is a user with the beginning of a
 * password rather than a host with an empty port. */
static const char *find_user_end(const char *authority)
{
    size_t hosts = strcspn(authority, "/?");
    bool has_empty_port = hosts > 0 && authority[hosts - 1] == ':';
    if (is_well_formed(authority) && !(has_empty_port && strchr(authority, '@') != NULL))
        return NULL;
    const char *last = NULL;
    for (const char *at = strchr(authority, '@'); at != NULL; at = strchr(at + 1, '@')) {
        if (is_well_formed(at + 1))
            return at;
        last = at;
    }
    return last;
}

static int read_user(struct database_parts *parts, const char *text, const char *end)
{
    const char *colon = memchr(text, ':', (size_t)(end - text));
    const char *user_end = colon != NULL ? colon : end;
    parts->user = decode(text, (size_t)(user_end - text));
    if (colon != NULL)
        parts->password = decode(colon + 1, (size_t)(end - colon) - 1);
    return parts->user == NULL || (colon != NULL && parts->password == NULL) ? -ENOMEM : 0;
}

static int read_query(struct database_parts *parts, const char *query, const char **ret_reason)
{
    while (*query != '\0') {
        size_t name_length = 0;
        size_t length = parameter_length(query, &name_length);
        if (length == 0) {
            *ret_reason = no_parameters;
            return -EINVAL;
        }
        int result = take_parameter(parts, decode(query, name_length),
            decode(query + name_length + 1, length - name_length - 1));
        if (result < 0) {
            *ret_reason = result == -ENOSPC ? too_many : out_of_memory;
            return result == -ENOSPC ? -EINVAL : result;
        }
        query += length + (query[length] == '&' ? 1 : 0);
    }
    return 0;
}

static int read_url(struct database_parts *parts, const char *authority, const char **ret_reason)
{
    *ret_reason = out_of_memory;
    const char *at = find_user_end(authority);
    if (at != NULL && read_user(parts, authority, at) < 0)
        return -ENOMEM;
    const char *next = at == NULL ? authority : at + 1;
    size_t length = strcspn(next, "/?");
    if (!are_hosts(next, length)) {
        *ret_reason = no_hosts;
        return -EINVAL;
    }
    parts->hosts = strndup(next, length);
    next += length;
    if (*next == '/') {
        length = strcspn(next + 1, "?");
        parts->database = decode(next + 1, length);
        if (parts->database == NULL)
            return -ENOMEM;
        next += 1 + length;
    }
    if (parts->hosts == NULL)
        return -ENOMEM;
    return *next == '?' ? read_query(parts, next + 1, ret_reason) : 0;
}

/* ---- keywords ---- */

/* A keyword string as libpq takes it begins with a keyword and an equals sign. */
static bool is_keyword_string(const char *text)
{
    size_t length = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_");
    return length > 0 && text[length + strspn(text + length, BLANKS)] == '=';
}

/* Reads the value at *next, with libpq's quotes and backslashes. NULL: it does not end. */
static char *read_keyword_value(const char **next)
{
    bool is_quoted = **next == '\'';
    const char *text = *next + (is_quoted ? 1 : 0);
    char *value = malloc(strlen(text) + 1);
    size_t used = 0;
    while (value != NULL && *text != '\0' &&
           (is_quoted ? *text != '\'' : strchr(BLANKS, *text) == NULL)) {
        if (*text == '\\' && text[1] != '\0')
            text++;
        value[used++] = *text++;
    }
    if (value == NULL)
        return NULL;
    value[used] = '\0';
    if (is_quoted && *text != '\'')
        wipe_text(&value);
    *next = text + (is_quoted && *text == '\'' ? 1 : 0);
    return value;
}

static int read_keywords(struct database_parts *parts, const char *text, const char **ret_reason)
{
    parts->is_keywords = true;
    *ret_reason = no_keywords;
    for (text += strspn(text, BLANKS); *text != '\0'; text += strspn(text, BLANKS)) {
        size_t length = strcspn(text, "=" BLANKS);
        const char *equals = text + length + strspn(text + length, BLANKS);
        if (length == 0 || *equals != '=')
            return -EINVAL;
        char *name = strndup(text, length);
        text = equals + 1 + strspn(equals + 1, BLANKS);
        char *value = read_keyword_value(&text);
        int result = take_parameter(parts, name, value);
        if (result < 0) {
            *ret_reason = result == -ENOSPC ? too_many : no_keywords;
            return -EINVAL;
        }
    }
    return 0;
}

static void write_keyword_value(FILE *stream, const char *value)
{
    bool is_plain = *value != '\0' && strpbrk(value, BLANKS "'\\") == NULL;
    (void)fputs(is_plain ? "" : "'", stream);
    for (; *value != '\0'; value++) {
        if (*value == '\'' || *value == '\\')
            (void)fputc('\\', stream);
        (void)fputc(*value, stream);
    }
    (void)fputs(is_plain ? "" : "'", stream);
}

/* ---- the ways in ---- */

static bool is_known_scheme(const char *url, const char *mark)
{
    size_t length = strcspn(url, "+:"); /* SQLAlchemy: dialect+driver */
    if (length > (size_t)(mark - url))
        return false;
    return (length == strlen(SHORT_SCHEME) && strncmp(url, SHORT_SCHEME, length) == 0) ||
           (length == strlen(SCHEME) && strncmp(url, SCHEME, length) == 0);
}

static int read_trimmed(const char *url, struct database_parts *parts, const char **ret_reason)
{
    if (is_keyword_string(url))
        return read_keywords(parts, url, ret_reason);
    const char *mark = strstr(url, AUTHORITY_MARK);
    if (mark == NULL) {
        *ret_reason = *url == '\0' ? "is empty" : "has no scheme";
        return -EINVAL;
    }
    if (!is_known_scheme(url, mark)) {
        *ret_reason = "is not a PostgreSQL URL";
        return -EINVAL;
    }
    if (strstr(url, "%00") != NULL) {
        *ret_reason = nul_byte;
        return -EINVAL;
    }
    return read_url(parts, mark + strlen(AUTHORITY_MARK), ret_reason);
}

int database_parts_read(const char *url, struct database_parts *ret_parts, const char **ret_reason)
{
    /* a line feed at the end is an editor's, or of a file that a variable was filled from */
    url += strspn(url, BLANKS);
    size_t length = strlen(url);
    while (length > 0 && strchr(BLANKS, url[length - 1]) != NULL)
        length--;
    char *trimmed = strndup(url, length);
    if (trimmed == NULL) {
        *ret_reason = out_of_memory;
        return -ENOMEM;
    }
    int result = read_trimmed(trimmed, ret_parts, ret_reason);
    wipe_text(&trimmed);
    return result;
}

static void write_url(FILE *stream, const struct database_parts *parts)
{
    (void)fputs(SCHEME AUTHORITY_MARK, stream);
    if (parts->user != NULL)
        write_encoded(stream, parts->user, "");
    if (parts->password != NULL) {
        (void)fputc(':', stream);
        write_encoded(stream, parts->password, "");
    }
    (void)fprintf(stream, "%s%s", parts->user != NULL ? "@" : "", parts->hosts);
    if (parts->database != NULL) {
        (void)fputc('/', stream);
        write_encoded(stream, parts->database, "");
    }
    for (size_t i = 0; i < parts->parameter_count; i++) {
        (void)fputc(i == 0 ? '?' : '&', stream);
        write_encoded(stream, parts->parameters[i].name, "");
        (void)fputc('=', stream);
        write_encoded(stream, parts->parameters[i].value, "/:,");
    }
}

int database_parts_write(const struct database_parts *parts, char **ret_url)
{
    char *text = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);
    if (stream == NULL)
        return -ENOMEM;
    for (size_t i = 0; parts->is_keywords && i < parts->parameter_count; i++) {
        (void)fprintf(stream, "%s%s=", i == 0 ? "" : " ", parts->parameters[i].name);
        write_keyword_value(stream, parts->parameters[i].value);
    }
    if (!parts->is_keywords)
        write_url(stream, parts);
    bool has_failed = ferror(stream) != 0;
    if (fclose(stream) != 0 || has_failed) {
        wipe_text(&text);
        return -ENOMEM;
    }
    *ret_url = text;
    return 0;
}
