#include "worker/rpc/rpc_messages.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define PREFIX_BYTES    5
#define FLAG_COMPRESSED 1 /* the highest flag that there is */
#define CAPACITY_START  16

void rpc_messages_cleanup(struct rpc_messages *messages)
{
    free(messages->places);
    *messages = (struct rpc_messages){0};
}

/* ---- the table: open addressing, at most half full ---- */

static uint32_t home_of(const struct rpc_messages *messages, uint32_t stream)
{
    /* The client chooses the numbers of its streams: without a secret it could make them collide.
     */
    uint64_t mixed = (stream ^ messages->secret) * UINT64_C(0xbf58476d1ce4e5b9);
    mixed = (mixed ^ mixed >> 31) * (messages->secret | 1);
    return (uint32_t)(mixed >> 32) & (messages->capacity - 1);
}

/* The stream's place, or the free one that it would get. */
static uint32_t find(const struct rpc_messages *messages, uint32_t stream)
{
    uint32_t i = home_of(messages, stream);
    while (messages->places[i].stream != 0 && messages->places[i].stream != stream)
        i = (i + 1) & (messages->capacity - 1);
    return i;
}

static void insert(struct rpc_messages *messages, const struct rpc_messages_place *place)
{
    uint32_t i = find(messages, place->stream);
    messages->count += messages->places[i].stream == 0 ? 1 : 0;
    messages->places[i] = *place;
}

/* Those behind it move up, so that none is behind a gap. */
static void remove_at(struct rpc_messages *messages, uint32_t gap)
{
    uint32_t mask = messages->capacity - 1;
    messages->count--;
    for (uint32_t i = (gap + 1) & mask; messages->places[i].stream != 0; i = (i + 1) & mask) {
        uint32_t home = home_of(messages, messages->places[i].stream);
        if (((i - home) & mask) >= ((i - gap) & mask)) {
            messages->places[gap] = messages->places[i];
            gap = i;
        }
    }
    messages->places[gap] = (struct rpc_messages_place){0};
}

static int grow(struct rpc_messages *messages)
{
    struct rpc_messages larger = {
        .capacity = messages->capacity == 0 ? CAPACITY_START : messages->capacity * 2,
        .secret = messages->secret,
    };
    if (larger.secret == 0 && getrandom(&larger.secret, sizeof(larger.secret), 0) < 0)
        return -errno;
    larger.places = calloc(larger.capacity, sizeof(*larger.places));
    if (larger.places == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < messages->capacity; i++) {
        if (messages->places[i].stream != 0)
            insert(&larger, &messages->places[i]);
    }
    free(messages->places);
    messages->places = larger.places;
    messages->capacity = larger.capacity;
    messages->secret = larger.secret;
    return 0;
}

/* Streams that the server has ended in the middle of a message stay here, since their client may
 * say nothing more of them. They are older than those that are open. */
static void drop_oldest(struct rpc_messages *messages)
{
    uint32_t oldest = 0;
    uint32_t stream = UINT32_MAX;
    for (uint32_t i = 0; i < messages->capacity; i++) {
        if (messages->places[i].stream != 0 && messages->places[i].stream < stream) {
            oldest = i;
            stream = messages->places[i].stream;
        }
    }
    remove_at(messages, oldest);
}

static int remember(struct rpc_messages *messages, uint32_t limit)
{
    if (messages->count >= limit)
        drop_oldest(messages);
    if (messages->count * 2 >= messages->capacity) {
        int error = grow(messages);
        if (error < 0)
            return error;
    }
    insert(messages, &messages->now);
    return 0;
}

void rpc_messages_forget(struct rpc_messages *messages, uint32_t stream)
{
    if (messages->count == 0)
        return;
    uint32_t i = find(messages, stream);
    if (messages->places[i].stream != 0)
        remove_at(messages, i);
}

/* ---- frames ---- */

void rpc_messages_begin_frame(struct rpc_messages *messages, uint32_t stream)
{
    messages->now = (struct rpc_messages_place){.stream = stream};
    if (messages->count == 0)
        return;
    uint32_t i = find(messages, stream);
    if (messages->places[i].stream == 0)
        return;
    messages->now = messages->places[i];
    remove_at(messages, i);
}

/* Reads the flag, or a byte of the length. */
static bool read_prefix(struct rpc_messages *messages, uint8_t byte)
{
    struct rpc_messages_place *now = &messages->now;
    if (now->prefix == 0) {
        messages->begun++;
        if (byte > FLAG_COMPRESSED)
            return false;
    } else {
        now->left = now->left << 8 | byte;
    }
    now->prefix++;
    if (now->prefix == PREFIX_BYTES && now->left == 0)
        now->prefix = 0; /* an empty message */
    return true;
}

bool rpc_messages_follow(struct rpc_messages *messages, const uint8_t *bytes, size_t length)
{
    struct rpc_messages_place *now = &messages->now;
    while (length > 0) {
        size_t taken = 1;
        if (now->prefix < PREFIX_BYTES) {
            if (!read_prefix(messages, bytes[0]))
                return false;
        } else {
            taken = length < now->left ? length : now->left;
            now->left -= (uint32_t)taken;
            if (now->left == 0)
                now->prefix = 0;
        }
        bytes += taken;
        length -= taken;
    }
    return true;
}

int rpc_messages_end_frame(struct rpc_messages *messages, bool is_last_of_stream, uint32_t limit)
{
    /* Stream 0 has no DATA: the C core refuses it. */
    if (is_last_of_stream || messages->now.prefix == 0 || messages->now.stream == 0)
        return 0;
    return remember(messages, limit);
}
