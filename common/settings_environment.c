#include "common/settings_environment.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/database_url.h"
#include "common/secret_file.h"

#define CREDENTIAL_NAME "database-password"

static void override_from(const char *variable, const char *setting, struct settings *settings,
    struct settings_complaints *complaints)
{
    const char *value = getenv(variable);
    if (value == NULL || *value == '\0')
        return;
    if (settings_set_text(settings, settings_find(setting), value) < 0)
        settings_complaints_add(complaints, NULL, 0, "environment: %s: out of memory", variable);
}

void settings_environment_apply(struct settings *settings, struct settings_complaints *complaints)
{
    override_from("DB_URL", "database.url", settings, complaints);
    override_from("KAFKA_BOOTSTRAP_SERVERS", "kafka.bootstrap_servers", settings, complaints);
}

static void normalise(struct settings *settings, const char *place, unsigned int line,
    struct settings_complaints *complaints)
{
    char *url = NULL;
    const char *reason = "";
    int result = database_url_normalise(settings->database.url, &url, &reason);
    if (result < 0) {
        settings_complaints_add(complaints, place, line,
            "database.url: %s, expected postgresql://user@host/database",
            result == -ENOMEM ? "out of memory" : reason);
        return;
    }
    free(settings->database.url);
    settings->database.url = url;
}

void settings_environment_complete_url(struct settings *settings, const char *file,
    unsigned int url_line, unsigned int password_line, struct settings_complaints *complaints)
{
    const char *variable = getenv("DB_URL");
    bool is_from_environment = variable != NULL && *variable != '\0';
    size_t complaints_before = complaints->count;
    normalise(settings, is_from_environment ? "environment: DB_URL" : file,
        is_from_environment ? 0 : url_line, complaints);
    if (complaints->count > complaints_before)
        return;

    char *password CLEANUP(secret_file_wipe) = NULL;
    char *path = NULL;
    int result =
        secret_file_read(CREDENTIAL_NAME, settings->database.password_file, &password, &path);
    if (result < 0 && result != -ENODATA)
        settings_complaints_add(complaints, file, password_line,
            "database.password_file: cannot read %s: %s, expected a file with the password on its "
            "first line",
            path == NULL ? "it" : path, strerror(-result));
    free(path);
    if (result < 0)
        return;
    password[strcspn(password, "\r\n")] = '\0';
    char *url = NULL;
    result = database_url_set_password(settings->database.url, password, &url);
    if (result == 0) {
        explicit_bzero(settings->database.url, strlen(settings->database.url));
        free(settings->database.url);
        settings->database.url = url;
    } else if (result != -EEXIST) { /* a URL that carries a password of its own keeps it */
        settings_complaints_add(complaints, file, password_line,
            "database.password_file: database.url has no user to put the password behind, expected "
            "postgresql://user@host/database");
    }
}
