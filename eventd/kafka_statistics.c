#include "eventd/kafka_statistics.h"

#include <jansson.h>
#include <stdbool.h>
#include <string.h>

struct broker_counts {
    uint64_t known;
    uint64_t up;
    uint64_t slowest_us;
};

static uint64_t number(const json_t *object, const char *name)
{
    json_int_t value = json_integer_value(json_object_get(object, name));
    return value > 0 ? (uint64_t)value : 0;
}

/* Those with a number are the cluster's; without one they are addresses that we began with, and a
 * logical one is the group's coordinator once more. */
static struct broker_counts count_brokers(json_t *brokers)
{
    struct broker_counts counts = {0};
    const char *name = NULL;
    json_t *broker = NULL;
    json_object_foreach(brokers, name, broker)
    {
        const char *state = json_string_value(json_object_get(broker, "state"));
        const char *source = json_string_value(json_object_get(broker, "source"));
        const json_t *node = json_object_get(broker, "nodeid");
        bool is_of_cluster = json_is_integer(node) && json_integer_value(node) >= 0;
        if (state == NULL || source == NULL || !is_of_cluster || strcmp(source, "logical") == 0)
            continue;
        uint64_t slow_us = number(json_object_get(broker, "rtt"), "p99");
        counts.known++;
        counts.up += strcmp(state, "UP") == 0 ? 1 : 0;
        counts.slowest_us = slow_us > counts.slowest_us ? slow_us : counts.slowest_us;
    }
    return counts;
}

/* Records that are fetched and not read. */
static uint64_t count_fetched(json_t *topics)
{
    uint64_t count = 0;
    const char *name = NULL;
    json_t *topic = NULL;
    json_object_foreach(topics, name, topic)
    {
        json_t *partition = NULL;
        json_object_foreach(json_object_get(topic, "partitions"), name, partition)
        {
            count += number(partition, "fetchq_cnt");
        }
    }
    return count;
}

static void store(_Atomic uint64_t *place, uint64_t value)
{
    atomic_store_explicit(place, value, memory_order_relaxed);
}

void kafka_statistics_show(
    struct scoreboard_slot *slot, rd_kafka_type_t type, const char *json, size_t length)
{
    json_t *root = json_loadb(json, length, 0, NULL);
    if (!json_is_object(root)) {
        json_decref(root);
        return;
    }
    struct broker_counts brokers = count_brokers(json_object_get(root, "brokers"));
    if (type == RD_KAFKA_PRODUCER) {
        store(&slot->kafka_brokers, brokers.known);
        store(&slot->kafka_brokers_up, brokers.up);
        store(&slot->kafka_round_trip_us, brokers.slowest_us);
        store(&slot->kafka_produce_queue, number(root, "msg_cnt"));
        store(&slot->kafka_produce_queue_bytes, number(root, "msg_size"));
    } else {
        store(&slot->kafka_fetch_queue, count_fetched(json_object_get(root, "topics")));
    }
    json_decref(root);
}
