/* Decoding what a client sent: sizes, compression, broken bytes, texts. */
#include <criterion/criterion.h>
#include <grpc/grpc.h>
#include <grpc/slice.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "worker/rpc/rpc_message.h"

#include "user/user.pb-c.h"
#include "user_post/user_post.pb-c.h"

#define LIMIT_BYTES 4096

struct decoded {
    struct rpc_arena arena;
    struct rpc_message_refusal refusal;
    ProtobufCMessage *message;
};

static void decode_buffer(
    struct decoded *decoded, const ProtobufCMessageDescriptor *descriptor, grpc_byte_buffer *buffer)
{
    memset(&decoded->refusal, 0, sizeof(decoded->refusal));
    rpc_arena_init(&decoded->arena, 64 * 1024);
    decoded->message =
        rpc_message_decode(descriptor, buffer, LIMIT_BYTES, &decoded->arena, &decoded->refusal);
    grpc_byte_buffer_destroy(buffer);
}

static void decode(struct decoded *decoded, const ProtobufCMessageDescriptor *descriptor,
    const void *bytes, size_t length, grpc_compression_algorithm compression)
{
    grpc_slice slice = grpc_slice_from_copied_buffer(bytes, length);
    decode_buffer(
        decoded, descriptor, grpc_raw_compressed_byte_buffer_create(&slice, 1, compression));
    grpc_slice_unref(slice);
}

/* deflate when `window_bits` is 15, gzip when it is 31 */
static size_t compress_bytes(
    const uint8_t *bytes, size_t length, uint8_t *ret_bytes, size_t size, int window_bits)
{
    z_stream stream = {0};
    cr_assert_eq(deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, window_bits, 8,
                     Z_DEFAULT_STRATEGY),
        Z_OK);
    uint8_t *copy = malloc(length + 1);
    cr_assert_not_null(copy);
    memcpy(copy, bytes, length);
    stream.next_in = copy;
    stream.avail_in = (uInt)length;
    stream.next_out = ret_bytes;
    stream.avail_out = (uInt)size;
    cr_assert_eq(deflate(&stream, Z_FINISH), Z_STREAM_END);
    size_t written = size - stream.avail_out;
    (void)deflateEnd(&stream);
    free(copy);
    return written;
}

static const uint8_t user_5[] = {0x08, 0x05};

Test(rpc_message, decodes_a_plain_message)
{
    struct decoded decoded;
    decode(
        &decoded, &user__user_get_request__descriptor, user_5, sizeof(user_5), GRPC_COMPRESS_NONE);
    cr_assert_not_null(decoded.message);
    cr_assert_eq(((const User__UserGetRequest *)(const void *)decoded.message)->id, 5);
    rpc_arena_reset(&decoded.arena);
}

Test(rpc_message, joins_many_slices)
{
    grpc_slice slices[2] = {
        grpc_slice_from_copied_buffer((const char *)user_5, 1),
        grpc_slice_from_copied_buffer((const char *)user_5 + 1, 1),
    };
    struct decoded decoded;
    decode_buffer(
        &decoded, &user__user_get_request__descriptor, grpc_raw_byte_buffer_create(slices, 2));
    cr_assert_not_null(decoded.message);
    cr_assert_eq(((const User__UserGetRequest *)(const void *)decoded.message)->id, 5);
    rpc_arena_reset(&decoded.arena);
}

Test(rpc_message, an_empty_message_is_the_default)
{
    struct decoded decoded;
    decode(&decoded, &user__user_get_request__descriptor, "", 0, GRPC_COMPRESS_NONE);
    cr_assert_not_null(decoded.message);
    rpc_arena_reset(&decoded.arena);
}

Test(rpc_message, inflates_gzip_and_deflate)
{
    uint8_t bytes[128];
    struct decoded decoded;
    size_t length = compress_bytes(user_5, sizeof(user_5), bytes, sizeof(bytes), 31);
    decode(&decoded, &user__user_get_request__descriptor, bytes, length, GRPC_COMPRESS_GZIP);
    cr_assert_not_null(decoded.message);
    rpc_arena_reset(&decoded.arena);
    length = compress_bytes(user_5, sizeof(user_5), bytes, sizeof(bytes), 15);
    decode(&decoded, &user__user_get_request__descriptor, bytes, length, GRPC_COMPRESS_DEFLATE);
    cr_assert_not_null(decoded.message);
    rpc_arena_reset(&decoded.arena);
}

Test(rpc_message, inflates_up_to_the_limit_and_not_a_byte_more)
{
    uint8_t packed[1024];
    for (size_t extra = 0; extra <= 1; extra++) {
        size_t total = LIMIT_BYTES + extra;
        uint8_t *plain = calloc(1, total);
        cr_assert_not_null(plain);
        plain[0] = 0x7a; /* field 15, unknown: length-prefixed */
        plain[1] = (uint8_t)(((total - 3) & 0x7f) | 0x80);
        plain[2] = (uint8_t)((total - 3) >> 7);
        size_t length = compress_bytes(plain, total, packed, sizeof(packed), 31);
        struct decoded decoded;
        decode(&decoded, &user__user_get_request__descriptor, packed, length, GRPC_COMPRESS_GZIP);
        cr_assert_eq(decoded.message != NULL, extra == 0);
        if (extra == 1)
            cr_assert_eq(decoded.refusal.status, GRPC_STATUS_RESOURCE_EXHAUSTED);
        rpc_arena_reset(&decoded.arena);
        free(plain);
    }
}

