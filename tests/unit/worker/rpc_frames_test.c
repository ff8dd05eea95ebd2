/* What is followed of a client's frames, however they are cut up, and where it ends. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "worker/rpc/rpc_frames.h"

#define DATA         0
#define HEADERS      1
#define RST_STREAM   3
#define SETTINGS     4
#define CONTINUATION 9
#define ACK          0x1
#define END_STREAM   0x1
#define END_HEADERS  0x4
#define PADDED       0x8

static const struct rpc_frames_limits limits = {.block_bytes = 1000,
    .block_frames = 4,
    .streams = 10,
    .resets = 20,
    .settings = 30,
    .open_requests = 16,
    .half_messages = 8};

/* What a client sends. */
struct script {
    unsigned char bytes[65536];
    size_t length;
};

static struct script *begin(void)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    struct script *script = calloc(1, sizeof(*script));
    cr_assert_not_null(script);
    script->length = sizeof(preface) - 1;
    memcpy(script->bytes, preface, script->length);
    return script;
}

static void say(struct script *script, unsigned char type, unsigned char flags, size_t length)
{
    unsigned char head[RPC_FRAMES_HEAD_BYTES] = {(unsigned char)(length >> 16),
        (unsigned char)(length >> 8), (unsigned char)length, type, flags};
    cr_assert_leq(script->length + sizeof(head) + length, sizeof(script->bytes));
    memcpy(script->bytes + script->length, head, sizeof(head));
    script->length += sizeof(head);
    /* Looks like a head of HEADERS wherever one looks. */
    memset(script->bytes + script->length, HEADERS, length);
    script->length += length;
}

/* In pieces of so many bytes; ends the script. */
static enum rpc_frames_verdict follow(struct script *script, size_t piece)
{
    struct rpc_frames frames;
    enum rpc_frames_verdict verdict = RPC_FRAMES_FINE;
    rpc_frames_init(&frames);
    for (size_t i = 0; i < script->length && verdict == RPC_FRAMES_FINE; i += piece) {
        size_t length = script->length - i < piece ? script->length - i : piece;
        verdict = rpc_frames_follow(&frames, &limits, script->bytes + i, length);
    }
    rpc_frames_cleanup(&frames);
    return verdict;
}

/* The same in pieces of all kinds of sizes. */
static void then(struct script *script, enum rpc_frames_verdict verdict)
{
    static const size_t pieces[] = {1, 2, 3, 7, 9, 10, 100, 65536};
    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++)
        cr_assert_eq(follow(script, pieces[i]), verdict, "in pieces of %zu", pieces[i]);
    free(script);
}

Test(rpc_frames, lets_calls_be)
{
    struct script *script = begin();
    say(script, SETTINGS, 0, 12);
    say(script, HEADERS, END_HEADERS, 300);
    say(script, SETTINGS, ACK, 0);
    for (int i = 0; i < 100; i++) {
        say(script, HEADERS, END_HEADERS, 30);
        say(script, DATA, 0, 20);
    }
    then(script, RPC_FRAMES_FINE);
}

Test(rpc_frames, lets_a_block_have_its_frames)
{
    struct script *script = begin();
    for (int i = 0; i < 10; i++) {
        say(script, HEADERS, 0, 400);
        say(script, CONTINUATION, 0, 300);
        say(script, CONTINUATION, 0, 300);
        say(script, CONTINUATION, END_HEADERS, 0);
    }
    then(script, RPC_FRAMES_FINE);
}

Test(rpc_frames, ends_a_block_of_too_many_frames)
{
    struct script *script = begin();
    say(script, HEADERS, 0, 10);
    for (int i = 0; i < 4; i++)
        say(script, CONTINUATION, 0, 5);
    then(script, RPC_FRAMES_BLOCK);
}

Test(rpc_frames, ends_a_block_of_too_many_bytes)
{
    struct script *script = begin();
    say(script, HEADERS, 0, 900);
    say(script, CONTINUATION, 0, 101);
    then(script, RPC_FRAMES_BLOCK);
}

Test(rpc_frames, ends_a_frame_that_is_too_large_before_it_comes)
{
    struct script *script = begin();
    say(script, HEADERS, END_HEADERS, 1001);
    script->length -= 1001;
    then(script, RPC_FRAMES_BLOCK);
}

Test(rpc_frames, ends_frames_that_continue_nothing)
{
    struct script *script = begin();
    say(script, SETTINGS, ACK, 0);
    for (int i = 0; i < 5; i++)
        say(script, CONTINUATION, 0, 1);
    then(script, RPC_FRAMES_BLOCK);
}

Test(rpc_frames, ends_streams_of_who_has_not_acknowledged)
{
    struct script *script = begin();
    for (int i = 0; i < 10; i++)
        say(script, HEADERS, END_HEADERS, 30);
    say(script, SETTINGS, 0, 0);
    say(script, HEADERS, END_HEADERS, 30);
    then(script, RPC_FRAMES_STREAMS);
}

