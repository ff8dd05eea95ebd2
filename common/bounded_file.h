/* Reads a small file whole, with a bound on its size, and never waits for what is not a file: a
 * FIFO, a terminal and a device are refused. What is read is wiped before it is freed. */
#ifndef USERD_COMMON_BOUNDED_FILE_H
#define USERD_COMMON_BOUNDED_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/attributes.h"

struct bounded_file {
    char *text; /* owned; a NUL stands behind it, and perhaps in it */
    size_t length;
    bool is_world_readable;
};

/* 0; -EFBIG above `max_bytes`; -EISDIR; -EPERM when it is neither a regular file nor /dev/null;
 * -ENOMEM; or what open and read say. *ret_file is untouched on failure. */
MUST_CHECK int bounded_file_read(const char *path, size_t max_bytes, struct bounded_file *ret_file);
void bounded_file_cleanup(struct bounded_file *file);

#endif
