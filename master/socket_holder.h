/* Who listens on an address that we wanted: for the message that says so. As far as /proc lets us
 * see; another user's processes stay unknown to all but root. */
#ifndef USERD_MASTER_SOCKET_HOLDER_H
#define USERD_MASTER_SOCKET_HOLDER_H

#include <sys/types.h>

#include "common/attributes.h"
#include "common/listener_address.h"

#define SOCKET_HOLDER_NAME_SIZE 17 /* TASK_COMM_LEN of the kernel, and a NUL */

struct socket_holder {
    pid_t pid;
    char program[SOCKET_HOLDER_NAME_SIZE];
};

/* -ENOENT: nobody that could be seen. */
MUST_CHECK int socket_holder_find(
    const struct listener_address *address, struct socket_holder *ret_holder);

#endif
