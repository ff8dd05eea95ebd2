/* The directory of a running service (setting run_dir): its lock with the pid, and where it
 * listens.
 *
 *   userd.pid   the master's pid, locked for the master's life: a second master on the same
 * directory is refused listeners   one "name address" line for each listener, replaced in one step
 */
#ifndef USERD_MASTER_RUN_DIRECTORY_H
#define USERD_MASTER_RUN_DIRECTORY_H

#include <stddef.h>
#include <sys/types.h>

#include "common/attributes.h"
#include "master/listener.h"

struct run_directory {
    int fd;     /* the directory; owned */
    int pid_fd; /* holds the lock; owned */
};

/* Creates the directory (0755) if it is missing and takes the lock. Logs failures. -EBUSY: another
 * master holds it. */
MUST_CHECK int run_directory_open(const char *path, struct run_directory *ret_directory);
MUST_CHECK int run_directory_write_listeners(
    const struct run_directory *directory, const struct listener *listeners, size_t count);
/* Removes `listeners`, empties userd.pid and lets go of the lock. */
void run_directory_close(struct run_directory *directory);

#endif
