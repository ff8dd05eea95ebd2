#include "worker/rpc/rpc_frames.h"

#include <errno.h>
#include <string.h>

#define PREFACE_BYTES 24 /* RFC 9113, section 3.4 */

/* RFC 9113, section 6 */
#define FRAME_DATA         0
#define FRAME_HEADERS      1
#define FRAME_RST_STREAM   3
#define FRAME_SETTINGS     4
#define FRAME_CONTINUATION 9
#define FLAG_ACK           0x1
#define FLAG_END_STREAM    0x1
#define FLAG_END_HEADERS   0x4

/* Who opens so many streams for each that he takes back has most of them answered. */
#define HEADERS_FOR_RESET 5

/* The C core keeps this much of a header field, which may be one byte in its frame; and no more
 * fields of a frame than fit into the size that we tell, with 32 bytes for each and no empty ones.
 */
#define FIELD_BYTES     64
#define FIELDS_OF_FRAME 496

#define SETTINGS_BYTES 60 /* ten parameters: no client sends more of them in a frame */

void rpc_frames_init(struct rpc_frames *frames)
{
    *frames = (struct rpc_frames){.skip = PREFACE_BYTES};
}

void rpc_frames_cleanup(struct rpc_frames *frames)
{
    rpc_messages_cleanup(&frames->messages);
    rpc_open_requests_cleanup(&frames->open);
}

static uint32_t length_of(const uint8_t *head)
{
    return (uint32_t)head[0] << 16 | (uint32_t)head[1] << 8 | head[2];
}

static uint32_t stream_of(const uint8_t *head)
{
    return (uint32_t)(head[5] & 0x7f) << 24 | (uint32_t)head[6] << 16 | (uint32_t)head[7] << 8 |
           head[8];
}

/* What the call may hold of this frame's fields until its request is here. */
static void add_fields(struct rpc_frames *frames, uint32_t length)
{
    uint32_t fields = length < FIELDS_OF_FRAME ? length : FIELDS_OF_FRAME;
    rpc_open_requests_add(&frames->open, stream_of(frames->head), fields * FIELD_BYTES);
}

/* Judged by what the head promises: nothing of a frame too many reaches the C core's parser. */
static enum rpc_frames_verdict add_to_block(
    struct rpc_frames *frames, const struct rpc_frames_limits *limits, uint32_t length)
{
    frames->block_bytes += length; /* 24 bits each, and few of them */
    frames->block_frames++;
    if (frames->block_bytes > limits->block_bytes || frames->block_frames > limits->block_frames)
        return RPC_FRAMES_BLOCK;
    add_fields(frames, length);
    if ((frames->head[4] & FLAG_END_HEADERS) != 0)
        frames->block_frames = 0;
    return RPC_FRAMES_FINE;
}

/* A stream whose request is to come, unless this is its end. */
static enum rpc_frames_verdict begin_request(
    struct rpc_frames *frames, const struct rpc_frames_limits *limits)
{
    uint32_t stream = stream_of(frames->head);
    if ((frames->head[4] & FLAG_END_STREAM) != 0) {
        rpc_open_requests_end(&frames->open, stream);
        return RPC_FRAMES_FINE;
    }
    switch (rpc_open_requests_begin(&frames->open, stream, limits->open_requests, frames->now_ms)) {
    case 0:
        return RPC_FRAMES_FINE;
    case -ENOSPC:
        return RPC_FRAMES_OPEN_REQUESTS;
    default:
        return RPC_FRAMES_MEMORY;
    }
}

static enum rpc_frames_verdict begin_block(
    struct rpc_frames *frames, const struct rpc_frames_limits *limits, uint32_t length)
{
    frames->block_bytes = 0;
    frames->block_frames = 0;
    frames->headers++;
    if (!frames->has_acknowledged && ++frames->streams > limits->streams)
        return RPC_FRAMES_STREAMS;
    enum rpc_frames_verdict verdict = begin_request(frames, limits);
    return verdict == RPC_FRAMES_FINE ? add_to_block(frames, limits, length) : verdict;
}

/* Each is answered, and each of its parameters is worked through. */
static enum rpc_frames_verdict add_settings(
    struct rpc_frames *frames, const struct rpc_frames_limits *limits, uint32_t length)
{
    frames->settings += 1 + length / SETTINGS_BYTES;
    return limits->settings > 0 && frames->settings > limits->settings ? RPC_FRAMES_SETTINGS
                                                                       : RPC_FRAMES_FINE;
}

