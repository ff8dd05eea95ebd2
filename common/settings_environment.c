#include "common/settings_environment.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/database_url.h"
#include "common/secret_file.h"

#define CREDENTIAL_NAME "database-password"
#define URL             "database.url"
#define PASSWORD_FILE   "database.password_file"
#define SERVERS         "kafka.bootstrap_servers"
#define LOG_LEVEL       "log.level"
#define LOG_FORMAT      "log.format"
#define REASON_SIZE     512

/* The first that is set wins: the legacy service takes KAFKA_URL before KAFKA_BOOTSTRAP_SERVERS. */
static const struct {
    const char *variable;
    const char *setting;
    const char *place;
} variables[] = {
    {"DB_URL", URL, "environment: DB_URL"},
    {"KAFKA_URL", SERVERS, "environment: KAFKA_URL"},
    {"KAFKA_BOOTSTRAP_SERVERS", SERVERS, "environment: KAFKA_BOOTSTRAP_SERVERS"},
    {"USERD_LOG_LEVEL", LOG_LEVEL, "environment: USERD_LOG_LEVEL"},
    {"USERD_LOG_FORMAT", LOG_FORMAT, "environment: USERD_LOG_FORMAT"},
};

/* The index of the variable that a setting comes from, or -1. */
static int find_variable(const char *setting)
{
    for (size_t i = 0; i < ARRAY_LENGTH(variables); i++) {
        const char *value = getenv(variables[i].variable);
        if (strcmp(variables[i].setting, setting) == 0 && value != NULL && *value != '\0')
            return (int)i;
    }
    return -1;
}

struct settings_place settings_environment_place(
    const struct settings_reader *reader, const char *setting)
{
    int index = find_variable(setting);
    if (index >= 0)
        return (struct settings_place){.file = variables[index].place};
    return settings_reader_find(reader, setting);
}

static void apply_variable(
    const struct settings_reader *reader, const char *setting, const char *value, const char *place)
{
    const struct setting_row *row = settings_find(setting);
    char reason[REASON_SIZE] = "out of memory";
    bool is_set = row->type == SETTING_CHOICE
                      ? settings_set_choice(reader->settings, row, value, reason, sizeof(reason))
                      : settings_set_text(reader->settings, row, value) == 0;
    if (!is_set)
        settings_complaints_add(reader->complaints, place, 0, "%s: %s", setting, reason);
}

void settings_environment_apply(const struct settings_reader *reader)
{
    static const char *const settings[] = {URL, SERVERS, LOG_LEVEL, LOG_FORMAT};
    for (size_t i = 0; i < ARRAY_LENGTH(settings); i++) {
        int index = find_variable(settings[i]);
        if (index >= 0)
            apply_variable(
                reader, settings[i], getenv(variables[index].variable), variables[index].place);
    }
    reader->settings->has_standard_servers =
        find_variable(SERVERS) < 0 && config_lookup(reader->config, SERVERS) == NULL;
}

static bool normalise(const struct settings_reader *reader)
{
    struct settings_place place = settings_environment_place(reader, URL);
    struct database_url url CLEANUP(database_url_cleanup) = {0};
    int result = database_url_normalise(reader->settings->database.url, &url);
    if (result < 0) {
        settings_complaints_add(reader->complaints, place.file, place.line,
            URL ": %s, expected postgresql://user@host/database",
            result == -ENOMEM ? "out of memory" : url.reason);
        return false;
    }
    if (url.ignored[0] != '\0')
        settings_complaints_add(reader->warnings, place.file, place.line,
            URL ": ignored, since it means nothing to libpq: %s", url.ignored);
    free(reader->settings->database.url_place);
    reader->settings->database.url_place = NULL;
    int length = place.line > 0 ? asprintf(&reader->settings->database.url_place, "%s:%u",
                                      place.file, place.line)
                                : asprintf(&reader->settings->database.url_place, "%s", place.file);
    if (length > 0 && settings_set_text(reader->settings, settings_find(URL), url.url) == 0)
        return true;
    settings_complaints_add(reader->complaints, place.file, place.line, URL ": out of memory");
    return false;
}

/* Whether the password stands in the file, for everybody to read. */
static void warn_of_readable_url(const struct settings_reader *reader)
{
    const config_setting_t *setting = config_lookup(reader->config, URL);
    if (setting == NULL || find_variable(URL) >= 0 ||
        !database_url_has_password(reader->settings->database.url) ||
        !settings_source_is_world_readable(reader->source, config_setting_source_line(setting)))
        return;
    struct settings_place place = settings_reader_place(reader, setting);
    settings_complaints_add(reader->warnings, place.file, place.line,
        URL ": holds a password, and everybody can read the file, expected mode 0640 or less");
}

void settings_environment_warn_of_secret(const struct settings_reader *reader,
    const struct settings_place *place, const char *setting, const struct secret_file *secret)
{
    if (secret->is_world_readable)
        settings_complaints_add(reader->warnings, place->file, place->line,
            "%s: everybody can read the secret in %s, expected mode 0640 or less", setting,
            secret->place);
}

/* True: *ret_secret has a password in it. */
static bool read_password(const struct settings_reader *reader, struct secret_file *ret_secret)
{
    struct settings_place place = settings_reader_find(reader, PASSWORD_FILE);
    int result =
        secret_file_read(CREDENTIAL_NAME, reader->settings->database.password_file, ret_secret);
    if (result < 0 && result != -ENODATA) {
        settings_complaints_add(reader->complaints, place.file, place.line,
            PASSWORD_FILE ": cannot read %s: %s, expected a file with the password on its first "
                          "line",
            ret_secret->place == NULL ? "it" : ret_secret->place, secret_file_reason(result));
        settings_complaints_note_missing(reader->complaints, result);
    }
    if (result < 0)
        return false;
    ret_secret->secret[strcspn(ret_secret->secret, "\r\n")] = '\0';
    settings_environment_warn_of_secret(reader, &place, PASSWORD_FILE, ret_secret);
    return true;
}

void settings_environment_complete_url(const struct settings_reader *reader)
{
    if (!normalise(reader))
        return;
    warn_of_readable_url(reader);
    struct secret_file secret CLEANUP(secret_file_cleanup) = {0};
    if (!read_password(reader, &secret))
        return;
    struct settings_place place = settings_reader_find(reader, PASSWORD_FILE);
    char *url CLEANUP(secret_file_wipe) = NULL;
    int result = database_url_set_password(reader->settings->database.url, secret.secret, &url);
    if (result == 0)
        result = settings_set_text(reader->settings, settings_find(URL), url);
    if (result == -EINVAL)
        settings_complaints_add(reader->complaints, place.file, place.line,
            PASSWORD_FILE ": " URL " has no user to put the password behind, expected "
                          "postgresql://user@host/database");
    else if (result < 0 && result != -EEXIST) /* a password of its own stays */
        settings_complaints_add(
            reader->complaints, place.file, place.line, PASSWORD_FILE ": out of memory");
}
