/* File descriptors, and who owns them: `int fd CLEANUP(fd_close) = -1;` and take_fd() to hand it
 * on. */
#ifndef USERD_COMMON_FILE_DESCRIPTOR_H
#define USERD_COMMON_FILE_DESCRIPTOR_H

#include <errno.h>
#include <stddef.h>
#include <sys/types.h>
#include <unistd.h>

#include "common/attributes.h"

/* Closes *fd unless it is negative, and sets it to -1. Keeps errno out of the caller's way. */
static inline void fd_close(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

/* Moves a descriptor out of a variable, so that the variable's CLEANUP finds nothing. */
static inline int fd_take(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

/* All of a text, to a descriptor that blocks; 0 or what write(2) says, negative. */
MUST_CHECK static inline int fd_write_all(int fd, const char *text, size_t length)
{
    while (length > 0) {
        ssize_t written = write(fd, text, length);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return -errno;
        text += written;
        length -= (size_t)written;
    }
    return 0;
}

#endif
