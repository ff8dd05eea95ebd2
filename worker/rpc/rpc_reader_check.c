#include "worker/rpc/rpc_reader_check.h"

#include <errno.h>
#include <grpc/grpc.h>
#include <grpc/grpc_posix.h>
#include <grpc/grpc_security.h>
#include <grpc/support/time.h>
#include <string.h>
#include <sys/socket.h>

#include "common/file_descriptor.h"
#include "common/log.h"
#include "worker/rpc/rpc_reader.h"

#define TIMEOUT_MS 1000
#define STEP_MS    10

/* RFC 9113: section 3.4 (the client's preface), 4.1 (frame header), 6.5 (SETTINGS) */
#define GREETING           "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
#define FRAME_HEADER_BYTES 9
#define FRAME_SETTINGS     4
#define FLAG_ACK           0x1

/* Our settings are acknowledged: the C core has read them. */
static bool has_acknowledgement(const uint8_t *bytes, size_t length)
{
    for (size_t at = 0; at + FRAME_HEADER_BYTES <= length;) {
        if (bytes[at + 3] == FRAME_SETTINGS && (bytes[at + 4] & FLAG_ACK) != 0)
            return true;
        at += FRAME_HEADER_BYTES +
              ((size_t)bytes[at] << 16 | (size_t)bytes[at + 1] << 8 | bytes[at + 2]);
    }
    return false;
}

static gpr_timespec next_step(void)
{
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(STEP_MS, GPR_TIMESPAN));
}

static bool talk(grpc_completion_queue *queue, int client_fd)
{
    uint8_t bytes[1024];
    size_t length = 0;
    if (send(client_fd, GREETING, sizeof(GREETING) - 1, MSG_NOSIGNAL) != sizeof(GREETING) - 1)
        return false;
    for (int waited_ms = 0; waited_ms < TIMEOUT_MS; waited_ms += STEP_MS) {
        (void)grpc_completion_queue_next(queue, next_step(), NULL);
        ssize_t received = recv(client_fd, bytes + length, sizeof(bytes) - length, MSG_DONTWAIT);
        length += received > 0 ? (size_t)received : 0;
        if (has_acknowledgement(bytes, length))
            return true;
    }
    return false;
}

static void end_server(grpc_server *server, grpc_completion_queue *queue)
{
    grpc_server_shutdown_and_notify(server, queue, NULL);
    grpc_server_cancel_all_calls(server);
    (void)grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    grpc_server_destroy(server);
    grpc_completion_queue_shutdown(queue);
    while (grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).type !=
           GRPC_QUEUE_SHUTDOWN)
        continue;
    grpc_completion_queue_destroy(queue);
}

/* A server of its own with one connection. Takes server_fd. */
static bool is_read_through_us(int client_fd, int server_fd)
{
    grpc_completion_queue *queue = grpc_completion_queue_create_for_next(NULL);
    grpc_server *server = grpc_server_create(NULL, NULL);
    grpc_server_credentials *credentials = grpc_insecure_server_credentials_create();
    grpc_server_register_completion_queue(server, queue, NULL);
    grpc_server_start(server);
    rpc_reader_add(server_fd, 0, NULL);
    grpc_server_add_channel_from_fd(server, server_fd, credentials);
    grpc_server_credentials_release(credentials);
    bool is_read = talk(queue, client_fd) && rpc_reader_has_read(server_fd);
    end_server(server, queue);
    return is_read;
}

bool rpc_reader_check(void)
{
    int fds[2];
    int error = 0;
    bool is_read = false;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) != 0)
        error = errno;
    else
        is_read = is_read_through_us(fds[0], fds[1]);
    if (error == 0)
        fd_close(&fds[0]);
    if (!is_read)
        log_warn("connections are not looked into error=%d effect=\"stricter limits of the C core, "
                 "empty requests are refused\"",
            error);
    return is_read;
}