/* All of a frame's contents have come. */
static enum rpc_frames_verdict end_frame(
    struct rpc_frames *frames, const struct rpc_frames_limits *limits)
{
    if (!frames->is_data)
        return RPC_FRAMES_FINE;
    frames->is_data = false;
    bool is_last = (frames->head[4] & FLAG_END_STREAM) != 0;
    uint32_t stream = stream_of(frames->head);
    uint32_t length = length_of(frames->head);
    /* A frame that has contents and ends between two messages has ended one. */
    if (is_last || (length > 0 && frames->messages.now.prefix == 0))
        rpc_open_requests_end(&frames->open, stream);
    else
        rpc_open_requests_add(&frames->open, stream, length);
    return rpc_messages_end_frame(&frames->messages, is_last, limits->half_messages) == 0
               ? RPC_FRAMES_FINE
               : RPC_FRAMES_MEMORY;
}

static enum rpc_frames_verdict read_head(
    struct rpc_frames *frames, const struct rpc_frames_limits *limits)
{
    const uint8_t *head = frames->head;
    uint32_t length = length_of(head);
    frames->skip = length;
    frames->head_length = 0;
    if (head[3] == FRAME_HEADERS)
        return begin_block(frames, limits, length);
    if (head[3] == FRAME_CONTINUATION)
        return add_to_block(frames, limits, length);
    /* With other flags, padding among them, the C core ends the connection. */
    if (head[3] == FRAME_DATA && (head[4] & ~FLAG_END_STREAM) == 0) {
        rpc_messages_begin_frame(&frames->messages, stream_of(head));
        frames->is_data = true;
        return length == 0 ? end_frame(frames, limits) : RPC_FRAMES_FINE;
    }
    if (head[3] == FRAME_SETTINGS && (head[4] & FLAG_ACK) != 0)
        frames->has_acknowledged = true;
    else if (head[3] == FRAME_SETTINGS)
        return add_settings(frames, limits, length);
    if (head[3] == FRAME_RST_STREAM) {
        rpc_messages_forget(&frames->messages, stream_of(head));
        rpc_open_requests_end(&frames->open, stream_of(head));
        uint64_t allowed =
            limits->resets + (frames->headers - frames->headers_then) / HEADERS_FOR_RESET;
        if (limits->resets > 0 && ++frames->resets > allowed)
            return RPC_FRAMES_RESETS;
    }
    return RPC_FRAMES_FINE;
}

/* The next bytes of a frame's contents. */
static enum rpc_frames_verdict read_contents(struct rpc_frames *frames,
    const struct rpc_frames_limits *limits, const uint8_t *bytes, size_t length)
{
    frames->skip -= (uint32_t)length;
    if (frames->is_data && !rpc_messages_follow(&frames->messages, bytes, length))
        return RPC_FRAMES_MESSAGE_FLAG;
    return frames->skip == 0 ? end_frame(frames, limits) : RPC_FRAMES_FINE;
}

enum rpc_frames_verdict rpc_frames_follow(struct rpc_frames *frames,
    const struct rpc_frames_limits *limits, const void *bytes, size_t length)
{
    const uint8_t *next = bytes;
    enum rpc_frames_verdict verdict = RPC_FRAMES_FINE;
    while (length > 0 && verdict == RPC_FRAMES_FINE) {
        size_t taken = 0;
        if (frames->skip > 0) {
            taken = length < frames->skip ? length : frames->skip;
            verdict = read_contents(frames, limits, next, taken);
        } else {
            size_t missing = (size_t)RPC_FRAMES_HEAD_BYTES - frames->head_length;
            taken = length < missing ? length : missing;
            memcpy(frames->head + frames->head_length, next, taken);
            frames->head_length += (uint8_t)taken;
            if (frames->head_length == RPC_FRAMES_HEAD_BYTES)
                verdict = read_head(frames, limits);
        }
        next += taken;
        length -= taken;
    }
    return verdict;
}

const char *rpc_frames_verdict_name(enum rpc_frames_verdict verdict)
{
    static const char *const names[] = {
        [RPC_FRAMES_FINE] = "none",
        [RPC_FRAMES_BLOCK] = "header_block",
        [RPC_FRAMES_STREAMS] = "streams",
        [RPC_FRAMES_RESETS] = "resets",
        [RPC_FRAMES_MESSAGE_FLAG] = "message_flag",
        [RPC_FRAMES_SETTINGS] = "settings",
        [RPC_FRAMES_OPEN_REQUESTS] = "open_requests",
        [RPC_FRAMES_MEMORY] = "memory",
    };
    return names[verdict];
}
