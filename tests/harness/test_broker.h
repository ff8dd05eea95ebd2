/* The embedded broker, and the peers that speak through it: a producer of `registration` and
 * `admin_delete_user`, and a reader of what userd publishes. */
#ifndef USERD_TESTS_HARNESS_TEST_BROKER_H
#define USERD_TESTS_HARNESS_TEST_BROKER_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/attributes.h"

#include "tests/harness/test_process.h"

struct test_broker {
    struct test_process process;
    char servers[128];
    rd_kafka_t *producer; /* owned; made when first needed */
};

struct test_record {
    char *key; /* NULL: none. Both malloc'ed, with a NUL behind */
    char *value;
    size_t value_length;
    char *headers; /* "name=value\n" for each, in order; malloc'ed */
};

struct test_reader {
    rd_kafka_t *consumer; /* owned */
};

void test_broker_start(struct test_broker *broker, const char *directory);
void test_broker_stop(struct test_broker *broker);

/* Appends to a partition (or RD_KAFKA_PARTITION_UA): records of one partition between two flushes
 * come to a consumer together. */
void test_broker_append(struct test_broker *broker, const char *topic, int32_t partition,
    const void *value, size_t length);
/* Waits for the acknowledgement of all. */
void test_broker_flush(struct test_broker *broker);
/* Both. */
void test_broker_produce(struct test_broker *broker, const char *topic, int32_t partition,
    const void *value, size_t length);
/* With headers: pairs of name and value, ended by NULL. No value: Kafka's null. */
void test_broker_send_with(
    struct test_broker *broker, const char *topic, const char *json, const char *const *headers);
void test_broker_send(struct test_broker *broker, const char *topic, const char *json);

/* Reads all partitions of a topic (three) from their beginning. */
void test_reader_open(
    struct test_reader *reader, const struct test_broker *broker, const char *topic);
void test_reader_close(struct test_reader *reader);
/* False when none came in time. Free the record with test_record_cleanup(). */
bool test_reader_next(
    struct test_reader *reader, struct test_record *ret_record, int64_t timeout_ms);
void test_record_cleanup(struct test_record *record);

#endif