static struct script *begin_resets(int count)
{
    struct script *script = begin();
    say(script, SETTINGS, ACK, 0);
    for (int i = 0; i < count; i++) {
        say(script, HEADERS, END_HEADERS, 30);
        say(script, RST_STREAM, 0, 4);
    }
    return script;
}

Test(rpc_frames, lets_streams_be_taken_back)
{
    then(begin_resets(20), RPC_FRAMES_FINE);
}

Test(rpc_frames, ends_too_many_resets)
{
    then(begin_resets(21 + 21 / 5 + 1), RPC_FRAMES_RESETS);
}

Test(rpc_frames, knows_no_bound_of_resets_where_there_is_none)
{
    struct rpc_frames frames;
    struct rpc_frames_limits boundless = limits;
    struct script *script = begin_resets(1000);
    boundless.resets = 0;
    rpc_frames_init(&frames);
    enum rpc_frames_verdict verdict =
        rpc_frames_follow(&frames, &boundless, script->bytes, script->length);
    cr_assert_eq(verdict, RPC_FRAMES_FINE);
    rpc_frames_cleanup(&frames);
    free(script);
}

/* ---- open requests and settings ---- */

static void say_on(struct script *script, unsigned char type, unsigned char flags,
    unsigned int stream, size_t length)
{
    say(script, type, flags, length);
    unsigned char *frame = script->bytes + script->length - length - RPC_FRAMES_HEAD_BYTES;
    for (int i = 0; i < 4; i++)
        frame[5 + i] = (unsigned char)(stream >> (24 - 8 * i));
}

/* So many calls without a message, between many that are whole, empty or taken back. */
static struct script *begin_open_requests(unsigned int count)
{
    struct script *script = begin();
    say(script, SETTINGS, ACK, 0);
    unsigned int stream = 1;
    for (unsigned int i = 0; i < count; i++) {
        say_on(script, HEADERS, END_HEADERS, stream, 20);
        say_on(script, DATA, 0, stream, 0); /* is no message */
        stream += 2;
        say_on(script, HEADERS, END_HEADERS | END_STREAM, stream, 20);
        stream += 2;
        say_on(script, HEADERS, END_HEADERS, stream, 20);
        say_on(script, DATA, END_STREAM, stream, 0);
        stream += 2;
        say_on(script, HEADERS, END_HEADERS, stream, 20);
        say_on(script, DATA, 0, stream, 5);
        memset(script->bytes + script->length - 5, 0, 5); /* an empty message */
        stream += 2;
        if (i % 4 != 0)
            continue;
        say_on(script, HEADERS, END_HEADERS, stream, 20);
        say_on(script, RST_STREAM, 0, stream, 4);
        stream += 2;
    }
    return script;
}

Test(rpc_frames, lets_so_many_requests_be_open)
{
    then(begin_open_requests(15), RPC_FRAMES_FINE);
}

Test(rpc_frames, ends_too_many_open_requests)
{
    then(begin_open_requests(17), RPC_FRAMES_OPEN_REQUESTS);
}

static uint64_t open_bytes_after(const struct script *script)
{
    struct rpc_frames frames;
    rpc_frames_init(&frames);
    cr_assert_eq(
        rpc_frames_follow(&frames, &limits, script->bytes, script->length), RPC_FRAMES_FINE);
    uint64_t bytes = frames.open.bytes;
    rpc_frames_cleanup(&frames);
    return bytes;
}

/* A byte of a block may be a field, which takes many bytes once it is unpacked. */
Test(rpc_frames, counts_the_fields_of_open_requests)
{
    struct script *script = begin();
    say(script, SETTINGS, ACK, 0);
    say_on(script, HEADERS, 0, 1, 400);
    say_on(script, CONTINUATION, END_HEADERS, 1, 500);
    say_on(script, HEADERS, END_HEADERS | END_STREAM, 3, 400); /* is not open */
    uint64_t bytes = open_bytes_after(script);
    cr_assert_geq(bytes, 800 * 64);
    cr_assert_lt(bytes, 900 * 64); /* no frame has 500 fields */
    say_on(script, RST_STREAM, 0, 1, 4);
    cr_assert_eq(open_bytes_after(script), 0);
    free(script);
}

/* Ten parameters count as one frame more. */
static struct script *begin_settings(unsigned int count, size_t length)
{
    struct script *script = begin();
    for (unsigned int i = 0; i < count; i++) {
        say(script, SETTINGS, 0, length);
        say(script, SETTINGS, ACK, 0);
    }
    return script;
}

Test(rpc_frames, bounds_settings)
{
    then(begin_settings(30, 12), RPC_FRAMES_FINE);
    then(begin_settings(31, 12), RPC_FRAMES_SETTINGS);
    then(begin_settings(10, 179), RPC_FRAMES_FINE);
    then(begin_settings(11, 179), RPC_FRAMES_SETTINGS);
}

