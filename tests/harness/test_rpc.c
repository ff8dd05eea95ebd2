#include "tests/harness/test_rpc.h"

#include <criterion/criterion.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/compression.h>
#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/harness/test_process.h"

#define MAX_MESSAGE_BYTES (64 * 1024 * 1024)

struct test_call {
    grpc_call *call;
    grpc_completion_queue *queue;
    grpc_byte_buffer *request;
    grpc_byte_buffer *response;
    grpc_metadata_array initial_metadata;
    grpc_metadata_array trailing_metadata;
    grpc_status_code status;
    grpc_slice details;
    bool has_ended;
};

void test_rpc_open(struct test_rpc *rpc, const char *address, bool compresses)
{
    rpc->traceparent = NULL;
    char key_pool[] = "grpc.use_local_subchannel_pool";
    char key_maximum[] = GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH;
    char key_compression[] = GRPC_COMPRESSION_CHANNEL_DEFAULT_ALGORITHM;
    char key_reconnect[] = GRPC_ARG_MAX_RECONNECT_BACKOFF_MS;
    grpc_arg arguments[] = {
        /* Otherwise two channels to one address would share a connection. */
        {.type = GRPC_ARG_INTEGER, .key = key_pool, .value.integer = 1},
        {.type = GRPC_ARG_INTEGER, .key = key_maximum, .value.integer = MAX_MESSAGE_BYTES},
        {.type = GRPC_ARG_INTEGER, .key = key_reconnect, .value.integer = 200},
        {.type = GRPC_ARG_INTEGER, .key = key_compression, .value.integer = GRPC_COMPRESS_GZIP},
    };
    grpc_channel_args args = {.num_args = compresses ? 4 : 3, .args = arguments};
    grpc_init();
    grpc_channel_credentials *credentials = grpc_insecure_credentials_create();
    rpc->channel = grpc_channel_create(address, credentials, &args);
    grpc_channel_credentials_release(credentials);
    cr_assert(rpc->channel != NULL, "no channel to %s", address);
}

void test_rpc_close(struct test_rpc *rpc)
{
    if (rpc->channel == NULL)
        return;
    grpc_channel_destroy(rpc->channel);
    rpc->channel = NULL;
    grpc_shutdown_blocking();
}

struct test_call *test_rpc_start(
    struct test_rpc *rpc, const char *method, const void *bytes, size_t length, int64_t timeout_ms)
{
    struct test_call *call = calloc(1, sizeof(*call));
    cr_assert(call != NULL, "out of memory");
    call->queue = grpc_completion_queue_create_for_next(NULL);
    grpc_metadata_array_init(&call->initial_metadata);
    grpc_metadata_array_init(&call->trailing_metadata);
    gpr_timespec deadline =
        gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(timeout_ms, GPR_TIMESPAN));
    grpc_slice path = grpc_slice_from_copied_string(method);
    call->call = grpc_channel_create_call(
        rpc->channel, NULL, GRPC_PROPAGATE_DEFAULTS, call->queue, path, NULL, deadline, NULL);
    grpc_slice_unref(path);

    grpc_slice body = grpc_slice_from_copied_buffer(bytes, length);
    call->request = grpc_raw_byte_buffer_create(&body, 1);
    grpc_slice_unref(body);
    /* Both slices are static: nothing to free. */
    grpc_metadata trace = {.key = grpc_slice_from_static_string("traceparent")};
    if (rpc->traceparent != NULL)
        trace.value = grpc_slice_from_static_string(rpc->traceparent);
    const grpc_op operations[] = {
        {.op = GRPC_OP_SEND_INITIAL_METADATA,
            .data.send_initial_metadata = {.count = rpc->traceparent == NULL ? 0 : 1,
                .metadata = &trace}},
        {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = call->request},
        {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
        {.op = GRPC_OP_RECV_INITIAL_METADATA,
            .data.recv_initial_metadata.recv_initial_metadata = &call->initial_metadata},
        {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &call->response},
        {.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
            .data.recv_status_on_client = {.trailing_metadata = &call->trailing_metadata,
                .status = &call->status,
                .status_details = &call->details}},
    };
    grpc_call_error error =
        grpc_call_start_batch(call->call, operations, ARRAY_LENGTH(operations), call, NULL);
    cr_assert(error == GRPC_CALL_OK, "batch refused: %d", (int)error);
    return call;
}

