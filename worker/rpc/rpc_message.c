#include "worker/rpc/rpc_message.h"

#include <grpc/grpc.h>
#include <grpc/slice.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define ZLIB_CONST /* zlib.h: input is const */
#include <zlib.h>

#define MAX_NESTING         16
#define INFLATE_START_BYTES ((size_t)16 * 1024)
#define WINDOW_BITS_ANY     (15 + 32) /* zlib.h: detect gzip and zlib headers */

/* Contiguous bytes of a message: they either point into a slice or are owned. */
struct message_bytes {
    const uint8_t *start;
    size_t length;
    uint8_t *owned;
};

static void message_bytes_cleanup(struct message_bytes *bytes)
{
    free(bytes->owned);
}

PRINTF_LIKE(3, 4)
static void refuse(
    struct rpc_message_refusal *refusal, grpc_status_code status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    refusal->status = status;
    (void)vsnprintf(refusal->text, sizeof(refusal->text), format, arguments);
    va_end(arguments);
}

static void refuse_size(struct rpc_message_refusal *refusal, size_t limit_bytes)
{
    refuse(
        refusal, GRPC_STATUS_RESOURCE_EXHAUSTED, "message is larger than %zu bytes", limit_bytes);
}

/* ---- text ---- */

/* Bytes of the well-formed UTF-8 sequence at `text` (RFC 3629, section 4), 0 when there is none. */
static size_t utf8_sequence_length(const uint8_t *text, size_t available)
{
    uint8_t first = text[0];
    size_t length = first < 0x80   ? 1
                    : first < 0xc2 ? 0
                    : first < 0xe0 ? 2
                    : first < 0xf0 ? 3
                    : first < 0xf5 ? 4
                                   : 0;
    if (length == 0 || length > available)
        return 0;
    for (size_t i = 1; i < length; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    }
    /* over-long forms, surrogates, and above U+10FFFF */
    if ((first == 0xe0 && text[1] < 0xa0) || (first == 0xed && text[1] > 0x9f) ||
        (first == 0xf0 && text[1] < 0x90) || (first == 0xf4 && text[1] > 0x8f))
        return 0;
    return length;
}

static bool is_valid_text(const uint8_t *text, size_t length)
{
    size_t position = 0;
    while (position < length) {
        size_t step = utf8_sequence_length(text + position, length - position);
        if (step == 0 || text[position] == 0)
            return false;
        position += step;
    }
    return true;
}

/* Reads a varint and moves *position behind it. False at the end of the bytes, or when it is too
 * long. */
static bool read_varint(const uint8_t *bytes, size_t length, size_t *position, uint64_t *ret_value)
{
    uint64_t value = 0;
    for (unsigned int shift = 0; shift < 64 && *position < length; shift += 7) {
        uint8_t byte = bytes[(*position)++];
        value |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) {
            *ret_value = value;
            return true;
        }
    }
    return false;
}

/* How many bytes the field's value takes from *position on, after moving it behind a length prefix.
 * False: does not parse. */
static bool measure_field(
    const uint8_t *bytes, size_t length, size_t *position, unsigned int wire_type, size_t *ret_size)
{
    uint64_t size = 0;
    size_t start = *position;
    switch (wire_type) {
    case PROTOBUF_C_WIRE_TYPE_VARINT:
        if (!read_varint(bytes, length, &start, &size))
            return false;
        size = start - *position;
        break;
    case PROTOBUF_C_WIRE_TYPE_64BIT:
        size = 8;
        break;
    case PROTOBUF_C_WIRE_TYPE_32BIT:
        size = 4;
        break;
    case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
        if (!read_varint(bytes, length, position, &size))
            return false;
        break;
    default:
        return false;
    }
    if (size > length - *position)
        return false;
    *ret_size = (size_t)size;
    return true;
}

