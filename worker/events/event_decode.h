/* The bytes of a consumed event, and what they say. Pure: no channels, no database, no clock.
 *
 * What the legacy service takes is taken, and means the same: the value is one JSON object as
 * Python's json reads it (json_reader.h); of equal keys the last counts, and members that we do not
 * know may be anything. `id` is a JSON integer in the range of int32: 17.0, "17" and true are none.
 * `username` is a string; U+0000 and lone surrogates in it become U+FFFD, with which nobody can
 * hold a name (username_rules.h): an account that exists already is not refused for its name.
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

/* 0; -EBADMSG: it is no event, and *ret_reason is static text that says why; -ENOMEM: nothing is
 * known of it. *ret_event is set only by 0. A `value` of NULL is Kafka's null. */
MUST_CHECK int event_decode(enum user_event_kind kind, const void *value, size_t length,
    struct decoded_event *ret_event, const char **ret_reason);
void decoded_event_cleanup(struct decoded_event *event);

#endif
