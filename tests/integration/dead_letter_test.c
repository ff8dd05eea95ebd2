/* `userd dead-letters`: what could not be applied is seen, sent again and set aside. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "tests/harness/test_userd.h"

#define DEAD_LETTERS "user_service.dead_letter"

static struct test_userd userd;
static struct test_reader reader;

static void init(void)
{
    static const struct test_userd_options options = {
        .workers = 1, .has_broker = true, .limit_settings = "event_bytes = 1024;"};
    given_userd(&userd, &options);
}

static void fini(void)
{
    test_reader_close(&reader);
    finally_userd(&userd);
}

TestSuite(dead_letters, .init = init, .fini = fini, .timeout = 240);

/* Dead letters that are in their topic: `count` of them, all from garbage on `registration`. */
static void given_dead_letters(int count)
{
    test_reader_open(&reader, &userd.broker, DEAD_LETTERS);
    for (int i = 0; i < count; i++)
        test_broker_produce(&userd.broker, "registration", 1, "{\"id\": \"seventeen\"}", 19);
    for (int i = 0; i < count; i++) {
        struct test_record record;
        cr_assert(test_reader_next(&reader, &record, TEST_TIMEOUT_MS), "%d dead letters only", i);
        test_record_cleanup(&record);
    }
}

/* The output is asserted to hold `text` (NULL: anything); the caller's to free. */
static char *then_told(const char *const *words, int expected_status, const char *text)
{
    const char *arguments[8] = {"dead-letters"};
    for (size_t i = 0; words[i] != NULL && i + 2 < ARRAY_LENGTH(arguments); i++)
        arguments[i + 1] = words[i];
    char *output = NULL;
    int status = when_userd_is_told(&userd, arguments, &output);
    cr_assert(status == expected_status, "%s ended with %d: %s", words[0], status, output);
    cr_assert(text == NULL || strstr(output, text) != NULL, "%s does not say \"%s\": %s", words[0],
        text, output);
    return output;
}

#define TELL(...) ((const char *const[]){__VA_ARGS__, NULL})

static void then_says(const char *const *words, int expected_status, const char *text)
{
    free(then_told(words, expected_status, text));
}

/* The first ID of the list, which is the first word of its second line. */
static void first_id(char ret_id[32])
{
    char *output = then_told(TELL("list"), EX_OK, "ID ");
    const char *line = strchr(strstr(output, "ID "), '\n');
    cr_assert(line != NULL && sscanf(line + 1, "%31s", ret_id) == 1, "%s", output);
    free(output);
}

Test(dead_letters, are_none_at_first)
{
    then_says(TELL("list"), EX_OK, "0 dead letters pending");
}

Test(dead_letters, are_listed_and_shown)
{
    given_dead_letters(3);
    char *output = then_told(TELL("list"), EX_OK, "3 dead letters pending");
    cr_assert(strstr(output, "registration/1@2") != NULL, "no origin: %s", output);
    cr_assert(strstr(output, "undecodable") != NULL, "no reason: %s", output);
    cr_assert(strstr(output, "seventeen") == NULL, "a list shows a value: %s", output);
    free(output);
    char id[32];
    first_id(id);
    output = then_told(TELL("show", id), EX_OK, "value: {\"id\": \"seventeen\"}");
    cr_assert(strstr(output, "header dlq-original-topic: registration") != NULL, "%s", output);
    cr_assert(strstr(output, "state: pending") != NULL, "%s", output);
    free(output);
}

Test(dead_letters, take_effect_when_what_was_wrong_is_mended)
{
    /* Over limits.event_bytes, which then is raised. */
    char value[2048];
    int length = snprintf(value, sizeof(value),
        "{\"id\": 17, \"username\": \"trinity\", \"more\": "
        "\"%01500d\"}",
        0);
    test_broker_produce(&userd.broker, "registration", 0, value, (size_t)length);
    then_database_says(&userd, "SELECT sum(next_offset) FROM consumed_offset", "1");
    then_database_says(&userd, "SELECT count(*) FROM outbox", "0");
    then_name_becomes(&userd, 17, NULL);
    when_userd_stops(&userd);
    char *config = test_file_read(userd.config_path, NULL);
    char *limit = strstr(config, "event_bytes = 1024");
    cr_assert(limit != NULL);
    memcpy(limit, "event_bytes = 4096", strlen("event_bytes = 4096"));
    test_file_write(userd.config_path, config);
    free(config);
    when_userd_starts(&userd);
    then_says(TELL("replay", "--all"), EX_OK, "1 dead letters sent again");
    then_name_becomes(&userd, 17, "trinity");
    then_says(TELL("list"), EX_OK, "0 dead letters pending");
}

