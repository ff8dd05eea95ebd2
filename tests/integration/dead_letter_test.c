/* `userd dead-letters`: what could not be applied is seen, sent again and set aside. */
#include <criterion/criterion.h>
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
