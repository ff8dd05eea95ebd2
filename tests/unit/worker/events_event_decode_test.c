/* worker/events/event_decode: what is an event, and what is said about what is none. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/attributes.h"
#include "worker/events/event_decode.h"

struct refusal_case {
    const char *value;
    const char *reason;
};

/* NULL: it is one. */
static const char *when_decoded_bytes(enum user_event_kind kind, const char *value, size_t length)
{
    struct decoded_event event = {0};
    const char *reason = NULL;
    int result = event_decode(kind, value, length, &event, &reason);
    cr_assert_eq(result, reason == NULL ? 0 : -EBADMSG);
    decoded_event_cleanup(&event);
    return reason;
}

static const char *when_decoded(enum user_event_kind kind, const char *value)
{
    return when_decoded_bytes(kind, value, strlen(value));
}

static void then_registration_is(const char *value, int32_t auth_id, const char *username)
{
    struct decoded_event event = {0};
    const char *reason = NULL;
    int result = event_decode(USER_EVENT_REGISTRATION, value, strlen(value), &event, &reason);
    cr_assert_eq(result, 0, "%s: %s", value, reason);
    cr_assert_eq(event.auth_id, auth_id, "%s", value);
    cr_assert_str_eq(event.username, username, "%s", value);
    cr_assert_eq(event.username_length, strlen(username), "%s", value);
    decoded_event_cleanup(&event);
}

Test(event_decode, reads_a_registration)
{
    then_registration_is(
        "{\"id\": 17, \"username\": \"n\xc3\xa9o\", \"more\": [null]}", 17, "n\xc3\xa9o");
}

Test(event_decode, reads_a_deletion_and_asks_for_no_name)
{
    static const char value[] = " {\"id\":-2147483648}\n";
    struct decoded_event event = {0};
    const char *reason = NULL;
    cr_assert_eq(event_decode(USER_EVENT_ADMIN_DELETE, value, strlen(value), &event, &reason), 0);
    cr_assert_eq(event.auth_id, INT32_MIN);
    cr_assert_null(event.username);
}

/* As the legacy service, which reads with Python's json. */
Test(event_decode, takes_what_the_legacy_service_takes)
{
    static const char *const more[] = {"NaN", "Infinity", "-Infinity", "1e999", "-0",
        "99999999999999999999999999999999999999", "-1E-400", "\"\\u0000\"", "\"\\ud800\"",
        "\"\\udc00\\ud800\"", "[{\"id\": 5, \"id\": \"x\"}, {}, []]"};
    for (size_t i = 0; i < ARRAY_LENGTH(more); i++) {
        char value[200];
        (void)snprintf(value, sizeof(value),
            "{\"more\": %s, \"id\": 17, \"username\": \"trinity\", \"rest\": %s}", more[i],
            more[i]);
        then_registration_is(value, 17, "trinity");
    }
}

Test(event_decode, of_equal_keys_takes_the_last)
{
    then_registration_is("{\"id\":1,\"id\":2,\"username\":\"a\",\"username\":\"b\"}", 2, "b");
    then_registration_is("{\"id\":\"x\",\"username\":null,\"username\":\"b\",\"id\":3}", 3, "b");
    then_registration_is("{\"id\":1,\"\\u0069d\":4,\"username\":\"a\"}", 4, "a");
    cr_assert_str_eq(
        when_decoded(USER_EVENT_REGISTRATION, "{\"id\":1,\"username\":\"a\",\"id\":null}"),
        "id is not an integer");
    cr_assert_str_eq(when_decoded(USER_EVENT_REGISTRATION, "{\"id\\u0000\":1,\"username\":\"a\"}"),
        "id is missing");
}

Test(event_decode, replaces_what_postgresql_cannot_hold)
{
    then_registration_is("{\"id\":1,\"username\":\"a\\u0000b\"}", 1,
        "a\xef\xbf\xbd"
        "b");
    then_registration_is("{\"id\":1,\"username\":\"\\ud800\"}", 1, "\xef\xbf\xbd");
    then_registration_is(
        "{\"id\":1,\"username\":\"\\udc00\\ud83d\"}", 1, "\xef\xbf\xbd\xef\xbf\xbd");
    then_registration_is("{\"id\":1,\"username\":\"\\ud83d\\ud83d\\ude00\\n\"}", 1,
        "\xef\xbf\xbd\xf0\x9f\x98\x80\n");
}

