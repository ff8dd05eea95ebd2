/* Knows whether Kafka can be reached, which cluster it is and which topics it has: asks again and
 * again, says so in the log when it goes away and when it is back, and keeps kafka_is_connected on
 * the scoreboard.
 */
#ifndef USERD_EVENTD_KAFKA_WATCH_H
#define USERD_EVENTD_KAFKA_WATCH_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <systemd/sd-event.h>

#include "common/attributes.h"
#include "common/scoreboard.h"
#include "eventd/kafka_asker.h"

struct kafka_watch;

/* What the cluster looks like now; valid during the call. Returns true when everything that is
 * needed is there: then the next look is not urgent. */
typedef bool kafka_watch_handler(
    const char *cluster, const struct rd_kafka_metadata *metadata, void *userdata);

/* `client` must outlive it, and so must `asker`. */
MUST_CHECK int kafka_watch_new(sd_event *event, struct kafka_asker *asker, rd_kafka_t *client,
    kafka_watch_handler *handler, void *userdata, struct kafka_watch **ret_watch);
void kafka_watch_start(struct kafka_watch *watch, struct scoreboard_slot *slot);
/* Looks again at once: a connection broke, a topic was made. */
void kafka_watch_hurry(struct kafka_watch *watch);

bool kafka_watch_has_topic(const struct rd_kafka_metadata *metadata, const char *topic);
/* 0: there is no such topic. */
int kafka_watch_partitions(const struct rd_kafka_metadata *metadata, const char *topic);

#endif