Test(dead_letters, go_back_to_their_topic_as_they_came_with_the_number_of_the_try)
{
    given_dead_letters(1);
    struct test_reader registrations;
    test_reader_open(&registrations, &userd.broker, "registration");
    for (int redrive = 1; redrive <= 2; redrive++) {
        then_says(TELL("replay", "--all"), EX_OK, "1 dead letters sent again");
        struct test_record record = {0};
        char expected[32];
        (void)snprintf(expected, sizeof(expected), "dlq-redrive=%d\n", redrive);
        do {
            test_record_cleanup(&record);
            cr_assert(test_reader_next(&registrations, &record, TEST_TIMEOUT_MS), "not sent again");
        } while (*record.headers == '\0');
        cr_assert_str_eq(record.headers, expected);
        cr_assert_str_eq(record.value, "{\"id\": \"seventeen\"}");
        cr_assert(record.key == NULL);
        test_record_cleanup(&record);
        /* It is as wrong as before: a new dead letter, which knows of its tries. */
        cr_assert(test_reader_next(&reader, &record, TEST_TIMEOUT_MS), "no dead letter again");
        cr_assert(strstr(record.headers, expected) != NULL, "headers: %s", record.headers);
        test_record_cleanup(&record);
        then_says(TELL("list"), EX_OK, "1 dead letters pending");
    }
    test_reader_close(&registrations);
}

