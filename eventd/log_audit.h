/* Watches over the logs of the partitions that are ours: how far they reach, for the lag; and
 * whether they are still the logs that they were.
 *
 * Every two seconds Kafka is asked for the end of each log and for the record at its anchor, one
 * that this process knows to be of it. Where another record is there, the log was made anew under
 * the same name. Anchors stay over rebalances: a broker that lost its disk has lost the group too.
 *
 * Owns what it knows of each partition, as long as the process lives. Never waits.
 */
#ifndef USERD_EVENTD_LOG_AUDIT_H
#define USERD_EVENTD_LOG_AUDIT_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <systemd/sd-event.h>

#include "common/attributes.h"
#include "common/scoreboard.h"
#include "common/settings.h"
#include "eventd/kafka_asker.h"

struct log_audit;

struct audited_log {
    char *topic; /* owned */
    int32_t partition;
    bool is_recreated;      /* and PostgreSQL's position does not say so yet */
    bool is_missing;        /* left out of what is read, because Kafka said nothing about it */
    int64_t position;       /* applied; -1: not known */
    struct log_mark last;   /* the record below the position; offset -1: not known */
    struct log_mark anchor; /* offset -1: none */
    int64_t told_offset;    /* start that was told in the log and counted; -1: none */
    /* private */
    bool is_watched;
    bool has_extent;
    struct log_extent extent;
    int64_t committed;   /* by the group; -1: not known */
    unsigned int period; /* changes when answers to older questions mean nothing any more */
    struct audited_log *next;
};

struct log_audit_options {
    sd_event *event;
    const struct settings *settings;
    rd_kafka_t *consumer;
    struct kafka_asker *asker;
    struct scoreboard_slot *slot;
    /* Some log was made anew (its is_recreated is set), or one that was missing is not any more. */
    void (*on_changed)(void *userdata);
    /* The record below the log's position is known now. */
    void (*on_mark)(struct audited_log *log, void *userdata);
    void *userdata;
};

/* Everything in the options must outlive it. */
MUST_CHECK int log_audit_new(const struct log_audit_options *options, struct log_audit **ret_audit);

/* What is known of a partition, made when it is new. NULL: no memory. */
struct audited_log *log_audit_find(struct log_audit *audit, const char *topic, int32_t partition);
/* These are watched from now on, and nothing is known of their positions. */
void log_audit_watch(struct log_audit *audit, const rd_kafka_topic_partition_list_t *partitions);
/* Another cluster: nothing that was known counts. */
void log_audit_forget(struct log_audit *audit);

/* Reading goes on at `position`; `last` is the record below it, offset -1: not known. */
void audited_log_start(struct audited_log *log, int64_t position, const struct log_mark *last);
/* The position was moved there in PostgreSQL without applying anything. */
void audited_log_moved(struct audited_log *log, int64_t position);
/* Everything up to `last` is applied. */
void audited_log_applied(struct audited_log *log, const struct log_mark *last);

#endif