/* Of what was sent nothing is even looked at then, nor of how it is packed. */
Test(rpc_message, a_message_is_refused_that_is_larger_than_the_limit_as_sent)
{
    static const grpc_compression_algorithm algorithms[] = {GRPC_COMPRESS_NONE,
        GRPC_COMPRESS_DEFLATE, GRPC_COMPRESS_GZIP, GRPC_COMPRESS_ALGORITHMS_COUNT};
    static const uint8_t bytes[LIMIT_BYTES + 1];
    for (size_t i = 0; i < ARRAY_LENGTH(algorithms); i++) {
        struct decoded decoded;
        decode(&decoded, &user__user_get_request__descriptor, bytes, sizeof(bytes), algorithms[i]);
        cr_assert_null(decoded.message);
        cr_assert_eq(decoded.refusal.status, GRPC_STATUS_RESOURCE_EXHAUSTED);
    }
}

Test(rpc_message, a_compression_that_is_not_known_is_unimplemented)
{
    struct decoded decoded;
    decode(&decoded, &user__user_get_request__descriptor, user_5, sizeof(user_5),
        GRPC_COMPRESS_ALGORITHMS_COUNT);
    cr_assert_null(decoded.message);
    cr_assert_eq(decoded.refusal.status, GRPC_STATUS_UNIMPLEMENTED);
}

Test(rpc_message, broken_or_cut_compression_is_internal)
{
    uint8_t bytes[128];
    size_t length = compress_bytes(user_5, sizeof(user_5), bytes, sizeof(bytes), 31);
    struct decoded decoded;
    decode(&decoded, &user__user_get_request__descriptor, bytes, length - 5, GRPC_COMPRESS_GZIP);
    cr_assert_null(decoded.message);
    cr_assert_eq(decoded.refusal.status, GRPC_STATUS_INTERNAL);
    bytes[length] = 'x'; /* something behind the end */
    decode(&decoded, &user__user_get_request__descriptor, bytes, length + 1, GRPC_COMPRESS_GZIP);
    cr_assert_eq(decoded.refusal.status, GRPC_STATUS_INTERNAL);
    decode(&decoded, &user__user_get_request__descriptor, "plain", 5, GRPC_COMPRESS_GZIP);
    cr_assert_eq(decoded.refusal.status, GRPC_STATUS_INTERNAL);
}

Test(rpc_message, bytes_that_are_no_message_name_the_expected_type)
{
    struct decoded decoded;
    decode(&decoded, &user__user_get_request__descriptor, "\xff\xff\xff", 3, GRPC_COMPRESS_NONE);
    cr_assert_null(decoded.message);
    cr_assert_eq(decoded.refusal.status, GRPC_STATUS_INVALID_ARGUMENT);
    cr_assert_not_null(strstr(decoded.refusal.text, "user.UserGetRequest"));
}

Test(rpc_message, a_message_that_unpacks_to_too_much_is_refused)
{
    uint8_t bytes[LIMIT_BYTES];
    for (size_t i = 0; i < sizeof(bytes); i += 2)
        memcpy(
            bytes + i, "\x78\x01", 2); /* field 15, unknown: each costs many times its two bytes */
    struct decoded decoded;
    decode(&decoded, &user__user_get_request__descriptor, bytes, sizeof(bytes), GRPC_COMPRESS_NONE);
    cr_assert_null(decoded.message);
    cr_assert_eq(decoded.refusal.status, GRPC_STATUS_RESOURCE_EXHAUSTED);
    rpc_arena_reset(&decoded.arena);
}

static bool is_valid_username(const char *username, size_t length)
{
    uint8_t bytes[64] = {0x12, (uint8_t)length};
    memcpy(bytes + 2, username, length);
    return rpc_message_has_valid_text(&user__user_update_request__descriptor, bytes, length + 2);
}

Test(rpc_message, texts_are_utf8_without_nul)
{
    static const struct {
        const char *text;
        bool is_valid;
    } cases[] = {
        {"", true},
        {"neo", true},
        {"n\xc3\xa9o", true},
        {"\xe2\x82\xac \xf0\x9f\x98\x80 \xf4\x8f\xbf\xbf", true},
        {"\xc3", false},             /* cut */
        {"\xc3(", false},            /* no continuation */
        {"\x80", false},             /* stray continuation */
        {"\xc0\xaf", false},         /* over-long */
        {"\xe0\x80\xaf", false},     /* over-long */
        {"\xf0\x80\x80\xaf", false}, /* over-long */
        {"\xed\xa0\x80", false},     /* surrogate */
        {"\xf4\x90\x80\x80", false}, /* above U+10FFFF */
        {"\xff", false},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++)
        cr_assert_eq(is_valid_username(cases[i].text, strlen(cases[i].text)), cases[i].is_valid,
            "case %zu", i);
    cr_assert(!is_valid_username("a\0b", 3));
}

Test(rpc_message, looks_into_nested_messages)
{
    /* users { key: 1 value: "\xff" } */
    static const uint8_t bytes[] = {0x0a, 0x05, 0x08, 0x01, 0x12, 0x01, 0xff};
    cr_assert(!rpc_message_has_valid_text(
        &user_post__users_map_response__descriptor, bytes, sizeof(bytes)));
}

Test(rpc_message, packs_into_one_slice)
{
    User__UserOutResponse response;
    user__user_out_response__init(&response);
    char username[] = "neo";
    response.username = username;
    grpc_slice slice = rpc_message_encode(&response.base);
    cr_assert_eq(GRPC_SLICE_LENGTH(slice), 5);
    cr_assert_eq(memcmp(GRPC_SLICE_START_PTR(slice), "\x0a\x03neo", 5), 0);
    grpc_slice_unref(slice);
}
