/* The two librdkafka clients, a producer and a consumer: their configuration with the reason beside
 * each property, and what librdkafka logs.
 *
 * Owns nothing: a client belongs to whoever asked for it. Never calls anything of librdkafka's that
 * waits.
 */
#ifndef USERD_EVENTD_KAFKA_CLIENT_H
#define USERD_EVENTD_KAFKA_CLIENT_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>

#include "common/attributes.h"
#include "common/settings.h"

#define KAFKA_CLIENT_REASON_SIZE 256

/* Delivery reports, errors and logs come as events on the client's main queue. One that sends
 * singly makes batches of one message, and no statistics.
 * -EINVAL, logged, when librdkafka refuses the configuration. */
MUST_CHECK int kafka_client_new_producer(
    const struct settings *settings, bool sends_singly, rd_kafka_t **ret_client);
/* Rebalances, commits, errors and logs come as events on the client's consumer queue. */
MUST_CHECK int kafka_client_new_consumer(const struct settings *settings, rd_kafka_t **ret_client);

/* A consumer that is nobody's member: for rd_kafka_assign() and rd_kafka_consumer_poll(), with the
 * positions of `group`; the end of a partition is a message. */
MUST_CHECK int kafka_client_new_reader(
    const struct settings *settings, const char *group, rd_kafka_t **ret_client);

/* What librdkafka has said last about any of them, such as why a broker cannot be reached; "":
 * nothing.
 */
void kafka_client_reader_said(char ret_text[KAFKA_CLIENT_REASON_SIZE]);

/* The same for single records: positions of nobody, and little of what comes behind a record is
 * fetched with it. */
MUST_CHECK int kafka_client_new_prober(const struct settings *settings, rd_kafka_t **ret_client);

/* Whether librdkafka makes both clients of these settings: it reads certificates and keys for that,
 * and finds what does not go together. -EINVAL: no, with its reason. With kafka.bootstrap_servers
 * empty nobody is connected to. For a
 * process that ends behind it: the clients are left, since closing them takes seconds. */
MUST_CHECK int kafka_client_try(
    const struct settings *settings, char ret_reason[KAFKA_CLIENT_REASON_SIZE]);

/* Writes an RD_KAFKA_EVENT_LOG into our log, at most a few lines a second. */
void kafka_client_log(rd_kafka_event_t *event);

#endif