/* ---- messages ---- */

static void say_data(struct script *script, unsigned int stream, unsigned char flags,
    const unsigned char *data, size_t length)
{
    say_on(script, DATA, flags, stream, length);
    if (length > 0)
        memcpy(script->bytes + script->length - length, data, length);
}

/* Two whole messages of seven bytes, and one that is empty; their contents look like bad flags. */
static const unsigned char messages[] = {
    0, 0, 0, 0, 7, 9, 9, 9, 9, 9, 9, 9, 1, 0, 0, 0, 7, 8, 8, 8, 8, 8, 8, 8, 0, 0, 0, 0, 0};
#define MESSAGES_BYTES sizeof(messages)
static const unsigned char bad[] = {2, 0, 0, 0, 0};

/* Many streams at a time, each of whose frames has so many bytes of its messages. */
static void interleave(size_t frame, unsigned int streams, enum rpc_frames_verdict verdict)
{
    struct script *script = begin();
    for (size_t at = 0; at < MESSAGES_BYTES; at += frame) {
        size_t length = MESSAGES_BYTES - at < frame ? MESSAGES_BYTES - at : frame;
        for (unsigned int i = 0; i < streams; i++)
            say_data(script, i * 2 + 1, 0, messages + at, length);
    }
    if (verdict != RPC_FRAMES_FINE)
        say_data(script, 3, END_STREAM, bad, sizeof(bad));
    then(script, verdict);
}

Test(rpc_frames, follows_messages_however_they_are_cut)
{
    for (size_t frame = 1; frame <= MESSAGES_BYTES; frame++) {
        interleave(frame, 8, RPC_FRAMES_FINE);
        interleave(frame, 8, RPC_FRAMES_MESSAGE_FLAG);
    }
}

Test(rpc_frames, knows_no_flag_but_0_and_1)
{
    for (unsigned int flag = 0; flag < 256; flag++) {
        const unsigned char data[] = {(unsigned char)flag, 0, 0, 0, 1, 0xff};
        struct script *script = begin();
        say_data(script, 1, END_STREAM, data, sizeof(data));
        then(script, flag < 2 ? RPC_FRAMES_FINE : RPC_FRAMES_MESSAGE_FLAG);
    }
}

Test(rpc_frames, finds_a_bad_flag_in_any_message_of_a_frame)
{
    unsigned char data[MESSAGES_BYTES + 1];
    memcpy(data, messages, MESSAGES_BYTES);
    data[MESSAGES_BYTES] = 128;
    struct script *script = begin();
    say_data(script, 1, 0, data, sizeof(data));
    then(script, RPC_FRAMES_MESSAGE_FLAG);
}

Test(rpc_frames, begins_anew_with_a_stream_that_has_ended)
{
    struct script *script = begin();
    say_data(script, 1, END_STREAM, messages, 7);
    say_data(script, 1, END_STREAM, messages, MESSAGES_BYTES);
    say_data(script, 3, 0, messages, 3);
    say(script, RST_STREAM, 0, 4);
    script->bytes[script->length - 5] = 3;
    say_data(script, 3, END_STREAM, messages, MESSAGES_BYTES);
    say_data(script, 5, 0, messages, 3);
    say_data(script, 5, END_STREAM, NULL, 0);
    say_data(script, 5, 0, messages, MESSAGES_BYTES);
    then(script, RPC_FRAMES_FINE);
}

/* The server ended them, of which nothing is seen here. */
Test(rpc_frames, forgets_the_oldest_of_too_many_half_messages)
{
    struct script *script = begin();
    for (unsigned int i = 0; i < 1000; i++)
        say_data(script, i * 2 + 1, 0, messages, 7);
    for (unsigned int i = 992; i < 1000; i++)
        say_data(script, i * 2 + 1, 0, messages + 7, MESSAGES_BYTES - 7);
    then(script, RPC_FRAMES_FINE);
}

Test(rpc_frames, leaves_padded_data_to_the_c_core)
{
    struct script *script = begin();
    say_data(script, 1, PADDED, bad, sizeof(bad));
    say_data(script, 1, END_STREAM, messages, MESSAGES_BYTES);
    then(script, RPC_FRAMES_FINE);
}

Test(rpc_frames, counts_calls_and_messages)
{
    struct rpc_frames frames;
    struct script *script = begin();
    say(script, SETTINGS, ACK, 0);
    for (unsigned int i = 0; i < 3; i++) {
        say(script, HEADERS, END_HEADERS, 10);
        say_data(script, i * 2 + 1, END_STREAM, messages, MESSAGES_BYTES);
    }
    rpc_frames_init(&frames);
    cr_assert_eq(
        rpc_frames_follow(&frames, &limits, script->bytes, script->length), RPC_FRAMES_FINE);
    cr_assert_eq(frames.headers, 3);
    cr_assert_eq(frames.messages.begun, 9);
    rpc_frames_cleanup(&frames);
    free(script);
}
