/* The bytes of a consumed event, and what they say. Pure: no channels, no database, no clock.
 *
 * Strict on purpose, because every doubt would be somebody's account: the value is one JSON object
 * in UTF-8, without duplicate keys and with nothing behind it. `id` is a JSON integer in the range
 * of int32: 17.0, "17" and true are none. `username` is a string without U+0000. Members that we do
 * not know are fine.
 */
#ifndef USERD_WORKER_EVENTS_EVENT_DECODE_H
#define USERD_WORKER_EVENTS_EVENT_DECODE_H

#include <stddef.h>
#include <stdint.h>

#include "common/attributes.h"
#include "worker/store/user_store.h"

struct decoded_event {
    int32_t auth_id;
    char *username; /* owned; NULL for an event without one */
    size_t username_length;
};

/* NULL, or static text that says what is wrong; then *ret_event is untouched. A `value` of NULL is
 * Kafka's null. */
MUST_CHECK const char *event_decode(
    enum user_event_kind kind, const void *value, size_t length, struct decoded_event *ret_event);
void decoded_event_cleanup(struct decoded_event *event);

#endif