Test(event_decode, takes_any_name_that_is_text)
{
    cr_assert_null(when_decoded(USER_EVENT_REGISTRATION, "{\"id\":2147483647,\"username\":\"\"}"));
    cr_assert_null(
        when_decoded(USER_EVENT_REGISTRATION, "{\"id\":1,\"username\":\" \\ud83d\\ude00 \"}"));
}

Test(event_decode, says_what_is_wrong)
{
    static const struct refusal_case cases[] = {
        {"", "value is not JSON"},
        {"garbage", "value is not JSON"},
        {"{\"id\":1,\"username\":\"a\"", "value is not JSON"},
        {"{'id':1}", "value is not JSON"},
        {"[]", "value is not an object"},
        {"17", "value is not an object"},
        {"null", "value is not an object"},
        {"{}", "id is missing"},
        {"{\"ID\":1,\"username\":\"a\"}", "id is missing"},
        {"{\"id\":null,\"username\":\"a\"}", "id is not an integer"},
        {"{\"id\":true,\"username\":\"a\"}", "id is not an integer"},
        {"{\"id\":1.0,\"username\":\"a\"}", "id is not an integer"},
        {"{\"id\":1e0,\"username\":\"a\"}", "id is not an integer"},
        {"{\"id\":\"17\",\"username\":\"a\"}", "id is not an integer"},
        {"{\"id\":2147483648,\"username\":\"a\"}", "id is out of range"},
        {"{\"id\":-2147483649,\"username\":\"a\"}", "id is out of range"},
        {"{\"id\":9223372036854775808,\"username\":\"a\"}", "id is out of range"},
        {"{\"id\":1}", "username is missing"},
        {"{\"id\":1,\"username\":null}", "username is not a string"},
        {"{\"id\":1,\"username\":[\"a\"]}", "username is not a string"},
        {"{\"id\":1,\"username\":\"a\"}{}", "value has bytes behind the object"},
        {"{\"id\":1,\"username\":\"a\xff\"}", "value is not valid UTF-8"},
        {"{\"id\":1,\"username\":\"\xc0\x80\"}", "value is not valid UTF-8"},
        {"{\"id\":1,\"username\":\"\xed\xa0\x80\"}", "value is not valid UTF-8"},
        {"\xef\xbb\xbf{\"id\":1,\"username\":\"a\"}", "value is not JSON"},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        const char *reason = when_decoded(USER_EVENT_REGISTRATION, cases[i].value);
        cr_assert_not_null(reason, "taken: %s", cases[i].value);
        cr_assert_str_eq(reason, cases[i].reason, "%s: %s", cases[i].value, reason);
    }
}

Test(event_decode, refuses_kafkas_null)
{
    cr_assert_str_eq(when_decoded_bytes(USER_EVENT_ADMIN_DELETE, NULL, 0), "value is null");
}

Test(event_decode, refuses_a_raw_nul_byte_anywhere)
{
    static const char value[] = " {\"id\" : 17 , \"username\" : \"neo\" , \"more\":[1.5,null]}\n";
    char with_nul[sizeof(value)];
    cr_assert_null(when_decoded(USER_EVENT_REGISTRATION, value));
    for (size_t place = 0; place < sizeof(value); place++) {
        memcpy(with_nul, value, place);
        with_nul[place] = '\0';
        memcpy(with_nul + place + 1, value + place, sizeof(value) - 1 - place);
        cr_assert_not_null(when_decoded_bytes(USER_EVENT_REGISTRATION, with_nul, sizeof(with_nul)),
            "taken: a NUL at %zu", place);
    }
}

Test(event_decode, survives_deep_nesting)
{
    enum { DEPTH = 1000000 };
    static const char *const openings[] = {"[", "{\"a\":"};
    for (size_t i = 0; i < ARRAY_LENGTH(openings); i++) {
        size_t step = strlen(openings[i]);
        char *value = malloc(step * DEPTH + 1);
        cr_assert_not_null(value);
        for (size_t j = 0; j < DEPTH; j++)
            memcpy(value + j * step, openings[i], step);
        value[step * DEPTH] = '\0';
        cr_assert_str_eq(
            when_decoded(USER_EVENT_REGISTRATION, value), "value is nested too deeply");
        free(value);
    }
}

Test(event_decode, leaves_the_output_alone_when_it_refuses)
{
    static const char value[] = "{\"id\":5,\"username\":7}";
    struct decoded_event event = {.auth_id = 42};
    const char *reason = NULL;
    cr_assert_eq(
        event_decode(USER_EVENT_REGISTRATION, value, strlen(value), &event, &reason), -EBADMSG);
    cr_assert_eq(event.auth_id, 42);
}
