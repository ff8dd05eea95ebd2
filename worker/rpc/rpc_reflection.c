#include "worker/rpc/rpc_reflection.h"

#include <string.h>

#include "worker/rpc/rpc_arena.h"

#include "grpc/reflection/v1/reflection.pb-c.h"

typedef Grpc__Reflection__V1__ServerReflectionRequest reflection_request;
typedef Grpc__Reflection__V1__ServerReflectionResponse reflection_response;
typedef Grpc__Reflection__V1__ServiceResponse service_response;

static const char *const own_services[] = {
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
};

/* Everything that any answer is made of: built in place, packed, forgotten. */
struct answer {
    reflection_response response;
    Grpc__Reflection__V1__FileDescriptorResponse files;
    Grpc__Reflection__V1__ExtensionNumberResponse extensions;
    Grpc__Reflection__V1__ListServiceResponse list;
    Grpc__Reflection__V1__ErrorResponse error;
    struct rpc_arena arena; /* owned: texts and elements */
};

static void answer_init(struct answer *answer)
{
    grpc__reflection__v1__server_reflection_response__init(&answer->response);
    grpc__reflection__v1__file_descriptor_response__init(&answer->files);
    grpc__reflection__v1__extension_number_response__init(&answer->extensions);
    grpc__reflection__v1__list_service_response__init(&answer->list);
    grpc__reflection__v1__error_response__init(&answer->error);
    rpc_arena_init(&answer->arena, SIZE_MAX);
}

static void answer_cleanup(struct answer *answer)
{
    rpc_arena_reset(&answer->arena);
}

static char *copy_text(struct answer *answer, const char *text)
{
    size_t size = strlen(text) + 1;
    return memcpy(rpc_arena_allocate(&answer->arena, size), text, size);
}

static void put_error(struct answer *answer, grpc_status_code status, const char *message)
{
    answer->error.error_code = (int32_t)status;
    answer->error.error_message = copy_text(answer, message);
    answer->response.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
    answer->response.error_response = &answer->error;
}

static void put_files(struct answer *answer, const struct descriptor_index *index, int file)
{
    if (file < 0) {
        put_error(answer, GRPC_STATUS_NOT_FOUND, "not found");
        return;
    }
    answer->files.file_descriptor_proto = rpc_arena_allocate(
        &answer->arena, descriptor_index_file_count(index) * sizeof(ProtobufCBinaryData));
    answer->files.n_file_descriptor_proto =
        descriptor_index_collect(index, (size_t)file, answer->files.file_descriptor_proto);
    answer->response.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
    answer->response.file_descriptor_response = &answer->files;
}

static void put_service(struct answer *answer, const char *name)
{
    service_response *service = rpc_arena_allocate(&answer->arena, sizeof(*service));
    grpc__reflection__v1__service_response__init(service);
    service->name = copy_text(answer, name);
    answer->list.service[answer->list.n_service++] = service;
}

static void put_list(struct answer *answer, const struct settings_listener *listener)
{
    size_t most = listener->service_count + ARRAY_LENGTH(own_services);
    answer->list.service = rpc_arena_allocate(&answer->arena, most * sizeof(service_response *));
    for (size_t i = 0; i < listener->service_count; i++)
        put_service(answer, listener->services[i]);
    for (size_t i = 0; i < ARRAY_LENGTH(own_services); i++)
        put_service(answer, own_services[i]);
    answer->response.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
    answer->response.list_services_response = &answer->list;
}

/* proto3 messages have no extensions. */
static void put_extensions(
    struct answer *answer, const struct descriptor_index *index, const char *message_name)
{
    if (!descriptor_index_has_message(index, message_name)) {
        put_error(answer, GRPC_STATUS_NOT_FOUND, "not found");
        return;
    }
    answer->extensions.base_type_name = copy_text(answer, message_name);
    answer->response.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ALL_EXTENSION_NUMBERS_RESPONSE;
    answer->response.all_extension_numbers_response = &answer->extensions;
}

static void put_answer(struct answer *answer, const struct rpc_reflection *reflection,
    const reflection_request *request)
{
    const struct descriptor_index *index = reflection->index;
    switch (request->message_request_case) {
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
        put_files(answer, index, descriptor_index_find_file(index, request->file_by_filename));
        return;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
        put_files(
            answer, index, descriptor_index_find_symbol(index, request->file_containing_symbol));
        return;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_EXTENSION:
        put_error(answer, GRPC_STATUS_NOT_FOUND, "there are no extensions");
        return;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_ALL_EXTENSION_NUMBERS_OF_TYPE:
        put_extensions(answer, index, request->all_extension_numbers_of_type);
        return;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
        put_list(answer, reflection->listener);
        return;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST__NOT_SET:
    case _GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST__CASE_IS_INT_SIZE:
        break;
    }
    put_error(answer, GRPC_STATUS_INVALID_ARGUMENT, "message_request is not set");
}

static void on_message(struct rpc_stream *stream, const ProtobufCMessage *message)
{
    /* The echo in the answer wants a pointer that is not const; packing does not write. The message
     * is the stream's. */
    union {
        const ProtobufCMessage *message;
        reflection_request *request;
    } source = {.message = message};
    struct answer answer CLEANUP(answer_cleanup);
    answer_init(&answer);
    answer.response.valid_host = source.request->host;
    answer.response.original_request = source.request;
    put_answer(&answer, rpc_stream_userdata(stream), source.request);
    rpc_stream_send(stream, &answer.response.base);
    rpc_stream_forget_request(stream);
}

static void on_half_closed(struct rpc_stream *stream)
{
    rpc_stream_finish(stream, GRPC_STATUS_OK, NULL);
}

void rpc_reflection_init(struct rpc_reflection *reflection,
    const struct settings_listener *listener, const struct descriptor_index *index)
{
    static const char *const paths[RPC_REFLECTION_VERSIONS] = {
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    };
    *reflection = (struct rpc_reflection){.listener = listener, .index = index};
    for (size_t i = 0; i < RPC_REFLECTION_VERSIONS; i++) {
        reflection->methods[i] = (struct rpc_stream_method){
            .path = paths[i],
            .input = &grpc__reflection__v1__server_reflection_request__descriptor,
            .on_message = on_message,
            .on_half_closed = on_half_closed,
            .on_sent = rpc_stream_read,
            .userdata = reflection,
        };
    }
}
