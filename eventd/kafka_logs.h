/* What Kafka says of partitions' logs: how far they reach, what is at given offsets, and what the
 * group has committed.
 *
 * Each partition has its own answer, or its own error: one without a leader, or closed to us, says
 * nothing about the others. Waits for brokers, within time limits: for the thread of kafka_asker.
 */
#ifndef USERD_EVENTD_KAFKA_LOGS_H
#define USERD_EVENTD_KAFKA_LOGS_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/attributes.h"
#include "common/settings.h"
#include "eventd/commit_note.h"
#include "eventd/log_mark.h"

#define KAFKA_LOG_LOOKS 2 /* offsets that can be looked at in one question */

struct kafka_log {
    char *topic; /* owned */
    int32_t partition;
    int64_t looks_at[KAFKA_LOG_LOOKS]; /* whose records are wanted; -1: none */
    /* The answer. Nothing below means anything when `error` is set. */
    rd_kafka_resp_err_t error;
    struct log_extent extent;
    struct log_mark found[KAFKA_LOG_LOOKS]; /* offset -1: nothing is there, or not asked for */
    int64_t committed;                      /* -1: nothing, or not asked for */
    char note[COMMIT_NOTE_SIZE];            /* the metadata of that commit; cut at the size */
    size_t note_length;
    /* private while it is asked */
    int32_t leader;
};

/* One for each of the partitions, nothing looked at; the caller's to free. NULL: no memory. */
struct kafka_log *kafka_logs_new(const rd_kafka_topic_partition_list_t *partitions);
void kafka_logs_free(struct kafka_log *logs, size_t count);

/* A consumer of its own that reads single records. Used by one thread. */
struct log_probe;

/* -EINVAL, logged, when librdkafka refuses the configuration. */
MUST_CHECK int log_probe_new(const struct settings *settings, struct log_probe **ret_probe);
/* Answers what the logs are asked to look at, and what is the earliest where something is not
 * there. Those that have an error already are left alone. */
void log_probe_look(struct log_probe *probe, struct kafka_log *logs, size_t count);

/* Answers all. `client` asks everything but what is looked at, for which there is `probe`. */
void kafka_logs_ask(rd_kafka_t *client, struct log_probe *probe, bool with_commits,
    struct kafka_log *logs, size_t count);

#endif
