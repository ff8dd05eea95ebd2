/* What tells a record of a partition from any other that could be at its offset: shows whether the
 * partition's log is still the one that a position was taken in. Pure logic. */
#ifndef USERD_EVENTD_LOG_MARK_H
#define USERD_EVENTD_LOG_MARK_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct log_mark {
    int64_t offset;       /* -1: there is no mark */
    int64_t timestamp_ms; /* the record's, as Kafka has it */
    int64_t checksum;     /* of key and value; never 0 */
};

/* A partition's log as the broker has it now. */
struct log_extent {
    int64_t low;  /* the earliest offset */
    int64_t high; /* behind the last one */
    struct log_mark
        earliest; /* the first record; only where one that was looked for is not there */
};

#define LOG_MARK_NONE ((struct log_mark){.offset = -1})

/* NULL and a length of 0 are not the same. Never 0. */
int64_t log_mark_checksum(const void *key, size_t key_length, const void *value, size_t length);
struct log_mark log_mark_of(const rd_kafka_message_t *message);
/* False: `mark` was a record of the log that the partition had before. `found` is what is at the
 * mark's offset now; its offset is -1 where there is nothing. What has expired or been compacted
 * away proves nothing. True when there is no mark. */
bool log_mark_fits(
    const struct log_mark *mark, const struct log_mark *found, const struct log_extent *extent);

#endif
