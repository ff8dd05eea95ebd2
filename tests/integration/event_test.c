/* Events, in and out: what Auth and the administrators' service send takes effect, what leaves is
 * exactly what the platform expects, and nothing that arrives can stop a partition. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "tests/harness/test_userd.h"

#define MIB (1024 * 1024)

static struct test_userd userd;
static struct test_reader reader;

static void init(void)
{
    static const struct test_userd_options options = {.workers = 2, .has_broker = true};
    given_userd(&userd, &options);
}

static void fini(void)
{
    test_reader_close(&reader);
    finally_userd(&userd);
}

TestSuite(event, .init = init, .fini = fini, .timeout = 240);

static void when_sent(const char *topic, const char *json)
{
    test_broker_send(&userd.broker, topic, json);
}

static void then_nothing_more_is_published(void)
{
    then_database_says(&userd, "SELECT count(*) FROM outbox", "0");
    struct test_record record;
    bool is_there = test_reader_next(&reader, &record, 300);
    cr_assert(!is_there, "published once more");
}

Test(event, registers_a_user)
{
    when_sent("registration", "{\"id\": 17, \"username\": \"trinity\"}");
    then_name_becomes(&userd, 17, "trinity");
    struct test_reply reply;
    when_asked_for_id(&userd, "TRINITY", &reply);
    cr_assert_eq(reply.status, GRPC_STATUS_OK, "%s", reply.message);
    test_reply_cleanup(&reply);
}

Test(event, never_overwrites_a_user_that_exists)
{
    given_user(&userd, 17, "trinity");
    when_sent("registration", "{\"id\": 17, \"username\": \"impostor\"}");
    when_sent("registration", "{\"id\": 18, \"username\": \"morpheus\"}");
    then_name_becomes(&userd, 18, "morpheus");
    then_database_says(&userd, "SELECT coalesce(sum(next_offset), 0) FROM consumed_offset", "2");
    then_name_is(&userd, 17, "trinity");
}

Test(event, is_never_refused_for_its_name)
{
    given_user(&userd, 1, "trinity");
    when_sent("registration", "{\"id\": 2, \"username\": \"Trinity\"}");
    when_sent("registration", "{\"id\": 3, \"username\": \"neo\"}");
    when_sent("registration", "{\"id\": 4, \"username\": \"\"}");
    then_name_becomes(&userd, 2, "Trinity");
    then_name_becomes(&userd, 3, "neo");
    then_name_becomes(&userd, 4, "");
    then_database_says(
        &userd, "SELECT string_agg(id_auth::text, ',' ORDER BY id_auth) FROM username_claim", "1");
}

/* Each of them is one to the legacy service, or would have ended it. */
Test(event, is_never_refused_for_what_nobody_reads)
{
    when_sent("registration", "{\"id\": 1, \"username\": \"tri\\u0000nity\"}");
    when_sent("registration", "{\"id\": 2, \"username\": \"tri\\ud800nity\"}");
    when_sent("registration", "{\"id\": 8, \"username\": \"morpheus\", \"id\": 3}");
    when_sent("registration",
        "{\"id\": 4, \"username\": \"niobe\", \"a\": NaN, \"b\": 1e999, \"c\": \"\\u0000\\udc00\", "
        "\"d\": 99999999999999999999}");
    then_name_becomes(&userd, 1, "tri\xef\xbf\xbdnity");
    then_name_becomes(&userd, 2, "tri\xef\xbf\xbdnity");
    then_name_becomes(&userd, 3, "morpheus");
    then_name_becomes(&userd, 4, "niobe");
    then_database_says(&userd,
        "SELECT string_agg(id_auth::text, ',' ORDER BY id_auth) FROM username_claim", "3,4");
    then_database_says(&userd, "SELECT count(*) FROM outbox", "0");
}

Test(event, delete_is_published_exactly_as_the_platform_reads_it)
{
    test_reader_open(&reader, &userd.broker, "delete");
    given_user(&userd, 17, "trinity");
    struct test_reply reply;
    when_deleted(&userd, 17, &reply);
    cr_assert_eq(reply.status, GRPC_STATUS_OK, "%s", reply.message);
    test_reply_cleanup(&reply);

    struct test_record record;
    cr_assert(test_reader_next(&reader, &record, TEST_TIMEOUT_MS), "nothing on the topic delete");
    cr_assert_str_eq(record.value, "{\"id\": 17}");
    cr_assert_str_eq(record.key, "17");
    cr_assert(
        strstr(record.headers, "ce_specversion=1.0\n") != NULL, "headers: %s", record.headers);
    cr_assert(strstr(record.headers, "ce_id=") != NULL, "headers: %s", record.headers);
    test_record_cleanup(&record);
    then_nothing_more_is_published();
}