static bool has_valid_text(const ProtobufCMessageDescriptor *descriptor, const uint8_t *bytes,
    size_t length, unsigned int nesting)
{
    size_t position = 0;
    while (position < length) {
        uint64_t key = 0;
        size_t size = 0;
        if (!read_varint(bytes, length, &position, &key) ||
            !measure_field(bytes, length, &position, (unsigned int)(key & 7), &size))
            return true;
        const ProtobufCFieldDescriptor *field = NULL;
        if ((key & 7) == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED && key >> 3 <= UINT32_MAX)
            field = protobuf_c_message_descriptor_get_field(descriptor, (unsigned int)(key >> 3));
        if (field != NULL && field->type == PROTOBUF_C_TYPE_STRING &&
            !is_valid_text(bytes + position, size))
            return false;
        if (field != NULL && field->type == PROTOBUF_C_TYPE_MESSAGE &&
            (nesting >= MAX_NESTING ||
                !has_valid_text(field->descriptor, bytes + position, size, nesting + 1)))
            return false;
        position += size;
    }
    return true;
}

bool rpc_message_has_valid_text(
    const ProtobufCMessageDescriptor *descriptor, const uint8_t *bytes, size_t length)
{
    return has_valid_text(descriptor, bytes, length, 0);
}

/* ---- bytes ---- */

static void join_slices(const grpc_slice_buffer *slices, struct message_bytes *ret_bytes)
{
    if (slices->count == 1) {
        ret_bytes->start = GRPC_SLICE_START_PTR(slices->slices[0]);
        ret_bytes->length = GRPC_SLICE_LENGTH(slices->slices[0]);
        return;
    }
    uint8_t *joined = malloc(slices->length + 1);
    if (joined == NULL)
        return;
    size_t length = 0;
    for (size_t i = 0; i < slices->count; i++) {
        size_t slice_length = GRPC_SLICE_LENGTH(slices->slices[i]);
        if (slice_length > 0)
            memcpy(joined + length, GRPC_SLICE_START_PTR(slices->slices[i]), slice_length);
        length += slice_length;
    }
    *ret_bytes = (struct message_bytes){.start = joined, .length = length, .owned = joined};
}

/* Makes room for more output; at most one byte over the limit, by which we notice that there is too
 * much. */
static bool grow_output(struct message_bytes *bytes, size_t *capacity, size_t limit_bytes)
{
    size_t wanted = *capacity == 0 ? INFLATE_START_BYTES : *capacity * 2;
    if (wanted > limit_bytes + 1)
        wanted = limit_bytes + 1;
    uint8_t *grown = realloc(bytes->owned, wanted);
    if (grown == NULL)
        return false;
    bytes->owned = grown;
    bytes->start = grown;
    *capacity = wanted;
    return true;
}

/* Runs one slice through the stream. Z_OK: more is needed; Z_STREAM_END: complete; Z_BUF_ERROR:
 * over the limit. */
static int inflate_slice(z_stream *stream, const grpc_slice *slice, struct message_bytes *bytes,
    size_t *capacity, size_t limit_bytes)
{
    stream->next_in = GRPC_SLICE_START_PTR(*slice);
    stream->avail_in = (uInt)GRPC_SLICE_LENGTH(*slice);
    for (;;) {
        if (bytes->length > limit_bytes)
            return Z_BUF_ERROR;
        if (bytes->length == *capacity && !grow_output(bytes, capacity, limit_bytes))
            return Z_MEM_ERROR;
        stream->next_out = bytes->owned + bytes->length;
        stream->avail_out = (uInt)(*capacity - bytes->length);
        int result = inflate(stream, Z_NO_FLUSH);
        bytes->length = *capacity - stream->avail_out;
        if (result == Z_STREAM_END) {
            if (bytes->length > limit_bytes)
                return Z_BUF_ERROR;
            return stream->avail_in == 0 ? Z_STREAM_END : Z_DATA_ERROR;
        }
        if (result != Z_OK && result != Z_BUF_ERROR)
            return result;
        if (stream->avail_in == 0 && stream->avail_out > 0)
            return Z_OK;
    }
}

