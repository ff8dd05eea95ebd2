/* The yardstick: a plain C core server as everyone writes it, without a database. One process, one
 * completion queue, one thread; registered methods, calls asked for ahead, one batch for the whole
 * reply; the C core as it comes, with its own listening socket. Answers every GetUser with the same
 * name, as long as those in the benchmark's database.
 *
 *   stock_echo          prints "port=N", serves until it is killed
 */
#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUESTS 64

struct echo_call {
    bool is_answered;
    grpc_call *call;
    gpr_timespec deadline;
    grpc_metadata_array metadata;
    grpc_byte_buffer *payload;
    grpc_byte_buffer *reply;
    int was_cancelled;
};

struct echo_server {
    grpc_server *server;
    grpc_completion_queue *queue;
    void *method;
};

static void request_call(const struct echo_server *server)
{
    struct echo_call *call = calloc(1, sizeof(*call));
    if (call == NULL)
        abort();
    grpc_metadata_array_init(&call->metadata);
    if (grpc_server_request_registered_call(server->server, server->method, &call->call,
            &call->deadline, &call->metadata, &call->payload, server->queue, server->queue,
            call) != GRPC_CALL_OK)
        abort();
}

static void answer(struct echo_call *call)
{
    static const char message[] = "\x0A\x09user12345";
    grpc_slice slice = grpc_slice_from_copied_buffer(message, sizeof(message) - 1);
    call->reply = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    grpc_op operations[4];
    memset(operations, 0, sizeof(operations));
    operations[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    operations[1].op = GRPC_OP_SEND_MESSAGE;
    operations[1].data.send_message.send_message = call->reply;
    operations[2].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
    operations[3].op = GRPC_OP_RECV_CLOSE_ON_SERVER;
    operations[3].data.recv_close_on_server.cancelled = &call->was_cancelled;
    call->is_answered = true;
    if (grpc_call_start_batch(call->call, operations, 4, call, NULL) != GRPC_CALL_OK)
        abort();
}

static void free_call(struct echo_call *call)
{
    grpc_byte_buffer_destroy(call->payload);
    grpc_byte_buffer_destroy(call->reply);
    grpc_metadata_array_destroy(&call->metadata);
    grpc_call_unref(call->call);
    free(call);
}

int main(void)
{
    grpc_init();
    struct echo_server server = {
        .server = grpc_server_create(NULL, NULL),
        .queue = grpc_completion_queue_create_for_next(NULL),
    };
    grpc_server_register_completion_queue(server.server, server.queue, NULL);
    server.method = grpc_server_register_method(
        server.server, "/user.User/GetUser", NULL, GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER, 0);
    grpc_server_credentials *credentials = grpc_insecure_server_credentials_create();
    int port = grpc_server_add_http2_port(server.server, "127.0.0.1:0", credentials);
    if (port == 0)
        return EXIT_FAILURE;
    grpc_server_start(server.server);
    printf("port=%d\n", port);
    (void)fflush(stdout);
    for (int i = 0; i < REQUESTS; i++)
        request_call(&server);
    for (;;) {
        grpc_event event =
            grpc_completion_queue_next(server.queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        struct echo_call *call = event.tag;
        if (event.type != GRPC_OP_COMPLETE)
            return EXIT_FAILURE;
        if (call->is_answered) {
            free_call(call);
            continue;
        }
        request_call(&server);
        answer(call);
    }
}
