/* One end of a SOCK_SEQPACKET channel between two of our processes, on an sd-event loop.
 *
 * One protobuf Frame (proto/ipc.proto) is one record, with at most one descriptor attached. A body
 * over IPC_RECORD_MAX travels in a sealed memfd. Sending never blocks: what the socket does not
 * take waits in a bounded queue. A record that is malformed, a memfd that this process has no
 * descriptor left for, or an end of file, ends the channel: on_closed runs once, and nothing after
 * it. A frame whose attached descriptor was cut off for want of one comes all the same, and says
 * so. All functions belong to the loop's thread.
 */
#ifndef USERD_COMMON_IPC_CHANNEL_H
#define USERD_COMMON_IPC_CHANNEL_H

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "common/attributes.h"

#include "ipc.pb-c.h"

#define IPC_RECORD_MAX      ((size_t)64 * 1024) /* bytes in one record; longer bodies go by memfd */
#define IPC_BODY_MAX        ((size_t)64 * 1024 * 1024) /* bytes in any body */
#define IPC_QUEUE_MAX_BYTES ((size_t)64 * 1024 * 1024) /* waiting to be sent */

#define IPC_FD_CUT_OFF (-2) /* a descriptor was attached, and this process had no room for it */

struct ipc_channel;

struct ipc_channel_handlers {
    /* `frame` lives until the handler returns. *fd is the attached descriptor, -1 or
     * IPC_FD_CUT_OFF: take it (fd_take) or it is closed. The handler may free the channel. Returns
     * 0, or negative errno to say that this frame has no business here: the channel ends. */
    int (*on_frame)(
        struct ipc_channel *channel, const Userd__Ipc__Frame *frame, int *fd, void *userdata);
    /* The peer is gone (`error` 0) or the channel broke (negative errno). The handler may free the
     * channel. */
    void (*on_closed)(struct ipc_channel *channel, int error, void *userdata);
};

/* Takes `fd` (non-blocking, SOCK_SEQPACKET), also on failure. `peer` names the other side in the
 * log; copied. */
MUST_CHECK int ipc_channel_new(sd_event *event, int fd, const char *peer,
    const struct ipc_channel_handlers *handlers, void *userdata, struct ipc_channel **ret_channel);
/* Closes without calling on_closed. NULL is fine. Always returns NULL. */
struct ipc_channel *ipc_channel_free(struct ipc_channel *channel);
void ipc_channel_freep(struct ipc_channel **channel);

/* Sends or queues. `fd` (or -1) is duplicated, it stays the caller's.
 * -ENOBUFS: the queue is full, nothing was sent. -EPIPE: the channel has ended. -EMSGSIZE: over
 * IPC_BODY_MAX. */
MUST_CHECK int ipc_channel_send(
    struct ipc_channel *channel, const Userd__Ipc__Frame *frame, int fd);

/* The peer is known to be gone: handles what it has left now, to its end, instead of when the loop
 * comes to it. */
void ipc_channel_receive_rest(struct ipc_channel *channel);

/* Bytes that wait to be sent: for those who would rather hold back than fill the queue. */
size_t ipc_channel_queued_bytes(const struct ipc_channel *channel);
/* Stays the channel's; -1 once it has ended. */
int ipc_channel_fd(const struct ipc_channel *channel);
bool ipc_channel_is_open(const struct ipc_channel *channel);

/* A connected pair of non-blocking, close-on-exec SOCK_SEQPACKET sockets. */
MUST_CHECK int ipc_channel_pair(int ret_fds[2]);

#endif
