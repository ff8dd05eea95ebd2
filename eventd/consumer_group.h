/* Membership in the consumer group: which partitions are ours, and from where each is read.
 *
 * Owns the consumer's queue and the assignment, not the consumer. On every assignment the positions
 * are learned anew (position_learning, consumer_start). The group is told "assigned" at once, with
 * nothing to fetch, so that a database that is away for a moment does not cost the membership; one
 * that no worker can use for ten seconds does, so that another instance has the partitions. Never
 * closes synchronously.
 */
#ifndef USERD_EVENTD_CONSUMER_GROUP_H
#define USERD_EVENTD_CONSUMER_GROUP_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <systemd/sd-event.h>

#include "common/attributes.h"
#include "common/settings.h"
#include "eventd/consumer_start.h"
#include "eventd/kafka_asker.h"
#include "eventd/log_audit.h"
#include "eventd/worker_peers.h"

struct consumer_group;

struct consumer_group_handlers {
    /* Reading starts after this returns. */
    void (*on_start)(const struct consumer_start *starts, size_t count, void *userdata);
    /* The partitions are ours no longer, or their positions must be learnt anew. */
    void (*on_stop)(void *userdata);
    /* A connection broke. */
    void (*on_trouble)(void *userdata);
    /* librdkafka's statistics, as JSON. */
    void (*on_statistics)(const char *json, void *userdata);
    /* An answer to an admin request. */
    void (*on_admin_event)(rd_kafka_event_t *event, void *userdata);
};

struct consumer_group_options {
    sd_event *event;
    const struct settings *settings;
    rd_kafka_t *consumer;
    struct kafka_asker *asker;
    struct worker_peers *peers;
    struct log_audit *audit;
    struct scoreboard_slot *slot;
    const struct consumer_group_handlers *handlers;
    void *userdata;
};

/* Everything in the options must outlive it. */
MUST_CHECK int consumer_group_new(
    const struct consumer_group_options *options, struct consumer_group **ret_group);

/* The cluster as it is now: subscribes to those of our topics that exist, if a worker can apply
 * events. */
void consumer_group_update(
    struct consumer_group *group, const char *cluster, const struct rd_kafka_metadata *metadata);
/* A position turned out to be wrong: everything stops, and starts again at what PostgreSQL says. */
void consumer_group_relearn(struct consumer_group *group);
void consumer_group_on_positions(
    struct consumer_group *group, const Userd__Ipc__PositionResult *result);
void consumer_group_on_worker_available(struct consumer_group *group);
/* NULL before the cluster is known. */
const char *consumer_group_cluster(const struct consumer_group *group);
/* The identity of the database that the positions come from; "" before it is known. */
const char *consumer_group_database(const struct consumer_group *group);
rd_kafka_queue_t *consumer_group_queue(struct consumer_group *group);

/* Starts to leave; consumer_group_is_closed() says when the group knows. */
void consumer_group_close(struct consumer_group *group);
bool consumer_group_is_closed(const struct consumer_group *group);

#endif
