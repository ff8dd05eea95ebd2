/* eventd/dead_letter_notes: what Kafka would forget is committed again. */
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/monotonic_clock.h"
#include "common/settings.h"
#include "eventd/dead_letter_notes.h"

#define GROUP       "user_service.dead_letters"
#define PARTITION   1
#define POSITION    5
#define STRETCHES   "7,9-12"
#define DEADLINE_MS 60000
#define NOW_US      UINT64_C(1000000000)

typedef rd_kafka_resp_err_t commit_function(rd_kafka_t *client,
    const rd_kafka_topic_partition_list_t *list, rd_kafka_queue_t *queue,
    void (*callback)(rd_kafka_t *client, rd_kafka_resp_err_t error,
        rd_kafka_topic_partition_list_t *list, void *opaque),
    void *opaque);

static struct settings settings;
static rd_kafka_t *owner;
static struct dead_letter_notes *notes;
static atomic_uint commits;
static rd_kafka_topic_partition_list_t *committed; /* by the last one */

/* In the place of librdkafka's in this program: as it is, and noted here. */
/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name): names that say something */
rd_kafka_resp_err_t rd_kafka_commit_queue(rd_kafka_t *client,
    const rd_kafka_topic_partition_list_t *list, rd_kafka_queue_t *queue,
    void (*callback)(rd_kafka_t *client, rd_kafka_resp_err_t error,
        rd_kafka_topic_partition_list_t *list, void *opaque),
    void *opaque)
{
    union {
        void *symbol;
        commit_function *function;
    } real = {.symbol = dlsym(RTLD_NEXT, "rd_kafka_commit_queue")};
    if (committed != NULL)
        rd_kafka_topic_partition_list_destroy(committed);
    committed = rd_kafka_topic_partition_list_copy(list);
    commits++;
    return real.function(client, list, queue, callback, opaque);
}

static rd_kafka_t *new_client(rd_kafka_type_t type, const char *servers)
{
    char reason[256];
    rd_kafka_conf_t *configuration = rd_kafka_conf_new();
    if (servers != NULL)
        (void)rd_kafka_conf_set(
            configuration, "bootstrap.servers", servers, reason, sizeof(reason));
    (void)rd_kafka_conf_set(configuration, "group.id", GROUP, reason, sizeof(reason));
    rd_kafka_t *client = rd_kafka_new(type, configuration, reason, sizeof(reason));
    cr_assert_not_null(client, "%s", reason);
    return client;
}

/* As the command notes it. */
static void given_a_note(const char *servers)
{
    rd_kafka_t *client = new_client(RD_KAFKA_CONSUMER, servers);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_t *partition =
        rd_kafka_topic_partition_list_add(list, settings.kafka.dead_letter_topic, PARTITION);
    partition->offset = POSITION;
    partition->metadata = strdup(STRETCHES);
    partition->metadata_size = strlen(STRETCHES);
    cr_assert_eq(rd_kafka_commit(client, list, 0), RD_KAFKA_RESP_ERR_NO_ERROR);
    rd_kafka_topic_partition_list_destroy(list);
    rd_kafka_destroy(client);
}

static void given_notes(void)
{
    cr_assert_eq(settings_init(&settings), 0);
    owner = new_client(RD_KAFKA_PRODUCER, NULL);
    rd_kafka_mock_cluster_t *cluster = rd_kafka_mock_cluster_new(owner, 1);
    cr_assert_not_null(cluster);
    cr_assert_eq(rd_kafka_mock_topic_create(cluster, settings.kafka.dead_letter_topic, 3, 1),
        RD_KAFKA_RESP_ERR_NO_ERROR);
    free(settings.kafka.bootstrap_servers);
    settings.kafka.bootstrap_servers = strdup(rd_kafka_mock_cluster_bootstraps(cluster));
    given_a_note(settings.kafka.bootstrap_servers);
    cr_assert_eq(dead_letter_notes_new(&settings, &notes), 0);
}

static void when_updated(bool has_topic, uint64_t now_us)
{
    int64_t end_ms = monotonic_clock_ms() + DEADLINE_MS;
    dead_letter_notes_update(notes, has_topic, now_us);
    while (dead_letter_notes_is_running(notes)) {
        cr_assert_lt(monotonic_clock_ms(), end_ms, "not in time");
        (void)usleep(10000);
    }
}

TestSuite(dead_letter_notes, .init = given_notes, .timeout = 120);

Test(dead_letter_notes, are_committed_again_as_they_are_twice_a_day)
{
    when_updated(false, NOW_US);
    cr_assert_eq(commits, 0, "there is no topic");
    when_updated(true, NOW_US);
    cr_assert_eq(commits, 1);
    cr_assert_eq(committed->cnt, 1, "a partition without a note has none afterwards");
    cr_assert_eq(committed->elems[0].partition, PARTITION);
    cr_assert_eq(committed->elems[0].offset, POSITION);
    cr_assert_eq(committed->elems[0].metadata_size, strlen(STRETCHES));
    cr_assert_arr_eq(committed->elems[0].metadata, STRETCHES, strlen(STRETCHES));
    when_updated(true, NOW_US + DEAD_LETTER_NOTES_INTERVAL_US - 1);
    cr_assert_eq(commits, 1);
    when_updated(true, NOW_US + DEAD_LETTER_NOTES_INTERVAL_US);
    cr_assert_eq(commits, 2);
}

Test(dead_letter_notes, that_cannot_be_renewed_are_tried_again_after_a_while)
{
    settings.kafka.dead_letter_topic[0] = 'X'; /* it was there a moment ago */
    when_updated(true, NOW_US);
    settings.kafka.dead_letter_topic[0] = 'u';
    when_updated(true, NOW_US + 1);
    when_updated(true, NOW_US + DEAD_LETTER_NOTES_RETRY_US);
    cr_assert_eq(commits, 0);
    when_updated(true, NOW_US + 1 + DEAD_LETTER_NOTES_RETRY_US);
    cr_assert_eq(commits, 1);
}