void test_rpc_cancel(struct test_call *call)
{
    (void)grpc_call_cancel(call->call, NULL);
}

static void wait_for_end(struct test_call *call, int64_t timeout_ms)
{
    if (call->has_ended)
        return;
    gpr_timespec deadline =
        gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(timeout_ms, GPR_TIMESPAN));
    grpc_event event = grpc_completion_queue_next(call->queue, deadline, NULL);
    call->has_ended = event.type == GRPC_OP_COMPLETE;
}

bool test_rpc_has_ended(struct test_call *call)
{
    wait_for_end(call, 0);
    return call->has_ended;
}

static void copy_response(const struct test_call *call, struct test_reply *ret_reply)
{
    if (call->response == NULL)
        return;
    grpc_byte_buffer_reader reader;
    cr_assert(grpc_byte_buffer_reader_init(&reader, call->response) == 1, "unreadable reply");
    grpc_slice all = grpc_byte_buffer_reader_readall(&reader);
    ret_reply->length = GRPC_SLICE_LENGTH(all);
    ret_reply->bytes = malloc(ret_reply->length + 1);
    cr_assert(ret_reply->bytes != NULL, "out of memory");
    memcpy(ret_reply->bytes, GRPC_SLICE_START_PTR(all), ret_reply->length);
    grpc_slice_unref(all);
    grpc_byte_buffer_reader_destroy(&reader);
}

static void free_call(struct test_call *call)
{
    grpc_call_unref(call->call);
    grpc_completion_queue_shutdown(call->queue);
    while (grpc_completion_queue_next(call->queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL).type !=
           GRPC_QUEUE_SHUTDOWN)
        continue;
    grpc_completion_queue_destroy(call->queue);
    grpc_byte_buffer_destroy(call->request);
    if (call->response != NULL)
        grpc_byte_buffer_destroy(call->response);
    grpc_metadata_array_destroy(&call->initial_metadata);
    grpc_metadata_array_destroy(&call->trailing_metadata);
    grpc_slice_unref(call->details);
    free(call);
}

void test_rpc_finish(struct test_call *call, struct test_reply *ret_reply)
{
    wait_for_end(call, 4 * (int64_t)TEST_TIMEOUT_MS);
    cr_assert(call->has_ended, "a call outlived its deadline");
    *ret_reply = (struct test_reply){.status = call->status};
    (void)snprintf(ret_reply->message, sizeof(ret_reply->message), "%.*s",
        (int)GRPC_SLICE_LENGTH(call->details), (const char *)GRPC_SLICE_START_PTR(call->details));
    for (size_t i = 0; i < call->trailing_metadata.count; i++) {
        if (grpc_slice_str_cmp(call->trailing_metadata.metadata[i].key, "grpc-retry-pushback-ms") ==
            0)
            ret_reply->has_pushback = true;
    }
    copy_response(call, ret_reply);
    free_call(call);
}

void test_rpc_call(struct test_rpc *rpc, const char *method, const void *bytes, size_t length,
    struct test_reply *ret_reply)
{
    test_rpc_finish(test_rpc_start(rpc, method, bytes, length, TEST_TIMEOUT_MS), ret_reply);
}

void test_rpc_call_message(struct test_rpc *rpc, const char *method,
    const ProtobufCMessage *request, struct test_reply *ret_reply)
{
    size_t length = protobuf_c_message_get_packed_size(request);
    uint8_t *bytes = malloc(length + 1);
    cr_assert(bytes != NULL, "out of memory");
    (void)protobuf_c_message_pack(request, bytes);
    test_rpc_call(rpc, method, bytes, length, ret_reply);
    free(bytes);
}

ProtobufCMessage *test_reply_decode(
    const struct test_reply *reply, const ProtobufCMessageDescriptor *type)
{
    cr_assert(reply->status == GRPC_STATUS_OK, "status %d: %s", (int)reply->status, reply->message);
    ProtobufCMessage *message = protobuf_c_message_unpack(type, NULL, reply->length, reply->bytes);
    cr_assert(message != NULL, "the reply is no valid %s", type->name);
    return message;
}

void test_reply_cleanup(struct test_reply *reply)
{
    free(reply->bytes);
    *reply = (struct test_reply){0};
}
