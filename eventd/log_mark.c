#include "eventd/log_mark.h"

/* FNV-1a, 64 bits: nobody gains by a collision, who could make one could as well not send. */
#define FNV_BASIS UINT64_C(14695981039346656037)
#define FNV_PRIME UINT64_C(1099511628211)

static uint64_t add_bytes(uint64_t hash, const void *bytes, size_t length)
{
    const unsigned char *next = bytes;
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ next[i]) * FNV_PRIME;
    return hash;
}

/* The length goes first, so that nothing can move from the key to the value. */
static uint64_t add_field(uint64_t hash, const void *bytes, size_t length)
{
    uint64_t head = bytes == NULL ? 0 : (uint64_t)length + 1;
    for (unsigned int i = 0; i < sizeof(head); i++)
        hash = (hash ^ ((head >> (8 * i)) & 0xff)) * FNV_PRIME;
    return bytes == NULL ? hash : add_bytes(hash, bytes, length);
}

int64_t log_mark_checksum(const void *key, size_t key_length, const void *value, size_t length)
{
    uint64_t hash = add_field(add_field(FNV_BASIS, key, key_length), value, length);
    return hash == 0 ? 1 : (int64_t)hash;
}

struct log_mark log_mark_of(const rd_kafka_message_t *message)
{
    rd_kafka_timestamp_type_t type = RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    return (struct log_mark){
        .offset = message->offset,
        .timestamp_ms = rd_kafka_message_timestamp(message, &type),
        .checksum =
            log_mark_checksum(message->key, message->key_len, message->payload, message->len),
    };
}

bool log_mark_fits(
    const struct log_mark *mark, const struct log_mark *found, const struct log_extent *extent)
{
    if (mark->offset < 0 || mark->offset < extent->low)
        return true;
    if (mark->offset >= extent->high)
        return false;
    if (found->offset == mark->offset)
        return found->timestamp_ms == mark->timestamp_ms && found->checksum == mark->checksum;
    /* Compacted away, or the offset of a transaction's marker in a new log. What comes before it in
     * its own log is older than it is; a new log has only what was written later. */
    return extent->earliest.offset < 0 || extent->earliest.offset > mark->offset ||
           extent->earliest.timestamp_ms <= mark->timestamp_ms;
}
