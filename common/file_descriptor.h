/* Ownership of file descriptors: `int fd CLEANUP(fd_close) = -1;` and take_fd() to hand it on. */
#ifndef USERD_COMMON_FILE_DESCRIPTOR_H
#define USERD_COMMON_FILE_DESCRIPTOR_H

#include <unistd.h>

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

#endif
