/* eventd/topic_setup: when a missing topic is tried to be made. */
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <librdkafka/rdkafka.h>

#include "common/settings.h"
#include "eventd/topic_setup.h"

#define SECOND_US UINT64_C(1000000)
#define START_US  (1000 * SECOND_US)

static struct settings settings;
static struct topic_setup *setup;
static rd_kafka_t *client;
static rd_kafka_queue_t *queue;
static unsigned int tries;

/* In the place of librdkafka's in this program: nobody is asked. */
/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name): names that say something */
void rd_kafka_CreateTopics(rd_kafka_t *unused_client, rd_kafka_NewTopic_t **topics, size_t count,
    const rd_kafka_AdminOptions_t *options, rd_kafka_queue_t *unused_queue)
{
    (void)unused_client;
    (void)topics;
    (void)options;
    (void)unused_queue;
    cr_assert_gt(count, 0);
    tries++;
}

/* Of no event: a try that failed. */
/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name): names that say something */
rd_kafka_resp_err_t rd_kafka_event_error(rd_kafka_event_t *event)
{
    if (event == NULL)
        return RD_KAFKA_RESP_ERR__TIMED_OUT;
    union {
        void *symbol;
        rd_kafka_resp_err_t (*function)(rd_kafka_event_t *event);
    } real = {.symbol = dlsym(RTLD_NEXT, "rd_kafka_event_error")};
    return real.function(event);
}

static void given_setup(void)
{
    cr_assert_eq(settings_init(&settings), 0);
    char reason[256];
    client = rd_kafka_new(RD_KAFKA_PRODUCER, rd_kafka_conf_new(), reason, sizeof(reason));
    cr_assert_not_null(client, "%s", reason);
    queue = rd_kafka_queue_new(client);
    cr_assert_eq(topic_setup_new(&settings, client, queue, &setup), 0);
}

TestSuite(topic_setup, .init = given_setup);

/* One look at the cluster; the try that it may cause fails. True: nothing is missing. */
static bool when_looked_at(bool has_topics, uint64_t now_us)
{
    rd_kafka_metadata_partition_t partition = {.id = 0};
    rd_kafka_metadata_topic_t topics[] = {
        {.topic = settings.kafka.delete_topic, .partition_cnt = 1, .partitions = &partition},
        {.topic = settings.kafka.dead_letter_topic, .partition_cnt = 1, .partitions = &partition},
        {.topic = settings.kafka.registration_topic, .partition_cnt = 1, .partitions = &partition},
        {.topic = settings.kafka.admin_delete_topic, .partition_cnt = 1, .partitions = &partition},
    };
    struct rd_kafka_metadata metadata = {.topic_cnt = has_topics ? 4 : 0, .topics = topics};
    unsigned int before = tries;
    bool is_complete = topic_setup_update(setup, &metadata, now_us);
    if (tries > before)
        cr_assert_not(topic_setup_on_result(setup, NULL));
    return is_complete;
}

/* A look each second; how many tries they cause. */
static unsigned int tries_of(uint64_t first_s, uint64_t seconds)
{
    unsigned int before = tries;
    for (uint64_t i = 0; i < seconds; i++)
        cr_assert_not(when_looked_at(false, START_US + (first_s + i) * SECOND_US));
    return tries - before;
}

Test(topic_setup, tries_less_and_less_often)
{
    cr_assert_eq(tries_of(0, 1), 1);
    cr_assert_eq(tries_of(1, 62), 5, "after 2, 6, 14, 30 and 62 seconds");
    cr_assert_eq(tries_of(63, 600), 10, "each minute");
}

Test(topic_setup, begins_anew_when_all_topics_were_there)
{
    (void)tries_of(0, 600);
    cr_assert(when_looked_at(true, START_US + 601 * SECOND_US));
    cr_assert_eq(tries_of(602, 1), 1, "a topic that was taken away");
    cr_assert_eq(tries_of(603, 2), 1, "and soon again");
}