Test(event, of_an_administrator_deletes_the_user_and_is_told_to_the_others)
{
    test_reader_open(&reader, &userd.broker, "delete");
    given_user(&userd, 17, "trinity");
    when_sent("admin_delete_user", "{\"id\": 17}");
    then_name_becomes(&userd, 17, NULL);
    struct test_record record;
    cr_assert(test_reader_next(&reader, &record, TEST_TIMEOUT_MS), "nothing on the topic delete");
    cr_assert_str_eq(record.value, "{\"id\": 17}");
    test_record_cleanup(&record);
    then_nothing_more_is_published();
}

Test(event, of_an_absent_users_deletion_publishes_nothing)
{
    test_reader_open(&reader, &userd.broker, "delete");
    when_sent("admin_delete_user", "{\"id\": 404}");
    then_database_says(&userd, "SELECT coalesce(sum(next_offset), 0) FROM consumed_offset", "1");
    then_nothing_more_is_published();
    then_database_says(&userd, "SELECT count(*) FROM user_tombstone WHERE id_auth = 404", "1");
}

Test(event, of_registration_after_a_deletion_does_nothing)
{
    when_sent("admin_delete_user", "{\"id\": 17}");
    then_database_says(&userd, "SELECT count(*) FROM user_tombstone WHERE id_auth = 17", "1");
    when_sent("registration", "{\"id\": 17, \"username\": \"trinity\"}");
    when_sent("registration", "{\"id\": 18, \"username\": \"morpheus\"}");
    then_name_becomes(&userd, 18, "morpheus");
    then_database_says(
        &userd, "SELECT sum(next_offset) FROM consumed_offset WHERE topic = 'registration'", "2");
    then_database_says(&userd, "SELECT count(*) FROM \"user\" WHERE id_auth = 17", "0");
}

static const struct {
    const char *topic;
    const char *value;
    size_t length; /* 0: as long as the text */
} bad_events[] = {
    {"registration", "not json", 0},
    {"registration", "", 0},
    {"registration", "[1, 2]", 0},
    {"registration", "17", 0},
    {"registration", "null", 0},
    {"registration", "{\"username\": \"trinity\"}", 0},
    {"registration", "{\"id\": 17}", 0},
    {"registration", "{\"id\": 2147483648, \"username\": \"trinity\"}", 0},
    {"registration", "{\"id\": -2147483649, \"username\": \"trinity\"}", 0},
    {"registration", "{\"id\": \"17\", \"username\": \"trinity\"}", 0},
    {"registration", "{\"id\": 17.5, \"username\": \"trinity\"}", 0},
    {"registration", "{\"id\": 99999999999999999999, \"username\": \"trinity\"}", 0},
    {"registration", "{\"id\": 17, \"username\": 5}", 0},
    {"registration", "{\"id\": 17, \"username\": null}", 0},
    {"registration", "{\"id\": 17\0, \"username\": \"trinity\"}", 33},
    {"registration", "{\"id\": 17, \"username\": \"tri\xFFnity\"}", 0},
    {"registration", "{\"id\": 17, \"username\": \"trinity\", \"more\": 1e}", 0},
    {"registration", "{\"id\": 17, \"username\": \"trinity\"} {}", 0},
    {"registration", "{\"id\": 17, \"username\": \"tri\0nity\"}", 34},
    {"admin_delete_user", "{}", 0},
    {"admin_delete_user", "{\"id\": true}", 0},
    {"admin_delete_user", "{\"id\": 17", 0},
};

Test(event, that_cannot_be_read_becomes_a_dead_letter_and_the_partition_goes_on)
{
    test_reader_open(&reader, &userd.broker, "user_service.dead_letter");
    for (size_t i = 0; i < ARRAY_LENGTH(bad_events); i++) {
        size_t length =
            bad_events[i].length > 0 ? bad_events[i].length : strlen(bad_events[i].value);
        test_broker_produce(&userd.broker, bad_events[i].topic, 1, bad_events[i].value, length);
    }
    test_broker_produce(
        &userd.broker, "registration", 1, "{\"id\": 50, \"username\": \"trinity\"}", 33);
    then_name_becomes(&userd, 50, "trinity");
    then_database_says(&userd, "SELECT count(*) FROM \"user\"", "1");

    for (size_t i = 0; i < ARRAY_LENGTH(bad_events); i++) {
        struct test_record record;
        cr_assert(test_reader_next(&reader, &record, TEST_TIMEOUT_MS), "%zu dead letters only", i);
        cr_assert(strstr(record.headers, "dlq-reason=") != NULL, "no reason for: %s", record.value);
        cr_assert(strstr(record.headers, "dlq-original-partition=1\n") != NULL, "headers: %s",
            record.headers);
        bool is_known = false;
        for (size_t j = 0; j < ARRAY_LENGTH(bad_events) && !is_known; j++) {
            size_t length =
                bad_events[j].length > 0 ? bad_events[j].length : strlen(bad_events[j].value);
            is_known = length == record.value_length &&
                       memcmp(bad_events[j].value, record.value, length) == 0;
        }
        cr_assert(is_known, "a dead letter is not what was sent: %s", record.value);
        test_record_cleanup(&record);
    }
}

