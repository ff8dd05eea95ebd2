#include "eventd/topic_setup.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "common/log.h"
#include "eventd/kafka_watch.h"

#define WRITTEN_TOPICS     2
#define READ_TOPICS        2
#define REQUEST_TIMEOUT_MS 10000
#define FIRST_RETRY_US     UINT64_C(2000000)
#define LONGEST_RETRY_US   UINT64_C(60000000)
#define REMINDER_US        UINT64_C(60000000)

struct topic_setup {
    const struct settings *settings;
    rd_kafka_t *client;      /* the caller's */
    rd_kafka_queue_t *queue; /* the caller's */
    const char *written[WRITTEN_TOPICS];
    const char *read[READ_TOPICS];
    bool is_creating;
    uint64_t next_try_us;
    uint64_t retry_delay_us;
    uint64_t next_reminder_us[WRITTEN_TOPICS + READ_TOPICS];
};

/* *ret_topics is an array that holds `count` topics of at most `count`. */
static int describe_topics(struct topic_setup *setup, const char *const *names, size_t count,
    rd_kafka_NewTopic_t **ret_topics)
{
    for (size_t i = 0; i < count; i++) {
        char reason[256];
        ret_topics[i] = rd_kafka_NewTopic_new(names[i], setup->settings->kafka.topic_partitions,
            setup->settings->kafka.topic_replication, reason, sizeof(reason));
        if (ret_topics[i] != NULL)
            continue;
        log_error("topic cannot be created topic=%s reason=%s", names[i], reason);
        rd_kafka_NewTopic_destroy_array(ret_topics, i);
        return -EINVAL;
    }
    return 0;
}

static void create_topics(
    struct topic_setup *setup, const char *const *names, size_t count, uint64_t now_us)
{
    if (setup->is_creating || now_us < setup->next_try_us)
        return;
    setup->next_try_us = now_us + setup->retry_delay_us;
    setup->retry_delay_us *= 2;
    if (setup->retry_delay_us > LONGEST_RETRY_US)
        setup->retry_delay_us = LONGEST_RETRY_US;
    rd_kafka_NewTopic_t *topics[WRITTEN_TOPICS] = {0};
    if (describe_topics(setup, names, count, topics) < 0)
        return;
    char reason[256];
    rd_kafka_AdminOptions_t *options =
        rd_kafka_AdminOptions_new(setup->client, RD_KAFKA_ADMIN_OP_CREATETOPICS);
    if (rd_kafka_AdminOptions_set_request_timeout(
            options, REQUEST_TIMEOUT_MS, reason, sizeof(reason)) != RD_KAFKA_RESP_ERR_NO_ERROR)
        log_error("topic creation has no time limit reason=%s", reason);
    rd_kafka_CreateTopics(setup->client, topics, count, options, setup->queue);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_NewTopic_destroy_array(topics, count);
    setup->is_creating = true;
}

/* Says that a topic is missing, once and then once a minute. */
static void remind(struct topic_setup *setup, size_t index, const char *topic, uint64_t now_us)
{
    if (now_us < setup->next_reminder_us[index])
        return;
    setup->next_reminder_us[index] = now_us + REMINDER_US;
    if (index >= WRITTEN_TOPICS)
        log_warn("waiting for topic topic=%s: its events are read when it is there", topic);
    else if (setup->settings->kafka.create_topics != 0)
        log_info("topic is missing topic=%s: creating it", topic);
    else
        log_error("topic is missing topic=%s: events wait until someone creates it", topic);
}

bool topic_setup_update(
    struct topic_setup *setup, const struct rd_kafka_metadata *metadata, uint64_t now_us)
{
    const char *missing[WRITTEN_TOPICS];
    size_t missing_count = 0;
    bool is_complete = true;
    for (size_t i = 0; i < WRITTEN_TOPICS; i++) {
        if (kafka_watch_has_topic(metadata, setup->written[i]))
            continue;
        remind(setup, i, setup->written[i], now_us);
        missing[missing_count++] = setup->written[i];
        is_complete = false;
    }
    for (size_t i = 0; i < READ_TOPICS; i++) {
        if (kafka_watch_has_topic(metadata, setup->read[i]))
            continue;
        remind(setup, WRITTEN_TOPICS + i, setup->read[i], now_us);
        is_complete = false;
    }
    if (missing_count == 0) {
        setup->next_try_us = 0;
        setup->retry_delay_us = FIRST_RETRY_US;
    }
    if (missing_count > 0 && setup->settings->kafka.create_topics != 0)
        create_topics(setup, missing, missing_count, now_us);
    return is_complete;
}

bool topic_setup_on_result(struct topic_setup *setup, rd_kafka_event_t *event)
{
    bool has_made = false;
    setup->is_creating = false;
    rd_kafka_resp_err_t error = rd_kafka_event_error(event);
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR) {
        log_warn("topics not created reason=%s: trying again", rd_kafka_err2name(error));
        return false;
    }
    size_t count = 0;
    const rd_kafka_topic_result_t **results =
        rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &count);
    for (size_t i = 0; i < count; i++) {
        const char *topic = rd_kafka_topic_result_name(results[i]);
        error = rd_kafka_topic_result_error(results[i]);
        if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
            log_info("topic created topic=%s", topic);
        else if (error == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS)
            log_debug("topic is there already topic=%s", topic);
        else
            log_error("topic not created topic=%s reason=%s: trying again", topic,
                rd_kafka_err2name(error));
        has_made = has_made || error == RD_KAFKA_RESP_ERR_NO_ERROR ||
                   error == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS;
    }
    return has_made;
}

struct topic_setup *topic_setup_free(struct topic_setup *setup)
{
    free(setup);
    return NULL;
}

int topic_setup_new(const struct settings *settings, rd_kafka_t *client, rd_kafka_queue_t *queue,
    struct topic_setup **ret_setup)
{
    struct topic_setup *setup = calloc(1, sizeof(*setup));
    if (setup == NULL)
        return -ENOMEM;
    setup->settings = settings;
    setup->client = client;
    setup->queue = queue;
    setup->written[0] = settings->kafka.delete_topic;
    setup->written[1] = settings->kafka.dead_letter_topic;
    setup->read[0] = settings->kafka.registration_topic;
    setup->read[1] = settings->kafka.admin_delete_topic;
    setup->retry_delay_us = FIRST_RETRY_US;
    *ret_setup = setup;
    return 0;
}
