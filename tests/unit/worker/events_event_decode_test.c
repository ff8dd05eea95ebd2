/* worker/events/event_decode: what is an event, and what is said about what is none. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "common/attributes.h"
#include "worker/events/event_decode.h"

struct refusal_case {
    const char *value;
    const char *reason;
};

static const char *when_decoded(enum user_event_kind kind, const char *value)
{
    struct decoded_event event = {0};
    const char *reason = event_decode(kind, value, strlen(value), &event);
    decoded_event_cleanup(&event);
    return reason;
}

Test(event_decode, reads_a_registration)
{
    static const char value[] = "{\"id\": 17, \"username\": \"n\xc3\xa9o\", \"more\": [null]}";
    struct decoded_event event = {0};
    cr_assert_null(event_decode(USER_EVENT_REGISTRATION, value, strlen(value), &event));
    cr_assert_eq(event.auth_id, 17);
    cr_assert_str_eq(event.username, "n\xc3\xa9o");
    cr_assert_eq(event.username_length, 4);
    decoded_event_cleanup(&event);
}

Test(event_decode, reads_a_deletion_and_asks_for_no_name)
{
    static const char value[] = " {\"id\":-2147483648}\n";
    struct decoded_event event = {0};
    cr_assert_null(event_decode(USER_EVENT_ADMIN_DELETE, value, strlen(value), &event));
    cr_assert_eq(event.auth_id, INT32_MIN);
    cr_assert_null(event.username);
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
        {"{\"id\":9223372036854775808,\"username\":\"a\"}", "a number is out of range"},
        {"{\"id\":1}", "username is missing"},
        {"{\"id\":1,\"username\":null}", "username is not a string"},
        {"{\"id\":1,\"username\":[\"a\"]}", "username is not a string"},
        {"{\"id\":1,\"username\":\"a\\u0000b\"}", "value contains U+0000"},
        {"{\"id\":1,\"id\":2,\"username\":\"a\"}", "value has duplicate keys"},
        {"{\"id\":1,\"username\":\"a\"}{}", "value has bytes behind the object"},
        {"{\"id\":1,\"username\":\"a\xff\"}", "value is not valid UTF-8"},
        {"{\"id\":1,\"username\":\"\xc0\x80\"}", "value is not valid UTF-8"},
        {"{\"id\":1,\"username\":\"\xed\xa0\x80\"}", "value is not valid UTF-8"},
        {"{\"id\":1,\"username\":\"\\ud800\"}", "value is not JSON"},
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
    struct decoded_event event = {0};
    cr_assert_str_eq(event_decode(USER_EVENT_ADMIN_DELETE, NULL, 0, &event), "value is null");
}

Test(event_decode, refuses_a_raw_nul_byte)
{
    static const char value[] = "{\"id\":1,\"username\":\"a\0b\"}";
    struct decoded_event event = {0};
    cr_assert_not_null(event_decode(USER_EVENT_REGISTRATION, value, sizeof(value) - 1, &event));
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
    cr_assert_not_null(event_decode(USER_EVENT_REGISTRATION, value, strlen(value), &event));
    cr_assert_eq(event.auth_id, 42);
}
