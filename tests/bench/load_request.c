#include "tests/bench/load_request.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "common/attributes.h"

#define NAME_BYTES      32 /* "user", ten digits, '_', sixteen hexadecimal digits */
#define FIXED_BYTES     64 /* of a request, beside its list of ids */
#define VARINT_BYTES    5  /* of an id, at most */
#define MAP_ENTRY_BYTES (4 + 1 + VARINT_BYTES + NAME_BYTES)
#define FIELD_1_NUMBER  0x08 /* protobuf's tags: field and wire type */
#define FIELD_1_BYTES   0x0A
#define FIELD_2_BYTES   0x12

static const char *const paths[LOAD_METHODS] = {
    [LOAD_GET_USER] = "/user.User/GetUser",
    [LOAD_USER_UPDATE] = "/user.User/UserUpdate",
    [LOAD_DELETE_USER] = "/user.User/DeleteUser",
    [LOAD_GET_BY_ID] = "/user_post.UserPost/GetByID",
    [LOAD_GET_BY_IDS] = "/user_post.UserPost/GetByIDs",
    [LOAD_GET_BY_USERNAME] = "/user_post.UserPost/GetByUsername",
};

int load_request_find_method(const char *name)
{
    for (unsigned int i = 0; i < LOAD_METHODS; i++)
        if (strcmp(name, paths[i]) == 0 || strcmp(name, strrchr(paths[i], '/') + 1) == 0)
            return (int)i;
    return -1;
}

const char *load_request_path(enum load_method method)
{
    return paths[method];
}

size_t load_request_capacity(const struct load_plan *plan)
{
    return FIXED_BYTES + plan->ids_per_call * VARINT_BYTES;
}

size_t load_request_answer_capacity(const struct load_plan *plan)
{
    return FIXED_BYTES + plan->ids_per_call * MAP_ENTRY_BYTES;
}

/* ---- asking ---- */

static size_t put_varint(uint8_t *bytes, uint32_t value)
{
    size_t length = 0;
    for (; value >= 0x80; value >>= 7)
        bytes[length++] = (uint8_t)(value | 0x80);
    bytes[length++] = (uint8_t)value;
    return length;
}

static size_t varint_length(uint32_t value)
{
    size_t length = 1;
    for (; value >= 0x80; value >>= 7)
        length++;
    return length;
}

static size_t put_name(uint8_t *bytes, uint8_t tag, const char *name)
{
    size_t length = strlen(name);
    bytes[0] = tag;
    bytes[1] = (uint8_t)length;
    memcpy(bytes + 2, name, length);
    return length + 2;
}

/* The list's length stands before it: the ids are drawn behind the longest form of that, and moved
 * up to the one that it has. */
static size_t put_ids(struct load_request *request, uint8_t *bytes, const struct load_plan *plan,
    struct load_random *random)
{
    uint8_t *list = bytes + 1 + VARINT_BYTES;
    size_t length = 0;
    for (size_t i = 0; i < plan->ids_per_call; i++) {
        request->id = load_keys_draw(&plan->keys, random);
        length += put_varint(list + length, request->id);
    }
    bytes[0] = FIELD_1_BYTES;
    size_t head = 1 + put_varint(bytes + 1, (uint32_t)length);
    memmove(bytes + head, list, length);
    return head + length;
}

static enum load_method draw_method(const struct load_plan *plan, struct load_random *random)
{
    uint32_t ticket = load_random_below(random, plan->weight_sum);
    unsigned int method = 0;
    while (ticket >= plan->weights[method])
        ticket -= plan->weights[method++];
    return (enum load_method)method;
}

static size_t put_message(struct load_request *request, uint8_t *bytes, struct load_plan *plan,
    struct load_random *random)
{
    char name[NAME_BYTES + 1];
    size_t length = 0;
    switch (request->method) {
    case LOAD_GET_BY_IDS:
        return put_ids(request, bytes, plan, random);
    case LOAD_GET_BY_USERNAME:
        request->id = load_keys_draw(&plan->keys, random);
        (void)snprintf(name, sizeof(name), "user%u", request->id);
        return put_name(bytes, FIELD_1_BYTES, name);
    case LOAD_DELETE_USER:
        /* Each id once, from the last one down. */
        request->id = plan->keys.count - plan->deletes++ % plan->keys.count;
        break;
    case LOAD_GET_USER:
    case LOAD_GET_BY_ID:
    case LOAD_USER_UPDATE:
        request->id = load_keys_draw(&plan->keys, random);
        break;
    }
    bytes[length++] = FIELD_1_NUMBER;
    length += put_varint(bytes + length, request->id);
    if (request->method != LOAD_USER_UPDATE)
        return length;
    (void)snprintf(
        name, sizeof(name), "user%u_%x%x", request->id, plan->name_salt, plan->renames++);
    return length + put_name(bytes + length, FIELD_2_BYTES, name);
}

void load_request_fill(
    struct load_request *request, struct load_plan *plan, struct load_random *random)
{
    request->method = draw_method(plan, random);
    size_t length = put_message(request, request->bytes + LOAD_PREFIX_BYTES, plan, random);
    uint32_t size = htonl((uint32_t)length);
    request->bytes[0] = 0; /* not compressed */
    memcpy(request->bytes + 1, &size, sizeof(size));
    request->length = LOAD_PREFIX_BYTES + length;
}