Test(dead_letters, are_handled_one_by_one_in_any_order)
{
    given_dead_letters(6);
    char *output = then_told(TELL("list"), EX_OK, "6 dead letters pending");
    /* The last one first: what lies before it stays pending. */
    char last[32] = "";
    char *rest = NULL;
    for (char *line = strtok_r(output, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        char word[32] = "";
        if (sscanf(line, "%31s", word) == 1 && strchr(word, ':') != NULL)
            memcpy(last, word, sizeof(last));
    }
    free(output);
    then_says(TELL("drop", last), EX_OK, "1 dead letters dropped");
    then_says(TELL("list"), EX_OK, "5 dead letters pending");
    then_says(TELL("drop", last), EX_OK, "handled already");
    then_says(TELL("show", last), EX_OK, "state: handled");
    char first[32];
    first_id(first);
    then_says(TELL("replay", first), EX_OK, "1 dead letters sent again");
    struct test_record record;
    cr_assert(test_reader_next(&reader, &record, TEST_TIMEOUT_MS), "no dead letter again");
    test_record_cleanup(&record);
    then_says(TELL("list"), EX_OK, "5 dead letters pending");
    then_says(TELL("drop", "--all"), EX_OK, "5 dead letters dropped");
    then_says(TELL("list"), EX_OK, "0 dead letters pending");
}

Test(dead_letters, that_are_not_there_are_said)
{
    given_dead_letters(1);
    then_says(TELL("show", "0:4711"), EX_DATAERR, "0:4711: there is no such dead letter");
    then_says(TELL("replay", "77:1"), EX_DATAERR, "77:1: there is no such dead letter");
    then_says(TELL("list"), EX_OK, "1 dead letters pending");
}

Test(dead_letters, refuse_words_that_make_no_sense)
{
    then_says(TELL("replay"), EX_USAGE, "either IDs or --all");
    then_says(TELL("drop", "--all", "0:1"), EX_USAGE, "either IDs or --all");
    then_says(TELL("drop", "1"), EX_USAGE, "PARTITION:OFFSET");
    then_says(TELL("show"), EX_USAGE, "one ID");
    then_says(TELL("burn", "0:1"), EX_USAGE, "list, show, replay and drop");
    then_says(TELL("show", "0:1", "--json"), EX_USAGE, "--json belongs to list");
    then_says(TELL("replay", "0:1", "--json"), EX_USAGE, "--json belongs to list");
    then_says(TELL("drop", "--all", "--json"), EX_USAGE, "--json belongs to list");
    then_says(TELL("list", "--value", "x"), EX_USAGE, "--value belongs to replay");
    then_says(TELL("drop", "0:1", "--value", "x"), EX_USAGE, "--value belongs to replay");
    then_says(TELL("replay", "--all", "--value", "x"), EX_USAGE, "--value takes one ID");
    then_says(TELL("replay", "0:1", "0:2", "--value", "x"), EX_USAGE, "--value takes one ID");
}

/* The output of `dead-letters list --json`: one object, the caller's to free. */
static json_t *list_as_json(void)
{
    /* Behind what the log says, and before what it may say then. */
    char *output = then_told(TELL("list", "--json"), EX_OK, "{\"topic\"");
    json_error_t error;
    json_t *list = json_loads(strstr(output, "{\"topic\""), JSON_DISABLE_EOF_CHECK, &error);
    cr_assert_not_null(list, "%s: %s", error.text, output);
    free(output);
    return list;
}

static const char *text_of(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text == NULL ? "(none)" : text;
}

Test(dead_letters, are_listed_as_json)
{
    json_t *list = list_as_json();
    cr_assert_eq(json_integer_value(json_object_get(list, "pending")), 0);
    cr_assert_eq(json_array_size(json_object_get(list, "letters")), 0);
    json_decref(list);
    given_dead_letters(2);
    list = list_as_json();
    cr_assert_eq(json_integer_value(json_object_get(list, "pending")), 2);
    cr_assert_str_eq(text_of(list, "topic"), DEAD_LETTERS);
    cr_assert_eq(json_array_size(json_object_get(list, "letters")), 2);
    const json_t *letter = json_array_get(json_object_get(list, "letters"), 1);
    cr_expect(strchr(text_of(letter, "id"), ':') != NULL, "%s", text_of(letter, "id"));
    cr_expect_gt(json_integer_value(json_object_get(letter, "written_at")), 1700000000);
    cr_expect_str_eq(text_of(letter, "reason"), "undecodable");
    cr_expect_str_eq(text_of(letter, "error"), "id is not an integer");
    cr_expect_eq(json_integer_value(json_object_get(letter, "attempts")), 1);
    cr_expect_eq(json_integer_value(json_object_get(letter, "redrives")), 0);
    cr_expect_eq(strlen(text_of(letter, "event_id")), 36, "%s", text_of(letter, "event_id"));
    const json_t *from = json_object_get(letter, "from");
    cr_expect_str_eq(text_of(from, "topic"), "registration");
    cr_expect_eq(json_integer_value(json_object_get(from, "partition")), 1);
    json_decref(list);
}

/* Anyone may write into the topic. */
Test(dead_letters, that_are_not_ours_are_listed_as_json)
{
    test_broker_produce(&userd.broker, DEAD_LETTERS, 0, "\xff", 1);
    json_t *list = list_as_json();
    const json_t *letter = json_array_get(json_object_get(list, "letters"), 0);
    cr_assert_str_eq(text_of(letter, "id"), "0:0");
    cr_assert(json_is_null(json_object_get(letter, "from")));
    cr_assert(json_is_null(json_object_get(letter, "reason")));
    cr_assert(json_is_null(json_object_get(letter, "event_id")));
    json_decref(list);
}

Test(dead_letters, go_back_with_a_mended_value)
{
    given_dead_letters(2);
    char path[128];
    char id[32];
    (void)snprintf(path, sizeof(path), "%s/mended.json", userd.directory);
    first_id(id);
    then_says(TELL("replay", id, "--value", path), EX_DATAERR, "mended.json: No such file");
    test_file_write(path, "");
    then_says(TELL("replay", id, "--value", path), EX_DATAERR, "mended.json: it is empty");
    char *large = calloc(1, 1026);
    cr_assert_not_null(large);
    memset(large, ' ', 1025);
    test_file_write(path, large);
    free(large);
    then_says(TELL("replay", id, "--value", path), EX_DATAERR,
        "mended.json: it has more than limits.event_bytes, 1024 bytes");
    then_says(TELL("list"), EX_OK, "2 dead letters pending");
    test_file_write(path, "{\"id\": 17, \"username\": \"trinity\"}\n");
    then_says(TELL("replay", id, "--value", path), EX_OK, "1 dead letters sent again");
    then_name_becomes(&userd, 17, "trinity");
    then_says(TELL("list"), EX_OK, "1 dead letters pending");
    then_says(TELL("show", id), EX_OK, "state: handled");
}

/* What was too large to travel has a value again. */
Test(dead_letters, whose_value_was_left_behind_go_back_with_another)
{
    static const char *const headers[] = {
        "dlq-original-topic", "registration", "dlq-reason", "refused", NULL};
    test_broker_send_with(&userd.broker, DEAD_LETTERS, NULL, headers);
    then_says(TELL("replay", "--all"), EX_DATAERR, "its value was too large to be kept");
    char path[128];
    char id[32];
    (void)snprintf(path, sizeof(path), "%s/mended.json", userd.directory);
    test_file_write(path, "{\"id\": 17, \"username\": \"trinity\"}");
    first_id(id);
    then_says(TELL("replay", id, "--value", path), EX_OK, "1 dead letters sent again");
    then_name_becomes(&userd, 17, "trinity");
}

/* As the outbox row has it, from which each repeat comes. */
Test(dead_letters, carry_the_id_of_their_event)
{
    test_reader_open(&reader, &userd.broker, DEAD_LETTERS);
    static const char insert[] =
        "INSERT INTO outbox (destination, value, header_names, header_values, event_id)"
        " SELECT 2, 'x', '{dlq-reason}', ARRAY['test'::bytea],"
        " '0123abcd-0123-4567-89ab-0123456789ab' FROM generate_series(1, 2)";
    test_database_execute(&userd.database, insert);
    for (int i = 0; i < 2; i++) {
        struct test_record record;
        cr_assert(test_reader_next(&reader, &record, TEST_TIMEOUT_MS), "%d dead letters only", i);
        cr_assert(
            strstr(record.headers, "dlq-event-id=0123abcd-0123-4567-89ab-0123456789ab\n") != NULL,
            "headers: %s", record.headers);
        test_record_cleanup(&record);
    }
}

/* `count` headers of their own numbers. */
static void when_garbage_with_headers_is_sent(size_t count)
{
    const char **headers = calloc(2 * count + 1, sizeof(*headers));
    char *texts = calloc(count, 8);
    cr_assert(headers != NULL && texts != NULL);
    for (size_t i = 0; i < count; i++) {
        (void)snprintf(texts + 8 * i, 8, "%zu", i);
        headers[2 * i] = "n";
        headers[2 * i + 1] = texts + 8 * i;
    }
    test_broker_send_with(&userd.broker, "registration", "garbage", headers);
    free(headers);
    free(texts);
}

static void then_letter_has_headers(size_t count, const char *dropped)
{
    struct test_record record;
    cr_assert(test_reader_next(&reader, &record, TEST_TIMEOUT_MS), "no dead letter");
    size_t found = 0;
    for (const char *place = record.headers; (place = strstr(place, "n=")) != NULL; place++) {
        if (place != record.headers && place[-1] != '\n')
            continue;
        cr_assert_eq(strtoul(place + 2, NULL, 10), found);
        found++;
    }
    cr_assert_eq(found, count);
    const char *said = strstr(record.headers, "dlq-headers-dropped=");
    if (dropped == NULL)
        cr_assert_null(said, "%s", said);
    else
        cr_assert(said != NULL && strncmp(said, dropped, strlen(dropped)) == 0, "%s", said);
    test_record_cleanup(&record);
}

Test(dead_letters, keep_their_headers_or_say_how_many_are_dropped)
{
    test_reader_open(&reader, &userd.broker, DEAD_LETTERS);
    when_garbage_with_headers_is_sent(10000);
    then_letter_has_headers(10000, NULL);
    when_garbage_with_headers_is_sent(10234);
    then_letter_has_headers(10000, "dlq-headers-dropped=234\n");
}

Test(dead_letters, of_a_topic_that_is_not_there_are_an_error)
{
    when_userd_stops(&userd);
    when_config_changes(&userd, "kafka = {",
        "kafka = { dead_letter_topic = \"never.made\"; create_topics = false;");
    static const char expected[] = "never.made: there is no such topic, or it is closed to us";
    then_says(TELL("list"), EX_DATAERR, expected);
    then_says(TELL("list", "--json"), EX_DATAERR, expected);
    then_says(TELL("show", "0:1"), EX_DATAERR, expected);
    then_says(TELL("replay", "--all"), EX_DATAERR, expected);
    then_says(TELL("drop", "--all"), EX_DATAERR, expected);
}

/* Not a broker that was stopped: another test's could get its port. */
static void init_without_kafka(void)
{
    static const struct test_userd_options options = {.skips_start = true};
    given_userd(&userd, &options);
}

TestSuite(dead_letters_without_kafka, .init = init_without_kafka, .fini = fini, .timeout = 120);

Test(dead_letters_without_kafka, end_with_a_clear_word)
{
    int64_t begun_ms = test_now_ms();
    then_says(TELL("list"), EX_UNAVAILABLE, "kafka does not answer");
    then_says(TELL("replay", "--all"), EX_UNAVAILABLE, "kafka does not answer");
    cr_assert_lt(test_now_ms() - begun_ms, 40000);
}
