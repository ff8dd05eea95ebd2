/* The dead-letter topic as a one-shot command reads it, and the note of which of its letters have
 * been handled: what the group "GROUP.dead_letters" has committed, stretches above the position in
 * the commit's metadata. The topic itself is never changed; its retention clears it.
 *
 * Everything has a deadline and looks after `is_over` in between. Failures are logged here. Nothing
 * is closed by the command: librdkafka could wait for a hung broker, and the process ends with it.
 */
#ifndef USERD_EVENTD_DEAD_LETTER_TOPIC_H
#define USERD_EVENTD_DEAD_LETTER_TOPIC_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>

#include "common/attributes.h"
#include "common/settings.h"
#include "eventd/handled_offsets.h"

struct dead_letter_partition {
    int32_t number;
    int64_t low;  /* the earliest that there is */
    int64_t high; /* the first that was not there when we looked */
    struct handled_offsets handled;
    bool is_noted;   /* the group has committed something */
    bool is_changed; /* `handled` is to be committed */
};

struct dead_letter_topic {
    const char *name;
    rd_kafka_t *consumer;
    struct dead_letter_partition *partitions; /* owned */
    size_t partition_count;
    bool (*is_over)(void *userdata); /* the command was told to end */
    void *userdata;
};

/* Positive or negative: ends the scan and is its result. */
typedef int dead_letter_handler(
    struct dead_letter_partition *partition, const rd_kafka_message_t *message, void *userdata);

/* `name`, `is_over` and `userdata` are set by the caller. -EINVAL: the configuration is refused;
 * -ENOENT: there is no such topic, or this client may not see it; -ETIMEDOUT: Kafka does not
 * answer; -ECANCELED. */
MUST_CHECK int dead_letter_topic_open(
    struct dead_letter_topic *topic, const struct settings *settings);
struct dead_letter_partition *dead_letter_topic_find(
    struct dead_letter_topic *topic, int32_t number);
/* Letters from `first` on and before `end`, in order. 0, what the handler ended it with, or as
 * dead_letter_topic_open(). */
MUST_CHECK int dead_letter_topic_scan(struct dead_letter_topic *topic,
    struct dead_letter_partition *partition, const int64_t range[2], dead_letter_handler *handler,
    void *userdata);
/* Notes what is handled, together with what others have noted meanwhile. */
MUST_CHECK int dead_letter_topic_commit(struct dead_letter_topic *topic);
/* Notes again what is noted, so that Kafka does not forget it; how many partitions have a note. */
MUST_CHECK int dead_letter_topic_renew(struct dead_letter_topic *topic, size_t *ret_partitions);
/* Closes the client, which may wait for a broker that hangs: for a process that goes on. */
void dead_letter_topic_cleanup(struct dead_letter_topic *topic);

#endif
