#include "master/child_program.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"

#define DIRECTORY_VARIABLE "USERD_LIBEXEC_DIR"

/* Relative to the directory of our own program. The build tree has a directory for each program. */
static const char *const places[] = {"", "../worker/", "../eventd/", "../libexec/userd/"};

/* The directory of /proc/self/exe without its last slash; an upgraded program's " (deleted)" is
 * behind it. */
static int find_own_directory(char ret_directory[PATH_MAX])
{
    ssize_t length = readlink("/proc/self/exe", ret_directory, PATH_MAX - 1);
    if (length < 0)
        return -errno;
    ret_directory[length] = '\0';
    char *slash = strrchr(ret_directory, '/');
    if (slash == NULL)
        return -ENOENT;
    *slash = '\0';
    return 0;
}

static int try_path(const char *directory, const char *place, const char *program, char **ret_path)
{
    char *path = NULL;
    if (asprintf(&path, "%s/%s%s", directory, place, program) < 0)
        return -ENOMEM;
    if (access(path, X_OK) < 0) {
        int result = -errno;
        free(path);
        return result;
    }
    *ret_path = path;
    return 0;
}

int child_program_find(const char *program, char **ret_path)
{
    const char *configured = secure_getenv(DIRECTORY_VARIABLE);
    if (configured != NULL && configured[0] != '\0') {
        int result = try_path(configured, "", program, ret_path);
        if (result < 0)
            log_error("program not found program=%s " DIRECTORY_VARIABLE "=%s error=\"%s\"",
                program, configured, strerror(-result));
        return result;
    }

    char directory[PATH_MAX];
    int result = find_own_directory(directory);
    if (result < 0) {
        log_error("program not found program=%s reason=\"/proc/self/exe: %s\"", program,
            strerror(-result));
        return result;
    }
    for (size_t i = 0; i < ARRAY_LENGTH(places); i++) {
        result = try_path(directory, places[i], program, ret_path);
        if (result == 0 || result == -ENOMEM)
            return result;
    }
    log_error("program not found program=%s tried=\"%s and ../worker, ../eventd, ../libexec/userd "
              "from there\" hint=\"set " DIRECTORY_VARIABLE "\"",
        program, directory);
    return -ENOENT;
}

int child_program_identify(const char *path, struct child_program_identity *ret_identity)
{
    struct stat status;
    if (stat(path, &status) < 0)
        return -errno;
    *ret_identity = (struct child_program_identity){
        .device = status.st_dev,
        .inode = status.st_ino,
        .size = status.st_size,
        .modified = status.st_mtim,
    };
    return 0;
}

bool child_program_is_same(
    const struct child_program_identity *one, const struct child_program_identity *other)
{
    return one->device == other->device && one->inode == other->inode && one->size == other->size &&
           one->modified.tv_sec == other->modified.tv_sec &&
           one->modified.tv_nsec == other->modified.tv_nsec;
}
