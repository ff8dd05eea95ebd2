#include "common/bounded_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "common/file_descriptor.h"

#define NULL_DEVICE_MAJOR 1 /* Linux, Documentation/admin-guide/devices.txt */
#define NULL_DEVICE_MINOR 3

static bool is_null_device(const struct stat *status)
{
    return S_ISCHR(status->st_mode) && major(status->st_rdev) == NULL_DEVICE_MAJOR &&
           minor(status->st_rdev) == NULL_DEVICE_MINOR;
}

/* Up to `size` bytes. The length, or a negative errno. */
static ssize_t read_all(int fd, char *target, size_t size)
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
    return (ssize_t)length;
}

int bounded_file_read(const char *path, size_t max_bytes, struct bounded_file *ret_file)
{
    int fd CLEANUP(fd_close) = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) < 0)
        return -errno;
    if (S_ISDIR(status.st_mode))
        return -EISDIR;
    if (!S_ISREG(status.st_mode) && !is_null_device(&status))
        return -EPERM;
    if (status.st_size > 0 && (size_t)status.st_size > max_bytes)
        return -EFBIG;
    /* the size may be old, or none (/proc): one byte more shows what is too large */
    struct bounded_file file = {.text = malloc(max_bytes + 2)};
    if (file.text == NULL)
        return -ENOMEM;
    ssize_t length = read_all(fd, file.text, max_bytes + 1);
    file.length = length < 0 ? 0 : (size_t)length;
    int result = length < 0 ? (int)length : 0;
    if (file.length > max_bytes)
        result = -EFBIG;
    if (result < 0) {
        bounded_file_cleanup(&file);
        return result;
    }
    file.text[file.length] = '\0';
    file.is_world_readable = S_ISREG(status.st_mode) && (status.st_mode & S_IROTH) != 0;
    *ret_file = file;
    return 0;
}

void bounded_file_cleanup(struct bounded_file *file)
{
    if (file->text != NULL)
        explicit_bzero(file->text, file->length);
    free(file->text);
    *file = (struct bounded_file){0};
}
