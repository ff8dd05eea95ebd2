#include "worker/events/event_decode.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static void json_free(json_t **value)
{
    json_decref(*value);
}

static const char *describe_parse_error(const json_error_t *error)
{
    switch ((int)json_error_code(error)) {
    case json_error_invalid_utf8:
        return "value is not valid UTF-8";
    case json_error_duplicate_key:
        return "value has duplicate keys";
    case json_error_end_of_input_expected:
        return "value has bytes behind the object";
    case json_error_numeric_overflow:
        return "a number is out of range";
    case json_error_null_character:
    case json_error_null_byte_in_key:
        return "value contains U+0000";
    case json_error_stack_overflow:
        return "value is nested too deeply";
    case json_error_out_of_memory:
        return "no memory to read the value";
    default:
        return "value is not JSON";
    }
}

static const char *decode_id(const json_t *object, int32_t *ret_id)
{
    const json_t *id = json_object_get(object, "id");
    if (id == NULL)
        return "id is missing";
    if (!json_is_integer(id))
        return "id is not an integer";
    json_int_t number = json_integer_value(id);
    if (number < INT32_MIN || number > INT32_MAX)
        return "id is out of range";
    *ret_id = (int32_t)number;
    return NULL;
}

static const char *decode_username(const json_t *object, char **ret_username, size_t *ret_length)
{
    const json_t *username = json_object_get(object, "username");
    if (username == NULL)
        return "username is missing";
    if (!json_is_string(username))
        return "username is not a string";
    size_t length = json_string_length(username);
    const char *text = json_string_value(username);
    if (memchr(text, '\0', length) != NULL)
        return "username contains U+0000";
    char *copy = malloc(length + 1);
    if (copy == NULL)
        return "no memory to read the value";
    memcpy(copy, text, length);
    copy[length] = '\0';
    *ret_username = copy;
    *ret_length = length;
    return NULL;
}

void decoded_event_cleanup(struct decoded_event *event)
{
    free(event->username);
    event->username = NULL;
}

const char *event_decode(
    enum user_event_kind kind, const void *value, size_t length, struct decoded_event *ret_event)
{
    if (value == NULL)
        return "value is null";
    json_error_t error;
    json_t *object CLEANUP(json_free) =
        json_loadb(value, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (object == NULL)
        return describe_parse_error(&error);
    if (!json_is_object(object))
        return "value is not an object";
    struct decoded_event event = {0};
    const char *reason = decode_id(object, &event.auth_id);
    if (reason == NULL && kind == USER_EVENT_REGISTRATION)
        reason = decode_username(object, &event.username, &event.username_length);
    if (reason != NULL)
        return reason;
    *ret_event = event;
    return NULL;
}
