#include "worker/events/event_decode.h"

#include <errno.h>
#include <stdlib.h>

#include "worker/events/json_reader.h"

enum { MEMBER_ID, MEMBER_USERNAME, MEMBERS };

static const char *check_id(const struct json_member *id, int32_t *ret_id)
{
    if (id->kind == JSON_ABSENT)
        return "id is missing";
    if (id->kind != JSON_INTEGER)
        return "id is not an integer";
    return json_reader_int32(id, ret_id) < 0 ? "id is out of range" : NULL;
}

static const char *check_username(const struct json_member *username)
{
    if (username->kind == JSON_ABSENT)
        return "username is missing";
    return username->kind != JSON_TEXT ? "username is not a string" : NULL;
}

void decoded_event_cleanup(struct decoded_event *event)
{
    free(event->username);
    event->username = NULL;
}

int event_decode(enum user_event_kind kind, const void *value, size_t length,
    struct decoded_event *ret_event, const char **ret_reason)
{
    struct json_member members[MEMBERS] = {
        [MEMBER_ID] = {.name = "id"}, [MEMBER_USERNAME] = {.name = "username"}};
    struct decoded_event event = {0};
    bool has_username = kind == USER_EVENT_REGISTRATION;
    const char *reason =
        value == NULL ? "value is null" : json_reader_scan(value, length, members, MEMBERS);
    if (reason == NULL)
        reason = check_id(&members[MEMBER_ID], &event.auth_id);
    if (reason == NULL && has_username)
        reason = check_username(&members[MEMBER_USERNAME]);
    if (reason != NULL) {
        *ret_reason = reason;
        return -EBADMSG;
    }
    if (has_username) {
        int result =
            json_reader_text(&members[MEMBER_USERNAME], &event.username, &event.username_length);
        if (result < 0)
            return result;
    }
    *ret_event = event;
    return 0;
}
