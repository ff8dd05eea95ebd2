/* What the relays are to be told about their rows, collected until the end of a turn of the loop.
 *
 * Owns the collected ids, nothing else. Bounded: when an answer is full it must be sent before more
 * goes in.
 */
#ifndef USERD_EVENTD_PUBLISH_ANSWER_H
#define USERD_EVENTD_PUBLISH_ANSWER_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/attributes.h"
#include "eventd/worker_peers.h"

struct publish_answers;

MUST_CHECK int publish_answers_new(struct publish_answers **ret_answers);
struct publish_answers *publish_answers_free(struct publish_answers *answers);

/* False: no room, send first. */
bool publish_answers_add(struct publish_answers *answers, uint64_t peer_serial, uint64_t epoch,
    int64_t id, rd_kafka_resp_err_t error);
/* Sends all of it; what belongs to a channel that has ended is dropped. */
void publish_answers_send(struct publish_answers *answers, struct worker_peers *peers);

/* True: no repetition can help. Everything else is tried for ever: authorisation and topics can be
 * mended. */
bool publish_answer_is_permanent(rd_kafka_resp_err_t error);

#endif
