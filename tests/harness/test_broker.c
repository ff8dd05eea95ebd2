#include "tests/harness/test_broker.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOPIC_PARTITIONS 3

static bool read_servers(struct test_broker *broker)
{
    static const char key[] = "bootstrap.servers=";
    char *output = test_file_read(broker->process.output_path, NULL);
    char *value = strstr(output, key);
    char *end = value != NULL ? strchr(value, '\n') : NULL;
    if (end != NULL) {
        *end = '\0';
        (void)snprintf(broker->servers, sizeof(broker->servers), "%s", value + sizeof(key) - 1);
    }
    free(output);
    return end != NULL;
}

void test_broker_start(struct test_broker *broker, const char *directory)
{
    const char *const argv[] = {TEST_EMBEDDED_BROKER, NULL};
    char output_path[PATH_MAX];
    (void)snprintf(output_path, sizeof(output_path), "%s/broker.log", directory);
    *broker = (struct test_broker){0};
    test_process_start(&broker->process, argv, NULL, output_path);
    cr_assert(
        TEST_WAIT_FOR(read_servers(broker), TEST_TIMEOUT_MS), "the embedded broker does not start");
}

void test_broker_stop(struct test_broker *broker)
{
    if (broker->producer != NULL)
        rd_kafka_destroy(broker->producer);
    broker->producer = NULL;
    if (broker->servers[0] == '\0')
        return;
    int status = test_process_stop(&broker->process, SIGTERM, TEST_TIMEOUT_MS);
    broker->servers[0] = '\0';
    if (status != 0) {
        char *output = test_file_read(broker->process.output_path, NULL);
        (void)fprintf(stderr, "---- the embedded broker ended with %d\n%s----\n", status, output);
        free(output);
    }
    cr_expect(status == 0, "the embedded broker ended with %d", status);
}

