/* A dead letter for a person or a program to read, and its headers. */
#ifndef USERD_EVENTD_DEAD_LETTER_VIEW_H
#define USERD_EVENTD_DEAD_LETTER_VIEW_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/attributes.h"

#define DEAD_LETTER_TOPIC     "dlq-original-topic"
#define DEAD_LETTER_PARTITION "dlq-original-partition"
#define DEAD_LETTER_OFFSET    "dlq-original-offset"
#define DEAD_LETTER_REASON    "dlq-reason"
#define DEAD_LETTER_ERROR     "dlq-error"
#define DEAD_LETTER_ATTEMPTS  "dlq-attempts"
#define DEAD_LETTER_REDRIVE   "dlq-redrive"
#define DEAD_LETTER_EVENT_ID  "dlq-event-id"
#define DEAD_LETTER_PREFIX    "dlq-"

/* The header's text, cut at the size; false, and "", when there is none. Of several with one name
 * the last, which is ours. */
bool dead_letter_view_header(
    const rd_kafka_message_t *message, const char *name, char *target, size_t size);

/* Above the lines of a list. */
void dead_letter_view_title(void);
/* One line on standard output: no value, no key. */
void dead_letter_view_line(const rd_kafka_message_t *message);
/* The list as one JSON object, a line for each letter: no value, no key. What a letter does not say
 * is null. -ENOMEM: the letter was not printed. */
void dead_letter_view_json_begin(const char *topic);
MUST_CHECK int dead_letter_view_json(const rd_kafka_message_t *message, bool is_first);
void dead_letter_view_json_end(size_t count);
/* Everything about it; what is no printable ASCII stands as \xNN. */
void dead_letter_view_whole(const rd_kafka_message_t *message, bool is_handled);

#endif
