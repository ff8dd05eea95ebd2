#include "eventd/cluster_check.h"

#include <inttypes.h>
#include <string.h>

#include "eventd/kafka_client.h"

#define ANSWER_TIMEOUT_MS 6000

struct wanted_topic {
    const char *setting;
    const char *name;
    bool is_written;
};

static const rd_kafka_metadata_topic_t *find_topic(
    const rd_kafka_metadata_t *metadata, const char *name)
{
    for (int i = 0; i < metadata->topic_cnt; i++)
        if (strcmp(metadata->topics[i].topic, name) == 0)
            return &metadata->topics[i];
    return NULL;
}

static int count_leaderless(const rd_kafka_metadata_topic_t *topic)
{
    int count = 0;
    for (int i = 0; i < topic->partition_cnt; i++)
        count += topic->partitions[i].leader < 0 ? 1 : 0;
    return count;
}

static void complain_of_absence(const struct settings *settings, const struct wanted_topic *wanted,
    struct process_verdict *verdict)
{
    if (wanted->is_written && settings->kafka.create_topics)
        process_verdict_find(verdict,
            "%s: topic %s is not there; eventd makes it (kafka.create_topics)", wanted->setting,
            wanted->name);
    else
        process_verdict_complain(verdict, 0, "%s: topic %s is not there, expected it: %s",
            wanted->setting, wanted->name,
            wanted->is_written ? "make it, or set kafka.create_topics"
                               : "events that come later are read once it is");
}

static void check_topic(const struct settings *settings, const rd_kafka_metadata_t *metadata,
    const struct wanted_topic *wanted, struct process_verdict *verdict)
{
    const rd_kafka_metadata_topic_t *topic = find_topic(metadata, wanted->name);
    bool is_absent = topic == NULL || topic->err == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    if (is_absent) {
        complain_of_absence(settings, wanted, verdict);
        return;
    }
    int leaderless = count_leaderless(topic);
    if (topic->err != RD_KAFKA_RESP_ERR_NO_ERROR)
        process_verdict_complain(verdict, 0, "%s: topic %s: %s", wanted->setting, wanted->name,
            rd_kafka_err2str(topic->err));
    else if (leaderless > 0)
        process_verdict_complain(verdict, 0,
            "%s: topic %s has no leader for %d of %d partitions, expected one for each",
            wanted->setting, wanted->name, leaderless, topic->partition_cnt);
    else
        process_verdict_find(verdict, "%s: topic %s, %d partitions", wanted->setting, wanted->name,
            topic->partition_cnt);
}

static void add_partitions(const rd_kafka_metadata_t *metadata, const char *name,
    rd_kafka_topic_partition_list_t *partitions)
{
    const rd_kafka_metadata_topic_t *topic = find_topic(metadata, name);
    for (int32_t i = 0; topic != NULL && i < topic->partition_cnt; i++)
        (void)rd_kafka_topic_partition_list_add(partitions, name, i);
}

/* Its coordinator must answer, and let us see what it has committed. */
static void check_group(rd_kafka_t *client, const struct settings *settings,
    const rd_kafka_metadata_t *metadata, struct process_verdict *verdict)
{
    rd_kafka_topic_partition_list_t *partitions = rd_kafka_topic_partition_list_new(8);
    add_partitions(metadata, settings->kafka.registration_topic, partitions);
    add_partitions(metadata, settings->kafka.admin_delete_topic, partitions);
    if (partitions->cnt == 0) /* the coordinator answers for any partition */
        (void)rd_kafka_topic_partition_list_add(partitions, settings->kafka.registration_topic, 0);
    rd_kafka_resp_err_t error = rd_kafka_committed(client, partitions, ANSWER_TIMEOUT_MS);
    int committed = 0;
    for (int i = 0; i < partitions->cnt; i++) {
        committed += partitions->elems[i].offset >= 0 ? 1 : 0;
        if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
            error = partitions->elems[i].err;
    }
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
        process_verdict_complain(verdict, 0, "kafka.group: group %s: %s", settings->kafka.group,
            rd_kafka_err2str(error));
    else
        process_verdict_find(verdict, "kafka.group: group %s, offsets of %d partitions committed",
            settings->kafka.group, committed);
    rd_kafka_topic_partition_list_destroy(partitions);
}

static void check_with(
    rd_kafka_t *client, const struct settings *settings, struct process_verdict *verdict)
{
    const rd_kafka_metadata_t *metadata = NULL;
    rd_kafka_resp_err_t error = rd_kafka_metadata(client, 1, NULL, &metadata, ANSWER_TIMEOUT_MS);
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR) {
        char said[KAFKA_CLIENT_REASON_SIZE];
        kafka_client_reader_said(said);
        process_verdict_complain(verdict, 0,
            "kafka.bootstrap_servers: no broker of \"%.100s\" answers: %s",
            settings->kafka.bootstrap_servers, said[0] != '\0' ? said : rd_kafka_err2str(error));
        return;
    }
    process_verdict_find(verdict, "kafka.bootstrap_servers: %d brokers", metadata->broker_cnt);
    const struct wanted_topic wanted[] = {
        {"kafka.registration_topic", settings->kafka.registration_topic, false},
        {"kafka.admin_delete_topic", settings->kafka.admin_delete_topic, false},
        {"kafka.delete_topic", settings->kafka.delete_topic, true},
        {"kafka.dead_letter_topic", settings->kafka.dead_letter_topic, true},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(wanted); i++)
        check_topic(settings, metadata, &wanted[i], verdict);
    check_group(client, settings, metadata, verdict);
    rd_kafka_metadata_destroy(metadata);
}

void cluster_check(const struct settings *settings, struct process_verdict *verdict)
{
    rd_kafka_t *client = NULL; /* left as it is: the process ends behind this */
    if (kafka_client_new_reader(settings, settings->kafka.group, &client) < 0)
        process_verdict_complain(verdict, 0, "kafka: the client cannot be made");
    else
        check_with(client, settings, verdict);
}
