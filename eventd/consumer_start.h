/* Where the reading of a partition starts, given what PostgreSQL, the group and the broker say
 * about it. Logs what is out of the ordinary, and counts it.
 *
 * PostgreSQL's position wins, with these exceptions:
 * - The record below it is another one now, or the log ends before it: the log was made anew, and
 * is read from its start. So it is where a mark that this process has of the log does not fit.
 * - The group has committed a later offset, and not userd: another program has got further on this
 *   database, and its progress is taken.
 * - The records at the position have expired: the earliest one is next.
 * A later offset that userd has committed for this database shows that the database went back (a
 * restore, an asynchronous failover): what it has forgotten is read again. Then nothing that
 * anybody has committed counts, since nobody knows whether the database went back before or after
 * it.
 *
 * Effects are idempotent: reading twice does no harm, and not reading would lose records.
 */
#ifndef USERD_EVENTD_CONSUMER_START_H
#define USERD_EVENTD_CONSUMER_START_H

#include <librdkafka/rdkafka.h>

#include "common/attributes.h"
#include "common/scoreboard.h"
#include "eventd/commit_note.h"
#include "eventd/kafka_logs.h"
#include "eventd/worker_peers.h"

enum consumer_start_reason {
    START_STORED,    /* where PostgreSQL is */
    START_EARLIEST,  /* nothing is known of the partition */
    START_COMMITTED, /* nothing is stored: where another program is */
    START_FOREIGN,   /* another program is further than PostgreSQL */
    START_RECREATED, /* the log was made anew */
    START_EXPIRED,   /* what was to be read next has expired */
};

/* What is known of a partition. */
struct consumer_start_facts {
    int64_t stored;                /* the position in PostgreSQL; -1: none */
    struct log_mark stored_record; /* the one below it; what was looked at first */
    struct log_mark anchor;        /* of the log as this process knows it; looked at second */
    bool is_recreated;             /* known already */
    const struct kafka_log *log;   /* answered without an error */
    enum commit_origin commit;     /* whose `log->committed` is */
};

struct consumer_start {
    const char *topic;
    int32_t partition;
    int64_t stored; /* the position in PostgreSQL; -1: none */
    int64_t offset; /* where reading starts: stored before anything is read */
    enum consumer_start_reason reason;
};

/* Userd has committed more for this database than the database has. */
bool consumer_start_shows_rollback(const struct consumer_start_facts *facts);
/* `has_rollback`: some partition shows one. The result points at the log's topic. */
struct consumer_start consumer_start_choose(
    const struct consumer_start_facts *facts, bool has_rollback);
/* Logs and counts what is out of the ordinary; false: nothing was. */
bool consumer_start_tell(const struct consumer_start *start,
    const struct consumer_start_facts *facts, struct scoreboard_slot *slot);

/* Fills the partitions into the frame's PositionRequest and sends it. */
MUST_CHECK int consumer_start_send_request(struct worker_peer *peer, Userd__Ipc__Frame *frame,
    const rd_kafka_topic_partition_list_t *partitions);

#endif
