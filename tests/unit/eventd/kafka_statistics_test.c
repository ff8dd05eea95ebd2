#include <criterion/criterion.h>
#include <string.h>

#include "eventd/kafka_statistics.h"

static struct scoreboard_slot slot;

static void when_shown(rd_kafka_type_t type, const char *json)
{
    kafka_statistics_show(&slot, type, json, strlen(json));
}

Test(kafka_statistics, of_a_producer_say_what_is_up_and_what_waits)
{
    when_shown(RD_KAFKA_PRODUCER,
        "{\"msg_cnt\": 7, \"msg_size\": 700, \"brokers\": {"
        "\"a:9092/bootstrap\": {\"nodeid\": -1, \"source\": \"configured\", \"state\": \"UP\"},"
        "\"a:9092/1\": {\"nodeid\": 1, \"source\": \"configured\", \"state\": \"UP\", \"rtt\": "
        "{\"p99\": 1200}},"
        "\"b:9092/2\": {\"nodeid\": 2, \"source\": \"learned\", \"state\": \"DOWN\", \"rtt\": "
        "{\"p99\": 900}},"
        "\"GroupCoordinator\": {\"nodeid\": 1, \"source\": \"logical\", \"state\": \"UP\"}}}");
    cr_expect_eq(slot.kafka_brokers, 2);
    cr_expect_eq(slot.kafka_brokers_up, 1);
    cr_expect_eq(slot.kafka_round_trip_us, 1200);
    cr_expect_eq(slot.kafka_produce_queue, 7);
    cr_expect_eq(slot.kafka_produce_queue_bytes, 700);
    cr_expect_eq(slot.kafka_fetch_queue, 0);
}

Test(kafka_statistics, of_a_consumer_say_what_is_fetched_and_not_read)
{
    when_shown(RD_KAFKA_CONSUMER, "{\"brokers\": {}, \"topics\": {"
                                  "\"registration\": {\"partitions\": {\"0\": {\"fetchq_cnt\": 3},"
                                  "\"1\": {\"fetchq_cnt\": 4}}}, \"x\": {\"partitions\": {}}}}");
    cr_expect_eq(slot.kafka_fetch_queue, 7);
}

Test(kafka_statistics, that_cannot_be_read_change_nothing)
{
    static const char *const bad[] = {"", "{", "[]", "17", "{\"brokers\": 5, \"msg_cnt\": \"x\"}"};
    slot.kafka_fetch_queue = 5;
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++)
        when_shown(RD_KAFKA_PRODUCER, bad[i]);
    cr_expect_eq(slot.kafka_fetch_queue, 5);
}
