#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "common/settings.h"
#include "eventd/kafka_client.h"
#include "eventd/kafka_options.h"

static struct settings settings;

static void init(void)
{
    cr_assert_eq(settings_init(&settings), 0);
}

static void fini(void)
{
    settings_cleanup(&settings);
}

TestSuite(kafka_options, .init = init, .fini = fini);

static void given(const char *property, const char *value)
{
    cr_assert_eq(settings_add_kafka_option(&settings, property, value, false, NULL, 7), 0);
}

/* What a configuration holds after the options were applied. */
static void then_value_is(rd_kafka_type_t type, const char *property, const char *expected)
{
    char value[64] = "";
    size_t size = sizeof(value);
    rd_kafka_conf_t *configuration = rd_kafka_conf_new();
    cr_assert_eq(kafka_options_apply(&settings, type, configuration), 0);
    cr_assert_eq(rd_kafka_conf_get(configuration, property, value, &size), RD_KAFKA_CONF_OK);
    cr_expect_str_eq(value, expected, "%s is %s", property, value);
    rd_kafka_conf_destroy(configuration);
}

Test(kafka_options, reach_both_clients)
{
    given("client.rack", "eu-1");
    then_value_is(RD_KAFKA_PRODUCER, "client.rack", "eu-1");
    then_value_is(RD_KAFKA_CONSUMER, "client.rack", "eu-1");
}

Test(kafka_options, of_one_client_do_not_reach_the_other)
{
    given("compression.codec", "lz4");
    given("fetch.min.bytes", "77");
    then_value_is(RD_KAFKA_PRODUCER, "compression.codec", "lz4");
    then_value_is(RD_KAFKA_CONSUMER, "compression.codec", "none");
    then_value_is(RD_KAFKA_CONSUMER, "fetch.min.bytes", "77");
    then_value_is(RD_KAFKA_PRODUCER, "fetch.min.bytes", "1");
}

Test(kafka_options, that_librdkafka_does_not_know_are_refused)
{
    given("securty.protocol", "SSL");
    rd_kafka_conf_t *configuration = rd_kafka_conf_new();
    cr_expect_eq(kafka_options_apply(&settings, RD_KAFKA_PRODUCER, configuration), -EINVAL);
    rd_kafka_conf_destroy(configuration);
}

Test(kafka_options, with_a_value_that_librdkafka_does_not_take_are_refused)
{
    given("security.protocol", "CARRIER_PIGEON");
    rd_kafka_t *client = NULL;
    cr_expect_eq(kafka_client_new_consumer(&settings, &client), -EINVAL);
    cr_expect_null(client);
}

/* What a consumer takes, the reader of dead letters takes too. */
Test(kafka_options, hold_for_the_reader_as_for_the_consumer)
{
    static const char *const properties[] = {
        "session.timeout.ms", "heartbeat.interval.ms", "max.poll.interval.ms"};
    settings.kafka.session_timeout_ms = 12000;
    given("max.poll.interval.ms", "40000");
    rd_kafka_t *reader = NULL;
    cr_assert_eq(kafka_client_new_reader(&settings, "letters", &reader), 0);
    rd_kafka_t *consumer = NULL;
    cr_assert_eq(kafka_client_new_consumer(&settings, &consumer), 0);
    for (size_t i = 0; i < ARRAY_LENGTH(properties); i++) {
        char expected[64] = "";
        char value[64] = "";
        size_t size = sizeof(value);
        (void)rd_kafka_conf_get(rd_kafka_conf(consumer), properties[i], expected, &size);
        size = sizeof(value);
        (void)rd_kafka_conf_get(rd_kafka_conf(reader), properties[i], value, &size);
        cr_expect_str_eq(value, expected, "%s", properties[i]);
    }
    char group[64] = "";
    size_t size = sizeof(group);
    (void)rd_kafka_conf_get(rd_kafka_conf(reader), "group.id", group, &size);
    cr_expect_str_eq(group, "letters");
    rd_kafka_destroy(reader);
    rd_kafka_destroy(consumer);
}

Test(kafka_options, win_over_our_own_choice)
{
    given("socket.timeout.ms", "4321");
    rd_kafka_t *client = NULL;
    cr_assert_eq(kafka_client_new_producer(&settings, false, &client), 0);
    char value[64] = "";
    size_t size = sizeof(value);
    cr_assert_eq(rd_kafka_conf_get(rd_kafka_conf(client), "socket.timeout.ms", value, &size),
        RD_KAFKA_CONF_OK);
    cr_expect_str_eq(value, "4321");
    rd_kafka_destroy(client);
}
