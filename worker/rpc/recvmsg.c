/* recvmsg(2) in the place of the C library's, for all of the process: the C core's reads of a
 * connection that rpc_reader.h follows go there, all others to the kernel. In a file of its own, so
 * that the build for ThreadSanitizer can put its annotations between. */
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "worker/rpc/rpc_reader.h"

/* For the linker, which takes this file for its sake. */
extern const int rpc_recvmsg_anchor;
const int rpc_recvmsg_anchor = 1;

__attribute__((visibility("default"))) ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    /* The error queue holds none of the client's bytes, and another thread may read those
     * meanwhile. */
    if ((flags & MSG_ERRQUEUE) == 0 && rpc_reader_follows(fd))
        return rpc_reader_receive(fd, message, flags);
    return syscall(SYS_recvmsg, fd, message, flags);
}
