#include "common/settings_environment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/database_url.h"
#include "common/file_descriptor.h"

#define CREDENTIAL_NAME   "database-password"
#define SECRET_MAX_LENGTH 1024

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

/* Reads one line without its end. 0 or negative errno; -EMSGSIZE when it is too long to be a
 * password. */
static int read_secret(const char *path, char *target, size_t size)
{
    int fd CLEANUP(fd_close) = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t length = read(fd, target, size);
    if (length < 0)
        return -errno;
    if ((size_t)length == size)
        return -EMSGSIZE;
    target[length] = '\0';
    target[strcspn(target, "\r\n")] = '\0';
    return 0;
}

/* -ENOENT without a complaint when there is no secret anywhere. */
static int find_password(
    const struct settings *settings, char *password, size_t size, const char **ret_path)
{
    static char credential[512];
    const char *directory = getenv("CREDENTIALS_DIRECTORY");
    if (directory != NULL) {
        (void)snprintf(credential, sizeof(credential), "%s/" CREDENTIAL_NAME, directory);
        *ret_path = credential;
        int result = read_secret(credential, password, size);
        if (result != -ENOENT)
            return result;
    }
    *ret_path = settings->database.password_file;
    if (**ret_path == '\0')
        return -ENODATA;
    return read_secret(*ret_path, password, size);
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

    char password[SECRET_MAX_LENGTH];
    const char *path = NULL;
    int result = find_password(settings, password, sizeof(password), &path);
    if (result == -ENODATA)
        return;
    if (result < 0) {
        settings_complaints_add(complaints, file, password_line,
            "database.password_file: cannot read %s: %s, expected a file with the password on its "
            "first line",
            path, strerror(-result));
        return;
    }
    char *url = NULL;
    result = database_url_set_password(settings->database.url, password, &url);
    explicit_bzero(password, sizeof(password));
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
