#include "common/secret_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file_descriptor.h"

void secret_file_wipe(char **secret)
{
    if (*secret != NULL)
        explicit_bzero(*secret, strlen(*secret));
    free(*secret);
    *secret = NULL;
}

/* Reads until the end of the file or until `target` is full. */
static int read_all(int fd, char *target, size_t size, size_t *ret_length)
{
    size_t length = 0;
    while (length < size) {
        ssize_t count = read(fd, target + length, size - length);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return -errno;
        if (count == 0)
            break;
        length += (size_t)count;
    }
    *ret_length = length;
    return 0;
}

static int read_into(const char *path, char target[SECRET_FILE_MAX_BYTES + 1])
{
    int fd CLEANUP(fd_close) = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    size_t length = 0;
    int result = read_all(fd, target, SECRET_FILE_MAX_BYTES + 1, &length);
    if (result < 0)
        return result;
    if (length > SECRET_FILE_MAX_BYTES)
        return -EMSGSIZE;
    if (memchr(target, '\0', length) != NULL)
        return -EILSEQ;
    while (length > 0 && (target[length - 1] == '\n' || target[length - 1] == '\r'))
        length--;
    target[length] = '\0';
    return 0;
}

static int read_file(const char *path, char **ret_secret)
{
    /* One size for all: nothing of a secret is left behind in memory that was grown. */
    char *buffer = malloc(SECRET_FILE_MAX_BYTES + 1);
    if (buffer == NULL)
        return -ENOMEM;
    int result = read_into(path, buffer);
    char *secret = result == 0 ? strdup(buffer) : NULL;
    explicit_bzero(buffer, SECRET_FILE_MAX_BYTES + 1);
    free(buffer);
    if (result < 0)
        return result;
    if (secret == NULL)
        return -ENOMEM;
    *ret_secret = secret;
    return 0;
}

int secret_file_read(const char *credential, const char *path, char **ret_secret, char **ret_place)
{
    const char *directory = getenv("CREDENTIALS_DIRECTORY");
    char *place = NULL;
    if (directory != NULL && *directory != '\0') {
        if (asprintf(&place, "%s/%s", directory, credential) < 0)
            return -ENOMEM;
        int result = read_file(place, ret_secret);
        if (result != -ENOENT) {
            *ret_place = place;
            return result;
        }
        free(place);
    }
    if (*path == '\0')
        return -ENODATA;
    place = strdup(path);
    if (place == NULL)
        return -ENOMEM;
    *ret_place = place;
    return read_file(path, ret_secret);
}
