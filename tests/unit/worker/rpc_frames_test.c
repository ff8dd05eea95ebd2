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
#define END_HEADERS  0x4

static const struct rpc_frames_limits limits = {
    .block_bytes = 1000, .block_frames = 4, .streams = 10, .resets = 20};

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
    then(begin_resets(21), RPC_FRAMES_RESETS);
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
    free(script);
}