Test(event, far_over_the_size_limit_becomes_a_dead_letter_and_the_partition_goes_on)
{
    /* The embedded broker keeps 5 MiB of a partition: ten are sent in the tests with a real one. */
    test_reader_open(&reader, &userd.broker, "user_service.dead_letter");
    size_t length = 4 * (size_t)MIB;
    char *value = malloc(length);
    cr_assert(value != NULL);
    memset(value, 'x', length);
    memcpy(value, "{\"id\": 17, \"username\": \"", 24);
    memcpy(value + length - 2, "\"}", 2);
    test_broker_produce(&userd.broker, "registration", 0, value, length);
    free(value);
    test_broker_produce(
        &userd.broker, "registration", 0, "{\"id\": 50, \"username\": \"trinity\"}", 33);
    then_name_becomes(&userd, 50, "trinity");
    struct test_record record;
    cr_assert(test_reader_next(&reader, &record, TEST_TIMEOUT_MS), "no dead letter");
    cr_assert(strstr(record.headers, "dlq-reason=") != NULL, "headers: %s", record.headers);
    test_record_cleanup(&record);
    then_database_says(&userd, "SELECT count(*) FROM \"user\" WHERE id_auth = 17", "0");
}

#define TRACEPARENT "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

/* The next event on the reader's topic holds the header, or none of that name. */
static void then_traceparent_is(const char *expected)
{
    struct test_record record;
    cr_assert(test_reader_next(&reader, &record, TEST_TIMEOUT_MS), "nothing is published");
    const char *found = strstr(record.headers, "traceparent=");
    if (expected == NULL)
        cr_assert(found == NULL, "headers: %s", record.headers);
    else
        cr_assert(found != NULL && strncmp(found + 12, expected, strlen(expected)) == 0 &&
                      found[12 + strlen(expected)] == '\n',
            "headers: %s", record.headers);
    test_record_cleanup(&record);
}

static void when_deleted_with(int32_t auth_id, const char *traceparent)
{
    struct test_reply reply;
    given_user(&userd, auth_id, "trinity");
    userd.gateway.traceparent = traceparent;
    when_deleted(&userd, auth_id, &reply);
    cr_assert_eq(reply.status, GRPC_STATUS_OK, "%s", reply.message);
    test_reply_cleanup(&reply);
}

Test(event, carries_the_trace_of_the_call_that_it_tells_of)
{
    test_reader_open(&reader, &userd.broker, "delete");
    when_deleted_with(17, TRACEPARENT);
    then_traceparent_is(TRACEPARENT);
    when_deleted_with(18, NULL);
    then_traceparent_is(NULL);
    when_deleted_with(19, "00-made-up");
    then_traceparent_is(NULL);
    when_deleted_with(20, "00-00000000000000000000000000000000-00f067aa0ba902b7-01");
    then_traceparent_is(NULL);
}

Test(event, carries_the_trace_of_the_record_that_caused_it)
{
    static const char *const headers[] = {"traceparent", TRACEPARENT, NULL};
    test_reader_open(&reader, &userd.broker, "delete");
    given_user(&userd, 17, "trinity");
    test_broker_send_with(&userd.broker, "admin_delete_user", "{\"id\": 17}", headers);
    then_traceparent_is(TRACEPARENT);
    then_nothing_more_is_published();
}

Test(event, that_becomes_a_dead_letter_is_logged_with_its_trace)
{
    static const char *const headers[] = {"traceparent", TRACEPARENT, NULL};
    test_reader_open(&reader, &userd.broker, "user_service.dead_letter");
    test_broker_send_with(&userd.broker, "admin_delete_user", "{}", headers);
    then_traceparent_is(TRACEPARENT);
    then_log_says(&userd, "traceparent=" TRACEPARENT);
}
