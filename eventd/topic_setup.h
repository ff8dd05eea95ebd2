/* Makes the topics that userd writes to, where they are missing and where the settings allow it,
 * and says what is missing.
 *
 * Never waits and never gives up: a topic that cannot be made now is tried again with back-off,
 * which begins anew once all of them were there.
 */
#ifndef USERD_EVENTD_TOPIC_SETUP_H
#define USERD_EVENTD_TOPIC_SETUP_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>

#include "common/attributes.h"
#include "common/settings.h"

struct topic_setup;

/* Answers of the broker come to `queue` as RD_KAFKA_EVENT_CREATETOPICS_RESULT. Everything must
 * outlive it. */
MUST_CHECK int topic_setup_new(const struct settings *settings, rd_kafka_t *client,
    rd_kafka_queue_t *queue, struct topic_setup **ret_setup);
struct topic_setup *topic_setup_free(struct topic_setup *setup);

/* Looks at the topics that there are; true when none of ours is missing. */
bool topic_setup_update(
    struct topic_setup *setup, const struct rd_kafka_metadata *metadata, uint64_t now_us);
/* Returns true when a topic was made: then it is worth looking again. */
bool topic_setup_on_result(struct topic_setup *setup, rd_kafka_event_t *event);

#endif