/* ---- looking at the answer ---- */

struct span {
    const uint8_t *next;
    const uint8_t *end;
};

static bool take_varint(struct span *span, uint32_t *ret_value)
{
    uint32_t value = 0;
    for (unsigned int shift = 0; span->next < span->end && shift < 35; shift += 7) {
        uint8_t byte = *span->next++;
        value |= (uint32_t)(byte & 0x7F) << shift;
        if ((byte & 0x80) == 0) {
            *ret_value = value;
            return true;
        }
    }
    return false;
}

static bool take_tag(struct span *span, uint8_t tag)
{
    return span->next < span->end && *span->next++ == tag;
}

static bool take_bytes(struct span *span, uint8_t tag, struct span *ret_bytes)
{
    uint32_t length = 0;
    if (!take_tag(span, tag) || !take_varint(span, &length) ||
        length > (size_t)(span->end - span->next))
        return false;
    *ret_bytes = (struct span){.next = span->next, .end = span->next + length};
    span->next += length;
    return true;
}

/* "user" and the id, and then nothing, or '_' and what a rename put there. */
static bool is_name_of(const struct span *name, uint32_t id)
{
    char expected[16];
    size_t length = (size_t)snprintf(expected, sizeof(expected), "user%u", id);
    size_t given = (size_t)(name->end - name->next);
    return given >= length && memcmp(name->next, expected, length) == 0 &&
           (given == length || name->next[length] == '_');
}

static bool is_one_name(const struct load_request *request, struct span message)
{
    struct span name;
    return take_bytes(&message, FIELD_1_BYTES, &name) && message.next == message.end &&
           is_name_of(&name, request->id);
}

/* The new name, exactly as it was sent. */
static bool is_new_name(const struct load_request *request, struct span message)
{
    struct span sent = {.next = request->bytes + LOAD_PREFIX_BYTES + 1 + varint_length(request->id),
        .end = request->bytes + request->length};
    struct span wanted;
    struct span name;
    return take_bytes(&sent, FIELD_2_BYTES, &wanted) &&
           take_bytes(&message, FIELD_1_BYTES, &name) &&
           name.end - name.next == wanted.end - wanted.next &&
           memcmp(name.next, wanted.next, (size_t)(name.end - name.next)) == 0;
}

static bool is_one_id(const struct load_request *request, struct span message)
{
    uint32_t id = 0;
    return take_tag(&message, FIELD_1_NUMBER) && take_varint(&message, &id) && id == request->id;
}

/* Remembers which ids were asked for; how many different ones. */
static uint32_t mark_asked(const struct load_request *request, struct load_plan *plan)
{
    struct span message = {
        .next = request->bytes + LOAD_PREFIX_BYTES, .end = request->bytes + request->length};
    struct span list;
    uint32_t distinct = 0;
    uint32_t id = 0;
    if (!take_bytes(&message, FIELD_1_BYTES, &list))
        return 0;
    plan->check_number += 2; /* this one: asked for; one more: and answered */
    while (take_varint(&list, &id)) {
        distinct += plan->asked_by_id[id] != plan->check_number;
        plan->asked_by_id[id] = plan->check_number;
    }
    return distinct;
}

/* Each entry of the map: an id that was asked for, once, with its own name. */
static bool is_right_map(const struct load_request *request, struct load_plan *plan,
    struct span message, uint32_t *ret_names)
{
    uint32_t distinct = plan->verifies ? mark_asked(request, plan) : 0;
    struct span entry;
    struct span name;
    uint32_t id = 0;
    while (message.next < message.end) {
        if (!take_bytes(&message, FIELD_1_BYTES, &entry) || !take_tag(&entry, FIELD_1_NUMBER) ||
            !take_varint(&entry, &id) || !take_bytes(&entry, FIELD_2_BYTES, &name))
            return false;
        (*ret_names)++;
        if (!plan->verifies)
            continue;
        if (id == 0 || id > plan->keys.count || plan->asked_by_id[id] != plan->check_number ||
            !is_name_of(&name, id))
            return false;
        plan->asked_by_id[id] = plan->check_number + 1;
    }
    return !plan->verifies || *ret_names == distinct ||
           (plan->weights[LOAD_DELETE_USER] > 0 && *ret_names < distinct);
}

bool load_request_check(const struct load_request *request, struct load_plan *plan,
    const uint8_t *answer, size_t length, uint32_t *ret_names)
{
    *ret_names = 0;
    if (length < LOAD_PREFIX_BYTES)
        return false;
    struct span message = {.next = answer + LOAD_PREFIX_BYTES, .end = answer + length};
    switch (request->method) {
    case LOAD_GET_USER:
    case LOAD_GET_BY_ID:
        *ret_names = 1;
        return is_one_name(request, message);
    case LOAD_USER_UPDATE:
        return is_new_name(request, message);
    case LOAD_DELETE_USER:
        return message.next == message.end;
    case LOAD_GET_BY_IDS:
        return is_right_map(request, plan, message, ret_names);
    case LOAD_GET_BY_USERNAME:
        return is_one_id(request, message);
    }
    return false;
}

bool load_request_may_miss(const struct load_request *request, const struct load_plan *plan)
{
    return plan->weights[LOAD_DELETE_USER] > 0 ||
           (request->method == LOAD_GET_BY_USERNAME && plan->weights[LOAD_USER_UPDATE] > 0);
}
