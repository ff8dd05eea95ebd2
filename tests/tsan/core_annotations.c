/* Tells ThreadSanitizer what it cannot see: the gRPC C core is not instrumented, and its locks are
 * futexes of abseil's. A tag that is handed to the C core by one thread comes back from the
 * completion queue on another, and everything that the first thread wrote before it handed the tag
 * over is visible to the second one.
 *
 * The linker puts these functions in the place of the C core's (--wrap), in the build for
 * ThreadSanitizer alone.
 *
 * With USERD_PLANTED_RACE two threads write one variable without a lock: the test must find it, or
 * its silence means nothing. */
#include <errno.h>
#include <grpc/grpc.h>
#include <sanitizer/tsan_interface.h>

#include "worker/rpc/core_bridge.h"
#include "worker/rpc/rpc_reader.h"

#ifdef USERD_PLANTED_RACE
static unsigned int
    planted; /* written by the thread that starts a batch and by the one that polls */
#define PLANT() (void)(planted++)
#else
#define PLANT() ((void)0)
#endif

/* The names are the linker's: __real_X is what --wrap=X stands before. */
/* NOLINTBEGIN(bugprone-reserved-identifier,readability-function-size) */
grpc_call_error __real_grpc_call_start_batch(
    grpc_call *call, const grpc_op *operations, size_t count, void *tag, void *reserved);
grpc_call_error __wrap_grpc_call_start_batch(
    grpc_call *call, const grpc_op *operations, size_t count, void *tag, void *reserved);
grpc_call_error __real_core_bridge_start_batch(const struct core_bridge *bridge, grpc_call *call,
    const grpc_op *operations, size_t count, void *tag);
grpc_call_error __wrap_core_bridge_start_batch(const struct core_bridge *bridge, grpc_call *call,
    const grpc_op *operations, size_t count, void *tag);
grpc_call_error __real_grpc_server_request_call(grpc_server *server, grpc_call **call,
    grpc_call_details *details, grpc_metadata_array *metadata, grpc_completion_queue *bound,
    grpc_completion_queue *notified, void *tag);
grpc_call_error __wrap_grpc_server_request_call(grpc_server *server, grpc_call **call,
    grpc_call_details *details, grpc_metadata_array *metadata, grpc_completion_queue *bound,
    grpc_completion_queue *notified, void *tag);
grpc_call_error __real_grpc_server_request_registered_call(grpc_server *server, void *method,
    grpc_call **call, gpr_timespec *deadline, grpc_metadata_array *metadata,
    grpc_byte_buffer **payload, grpc_completion_queue *bound, grpc_completion_queue *notified,
    void *tag);
grpc_call_error __wrap_grpc_server_request_registered_call(grpc_server *server, void *method,
    grpc_call **call, gpr_timespec *deadline, grpc_metadata_array *metadata,
    grpc_byte_buffer **payload, grpc_completion_queue *bound, grpc_completion_queue *notified,
    void *tag);
void __real_grpc_server_shutdown_and_notify(
    grpc_server *server, grpc_completion_queue *queue, void *tag);
void __wrap_grpc_server_shutdown_and_notify(
    grpc_server *server, grpc_completion_queue *queue, void *tag);
grpc_event __real_grpc_completion_queue_next(
    grpc_completion_queue *queue, gpr_timespec deadline, void *reserved);
grpc_event __wrap_grpc_completion_queue_next(
    grpc_completion_queue *queue, gpr_timespec deadline, void *reserved);
void __real_rpc_reader_add(int fd, uint32_t listener, const struct rpc_peer *peer);
void __wrap_rpc_reader_add(int fd, uint32_t listener, const struct rpc_peer *peer);
bool __real_rpc_reader_follows(int fd);
bool __wrap_rpc_reader_follows(int fd);
ssize_t __real_rpc_reader_receive(int fd, struct msghdr *message, int flags);
ssize_t __wrap_rpc_reader_receive(int fd, struct msghdr *message, int flags);

grpc_call_error __wrap_grpc_call_start_batch(
    grpc_call *call, const grpc_op *operations, size_t count, void *tag, void *reserved)
{
    PLANT();
    __tsan_release(tag);
    return __real_grpc_call_start_batch(call, operations, count, tag, reserved);
}

grpc_call_error __wrap_core_bridge_start_batch(const struct core_bridge *bridge, grpc_call *call,
    const grpc_op *operations, size_t count, void *tag)
{
    PLANT();
    __tsan_release(tag);
    return __real_core_bridge_start_batch(bridge, call, operations, count, tag);
}

grpc_call_error __wrap_grpc_server_request_call(grpc_server *server, grpc_call **call,
    grpc_call_details *details, grpc_metadata_array *metadata, grpc_completion_queue *bound,
    grpc_completion_queue *notified, void *tag)
{
    __tsan_release(tag);
    return __real_grpc_server_request_call(server, call, details, metadata, bound, notified, tag);
}

grpc_call_error __wrap_grpc_server_request_registered_call(grpc_server *server, void *method,
    grpc_call **call, gpr_timespec *deadline, grpc_metadata_array *metadata,
    grpc_byte_buffer **payload, grpc_completion_queue *bound, grpc_completion_queue *notified,
    void *tag)
{
    __tsan_release(tag);
    return __real_grpc_server_request_registered_call(
        server, method, call, deadline, metadata, payload, bound, notified, tag);
}

void __wrap_grpc_server_shutdown_and_notify(
    grpc_server *server, grpc_completion_queue *queue, void *tag)
{
    __tsan_release(tag);
    __real_grpc_server_shutdown_and_notify(server, queue, tag);
}

grpc_event __wrap_grpc_completion_queue_next(
    grpc_completion_queue *queue, gpr_timespec deadline, void *reserved)
{
    grpc_event event = __real_grpc_completion_queue_next(queue, deadline, reserved);
    if (event.type == GRPC_OP_COMPLETE)
        __tsan_acquire(event.tag);
    PLANT();
    return event;
}
/* ---- a connection is read by one thread of the C core at a time, the next after the one before
 * ---- */

#define DESCRIPTORS 65536
static char read_of[DESCRIPTORS]; /* their addresses stand for the descriptors */

void __wrap_rpc_reader_add(int fd, uint32_t listener, const struct rpc_peer *peer)
{
    __tsan_acquire(&read_of[fd]);
    __real_rpc_reader_add(fd, listener, peer);
    __tsan_release(&read_of[fd]);
}

bool __wrap_rpc_reader_follows(int fd)
{
    bool has_tag = fd >= 0 && fd < DESCRIPTORS;
    if (has_tag)
        __tsan_acquire(&read_of[fd]);
    bool follows = __real_rpc_reader_follows(fd);
    /* The descriptor may be closed next, and be another connection's when it is opened again. */
    if (has_tag && !follows)
        __tsan_release(&read_of[fd]);
    return follows;
}

ssize_t __wrap_rpc_reader_receive(int fd, struct msghdr *message, int flags)
{
    ssize_t length = __real_rpc_reader_receive(fd, message, flags);
    int error = errno;
    __tsan_release(&read_of[fd]);
    errno = error;
    return length;
}
/* NOLINTEND(bugprone-reserved-identifier,readability-function-size) */
