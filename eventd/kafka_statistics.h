/* What librdkafka says about itself every few seconds, as numbers on the scoreboard: brokers that
 * are up, how long they take to answer, and what waits in the queues.
 */
#ifndef USERD_EVENTD_KAFKA_STATISTICS_H
#define USERD_EVENTD_KAFKA_STATISTICS_H

#include <librdkafka/rdkafka.h>
#include <stddef.h>

#include "common/scoreboard.h"

/* The text of an RD_KAFKA_EVENT_STATS, of a producer or a consumer. What cannot be read changes
 * nothing. */
void kafka_statistics_show(
    struct scoreboard_slot *slot, rd_kafka_type_t type, const char *json, size_t length);

#endif
