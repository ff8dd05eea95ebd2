/* One partition that is being consumed: its queue, the records that are held, and its window.
 *
 * Owns the queue and the records. Back-pressure is not reading: what is not asked for stays in
 * librdkafka's bounded queues.
 */
#ifndef USERD_EVENTD_CONSUMED_PARTITION_H
#define USERD_EVENTD_CONSUMED_PARTITION_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>

#include "common/attributes.h"
#include "eventd/consumer_start.h"
#include "eventd/deliver_batch.h"
#include "eventd/log_audit.h"
#include "eventd/partition_window.h"

/* A batch that is not answered by then is sent again. */
#define CONSUMED_PARTITION_ANSWER_US UINT64_C(60000000)

struct consumed_partition {
    char *topic; /* owned */
    int32_t number;
    Userd__Ipc__EventKind kind;
    rd_kafka_queue_t *queue; /* owned */
    struct partition_window window;
    struct audited_log *log; /* the audit's */
    struct log_mark last;    /* the last record of the batch in flight */
    struct held_record *
        held; /* owned; window.held of them, in a ring of no turns: moved down when some are done */
    int64_t next_offset;  /* to be read: everything below has been held or is not ours */
    int64_t committed;    /* Kafka has it; -1: nothing yet */
    uint64_t batch_id;    /* of the batch in flight */
    uint64_t peer_serial; /* whose it is */
    uint64_t sent_us;
};

/* What opening and reading need. */
struct consumed_partition_options {
    rd_kafka_t *consumer;
    const char *registration_topic;
    size_t batch_records; /* that are held at most */
    int wake_fd;          /* written when the queue is no longer empty */
    struct log_audit *audit;
};

/* -ENOMEM; consumed_partition_close() is due in any case. */
MUST_CHECK int consumed_partition_open(struct consumed_partition *partition,
    const struct consumer_start *start, const struct consumed_partition_options *options);
void consumed_partition_close(struct consumed_partition *partition);

/* Reads until a batch's worth of records is held or nothing is there; returns how many were read.
 * *ret_error: what kept one from being read, untouched when nothing did. */
size_t consumed_partition_read(
    struct consumed_partition *partition, size_t batch_records, rd_kafka_resp_err_t *ret_error);
/* The first `count` of `held_before` records are done. */
void consumed_partition_let_go(
    struct consumed_partition *partition, size_t count, size_t held_before);
/* When it next needs a look without anything happening; UINT64_MAX: never. */
uint64_t consumed_partition_next_look_us(const struct consumed_partition *partition);

#endif
