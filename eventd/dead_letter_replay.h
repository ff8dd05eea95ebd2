/* Dead letters on their way back to the topic that they were read from: key, value (or a mended
 * one) and headers as they were, without the dlq-* ones, and dlq-redrive with the number of the
 * try.
 *
 * Owns the producer. What is not acknowledged is not reported as done; sent twice it takes effect
 * once, as every event does.
 */
#ifndef USERD_EVENTD_DEAD_LETTER_REPLAY_H
#define USERD_EVENTD_DEAD_LETTER_REPLAY_H

#include <librdkafka/rdkafka.h>
#include <stdint.h>

#include "common/attributes.h"
#include "common/settings.h"

struct dead_letter_replay;

/* The broker has it (RD_KAFKA_RESP_ERR_NO_ERROR), or never will. */
typedef void dead_letter_done(
    int32_t partition, int64_t offset, rd_kafka_resp_err_t error, void *userdata);

/* `settings` must outlive it. -EINVAL: librdkafka refuses the configuration. */
MUST_CHECK int dead_letter_replay_open(const struct settings *settings, dead_letter_done *on_done,
    void *userdata, struct dead_letter_replay **ret_replay);
/* From now on letters go back with this value in the place of their own. It must outlive the
 * replay. */
void dead_letter_replay_mend(struct dead_letter_replay *replay, const void *value, size_t length);
/* NULL, or why this letter cannot go back: static text. */
const char *dead_letter_replay_refusal(
    const struct dead_letter_replay *replay, const rd_kafka_message_t *letter);
/* -EAGAIN: too many are in flight; -ENOMEM. */
MUST_CHECK int dead_letter_replay_send(
    struct dead_letter_replay *replay, const rd_kafka_message_t *letter);
/* Reports what is done, waiting at most `timeout_ms` for the first. */
void dead_letter_replay_poll(struct dead_letter_replay *replay, int timeout_ms);
size_t dead_letter_replay_in_flight(const struct dead_letter_replay *replay);

#endif