static int inflate_slices(
    const grpc_slice_buffer *slices, size_t limit_bytes, struct message_bytes *ret_bytes)
{
    z_stream stream = {0};
    if (inflateInit2(&stream, WINDOW_BITS_ANY) != Z_OK)
        return Z_MEM_ERROR;
    size_t capacity = 0;
    int result = Z_OK;
    for (size_t i = 0; i < slices->count && result == Z_OK; i++) {
        if (GRPC_SLICE_LENGTH(slices->slices[i]) > 0)
            result = inflate_slice(&stream, &slices->slices[i], ret_bytes, &capacity, limit_bytes);
        if (result == Z_STREAM_END && i + 1 < slices->count)
            result = Z_DATA_ERROR;
    }
    (void)inflateEnd(&stream);
    return result;
}

/* The gRPC compression document: what cannot be inflated is INTERNAL, an algorithm that is not
 * known is UNIMPLEMENTED. */
static bool read_bytes(const grpc_byte_buffer *buffer, size_t limit_bytes,
    struct message_bytes *ret_bytes, struct rpc_message_refusal *ret_refusal)
{
    const grpc_slice_buffer *slices = &buffer->data.raw.slice_buffer;
    int result = Z_STREAM_END;
    if (slices->length > limit_bytes) {
        refuse_size(ret_refusal, limit_bytes);
        return false;
    }
    switch (buffer->data.raw.compression) {
    case GRPC_COMPRESS_NONE:
        join_slices(slices, ret_bytes);
        if (slices->length > 0 && ret_bytes->start == NULL)
            result = Z_MEM_ERROR;
        break;
    case GRPC_COMPRESS_DEFLATE:
    case GRPC_COMPRESS_GZIP:
        result = inflate_slices(slices, limit_bytes, ret_bytes);
        break;
    case GRPC_COMPRESS_ALGORITHMS_COUNT:
        refuse(ret_refusal, GRPC_STATUS_UNIMPLEMENTED, "compression algorithm is not supported");
        return false;
    }
    if (result == Z_STREAM_END)
        return true;
    if (result == Z_BUF_ERROR)
        refuse_size(ret_refusal, limit_bytes);
    else if (result == Z_MEM_ERROR)
        refuse(ret_refusal, GRPC_STATUS_RESOURCE_EXHAUSTED, "out of memory");
    else
        refuse(ret_refusal, GRPC_STATUS_INTERNAL, "the compressed message is broken");
    return false;
}

ProtobufCMessage *rpc_message_decode(const ProtobufCMessageDescriptor *descriptor,
    const grpc_byte_buffer *buffer, size_t limit_bytes, struct rpc_arena *arena,
    struct rpc_message_refusal *ret_refusal)
{
    struct message_bytes bytes CLEANUP(message_bytes_cleanup) = {0};
    if (!read_bytes(buffer, limit_bytes, &bytes, ret_refusal))
        return NULL;
    ProtobufCMessage *message =
        protobuf_c_message_unpack(descriptor, &arena->allocator, bytes.length, bytes.start);
    if (message == NULL && rpc_arena_has_hit_limit(arena)) {
        refuse(ret_refusal, GRPC_STATUS_RESOURCE_EXHAUSTED, "message has too many fields");
        return NULL;
    }
    if (message == NULL) {
        refuse(ret_refusal, GRPC_STATUS_INVALID_ARGUMENT, "request is not a valid %s",
            descriptor->name);
        return NULL;
    }
    if (!rpc_message_has_valid_text(descriptor, bytes.start, bytes.length)) {
        refuse(ret_refusal, GRPC_STATUS_INVALID_ARGUMENT,
            "request is not a valid %s: a text is not UTF-8 or contains NUL", descriptor->name);
        return NULL;
    }
    return message;
}

grpc_slice rpc_message_encode(const ProtobufCMessage *message)
{
    grpc_slice slice = grpc_slice_malloc(protobuf_c_message_get_packed_size(message));
    (void)protobuf_c_message_pack(message, GRPC_SLICE_START_PTR(slice));
    return slice;
}