static rd_kafka_t *new_client(rd_kafka_type_t type, const char *servers)
{
    static const char *const options[][2] = {
        {"group.id", "test_reader"},
        {"enable.auto.commit", "false"},
        {"auto.offset.reset", "earliest"},
        {"fetch.wait.max.ms", "10"},
        {"message.max.bytes", "20000000"},
        {"fetch.message.max.bytes", "20000000"},
        {"allow.auto.create.topics", "false"},
        {"linger.ms", "100"}, /* until a flush */
        {"log_level", "3"},
    };
    char error[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    cr_assert(rd_kafka_conf_set(conf, "bootstrap.servers", servers, error, sizeof(error)) ==
              RD_KAFKA_CONF_OK);
    for (size_t i = 0; i < ARRAY_LENGTH(options); i++)
        (void)rd_kafka_conf_set(conf, options[i][0], options[i][1], error, sizeof(error));
    rd_kafka_t *client = rd_kafka_new(type, conf, error, sizeof(error));
    cr_assert(client != NULL, "%s", error);
    return client;
}

void test_broker_append(struct test_broker *broker, const char *topic, int32_t partition,
    const void *value, size_t length)
{
    if (broker->producer == NULL)
        broker->producer = new_client(RD_KAFKA_PRODUCER, broker->servers);
    rd_kafka_resp_err_t error = rd_kafka_producev(broker->producer, RD_KAFKA_V_TOPIC(topic),
        RD_KAFKA_V_PARTITION(partition), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
        RD_KAFKA_V_VALUE((void *)(uintptr_t)value, length), RD_KAFKA_V_END);
    cr_assert(error == RD_KAFKA_RESP_ERR_NO_ERROR, "produce: %s", rd_kafka_err2str(error));
}

void test_broker_flush(struct test_broker *broker)
{
    rd_kafka_resp_err_t error = rd_kafka_flush(broker->producer, TEST_TIMEOUT_MS);
    cr_assert(error == RD_KAFKA_RESP_ERR_NO_ERROR, "the broker does not acknowledge: %s",
        rd_kafka_err2str(error));
}

void test_broker_produce(struct test_broker *broker, const char *topic, int32_t partition,
    const void *value, size_t length)
{
    test_broker_append(broker, topic, partition, value, length);
    test_broker_flush(broker);
}

void test_broker_send_with(
    struct test_broker *broker, const char *topic, const char *json, const char *const *headers)
{
    if (broker->producer == NULL)
        broker->producer = new_client(RD_KAFKA_PRODUCER, broker->servers);
    size_t length = json == NULL ? 0 : strlen(json);
    rd_kafka_headers_t *list = rd_kafka_headers_new(4);
    for (size_t i = 0; headers[i] != NULL; i += 2)
        (void)rd_kafka_header_add(list, headers[i], -1, headers[i + 1], -1);
    rd_kafka_resp_err_t error = rd_kafka_producev(broker->producer, RD_KAFKA_V_TOPIC(topic),
        RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_VALUE((void *)(uintptr_t)json, length),
        RD_KAFKA_V_HEADERS(list), RD_KAFKA_V_END);
    cr_assert(error == RD_KAFKA_RESP_ERR_NO_ERROR, "produce: %s", rd_kafka_err2str(error));
    test_broker_flush(broker);
}

void test_broker_send(struct test_broker *broker, const char *topic, const char *json)
{
    test_broker_produce(broker, topic, RD_KAFKA_PARTITION_UA, json, strlen(json));
}

void test_reader_open(
    struct test_reader *reader, const struct test_broker *broker, const char *topic)
{
    reader->consumer = new_client(RD_KAFKA_CONSUMER, broker->servers);
    (void)rd_kafka_poll_set_consumer(reader->consumer);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(TOPIC_PARTITIONS);
    for (int32_t partition = 0; partition < TOPIC_PARTITIONS; partition++)
        rd_kafka_topic_partition_list_add(list, topic, partition)->offset =
            RD_KAFKA_OFFSET_BEGINNING;
    rd_kafka_resp_err_t error = rd_kafka_assign(reader->consumer, list);
    rd_kafka_topic_partition_list_destroy(list);
    cr_assert(error == RD_KAFKA_RESP_ERR_NO_ERROR, "assign: %s", rd_kafka_err2str(error));
}

void test_reader_close(struct test_reader *reader)
{
    if (reader->consumer == NULL)
        return;
    (void)rd_kafka_consumer_close(reader->consumer);
    rd_kafka_destroy(reader->consumer);
    reader->consumer = NULL;
}

static char *copy_text(const void *bytes, size_t length)
{
    char *copy = malloc(length + 1);
    cr_assert(copy != NULL, "out of memory");
    if (length > 0)
        memcpy(copy, bytes, length);
    copy[length] = '\0';
    return copy;
}

static char *copy_headers(const rd_kafka_message_t *message)
{
    rd_kafka_headers_t *headers = NULL;
    char *text = NULL;
    size_t text_length = 0;
    FILE *stream = open_memstream(&text, &text_length);
    cr_assert(stream != NULL, "out of memory");
    if (rd_kafka_message_headers(message, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR) {
        const char *name = NULL;
        const void *value = NULL;
        size_t size = 0;
        for (size_t i = 0; rd_kafka_header_get_all(headers, i, &name, &value, &size) ==
                           RD_KAFKA_RESP_ERR_NO_ERROR;
             i++)
            (void)fprintf(
                stream, "%s=%.*s\n", name, (int)size, value != NULL ? (const char *)value : "");
    }
    (void)fclose(stream);
    return text;
}

bool test_reader_next(
    struct test_reader *reader, struct test_record *ret_record, int64_t timeout_ms)
{
    int64_t deadline_ms = test_now_ms() + timeout_ms;
    while (test_now_ms() < deadline_ms) {
        rd_kafka_message_t *message = rd_kafka_consumer_poll(reader->consumer, 50);
        if (message != NULL && message->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
            *ret_record = (struct test_record){
                .key = message->key != NULL ? copy_text(message->key, message->key_len) : NULL,
                .value = copy_text(message->payload, message->len),
                .value_length = message->len,
                .headers = copy_headers(message),
            };
            rd_kafka_message_destroy(message);
            return true;
        }
        if (message != NULL)
            rd_kafka_message_destroy(message);
    }
    return false;
}

void test_record_cleanup(struct test_record *record)
{
    free(record->key);
    free(record->value);
    free(record->headers);
    *record = (struct test_record){0};
}
