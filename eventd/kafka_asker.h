/* The questions that librdkafka only answers to a thread that waits: asked by one helper thread,
 * answered on the loop.
 *
 * Questions are asked one after the other, in order. Each ends within its time limit, and a hung
 * broker therefore delays later questions but never the loop. At most a handful are ever queued:
 * each asker has one of its own.
 */
#ifndef USERD_EVENTD_KAFKA_ASKER_H
#define USERD_EVENTD_KAFKA_ASKER_H

#include <librdkafka/rdkafka.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/attributes.h"
#include "common/settings.h"
#include "eventd/kafka_logs.h"

enum kafka_question_kind {
    KAFKA_QUESTION_CLUSTER, /* the cluster's id and all of its topics */
    KAFKA_QUESTION_LOGS,    /* of partitions: see kafka_logs.h */
};

struct kafka_question {
    enum kafka_question_kind kind;
    rd_kafka_t *client; /* must outlive the question */
    /* KAFKA_QUESTION_LOGS: the caller's, who asks in them and finds the answers there */
    struct kafka_log *logs;
    size_t log_count;
    bool with_commits; /* what the group has committed is wanted too */
    void (*on_answer)(
        struct kafka_question *question, void *userdata); /* on the loop; may free the question */
    void *userdata;
    /* The answer to KAFKA_QUESTION_CLUSTER. Nothing below means anything when `error` is set. */
    rd_kafka_resp_err_t error;
    const struct rd_kafka_metadata *ret_metadata; /* valid during on_answer */
    char *ret_cluster;                            /* likewise */
    /* private while it is asked */
    struct kafka_question *next;
};

struct kafka_asker;

/* Starts the thread. `settings` must outlive it. */
MUST_CHECK int kafka_asker_new(
    sd_event *event, const struct settings *settings, struct kafka_asker **ret_asker);
/* Never waits; the question is the caller's again in on_answer. */
void kafka_asker_ask(struct kafka_asker *asker, struct kafka_question *question);

/* There is no way to end the thread while it waits for a broker: the process ends with it. */

#endif
