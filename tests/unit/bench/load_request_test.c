/* What the load generator takes for a right answer: everything else is counted as wrong. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "common/attributes.h"

#include "tests/bench/load_request.h"

static struct load_plan plan;
static struct load_request request;
static struct load_random draws = {.state = 1};
static uint8_t bytes[4096];
static uint32_t asked_by_id[101];

static void given(enum load_method method, size_t ids_per_call)
{
    plan = (struct load_plan){
        .keys = {.count = 100},
        .weight_sum = 1,
        .ids_per_call = ids_per_call,
        .verifies = true,
        .name_salt = 0xABC,
        .asked_by_id = asked_by_id,
    };
    plan.weights[method] = 1;
    request = (struct load_request){.bytes = bytes};
    cr_assert(load_request_capacity(&plan) <= sizeof(bytes));
    load_request_fill(&request, &plan, &draws);
    cr_assert_eq(request.method, method);
}

/* gRPC's prefix and one field of bytes. */
static bool is_taken(uint8_t tag, const char *text)
{
    uint8_t answer[64] = {0, 0, 0, 0, (uint8_t)(strlen(text) + 2), tag, (uint8_t)strlen(text)};
    uint32_t names = 0;
    memcpy(answer + 7, text, strlen(text));
    return load_request_check(&request, &plan, answer, 7 + strlen(text), &names);
}

static bool is_name_taken(unsigned int id, const char *suffix)
{
    char name[64];
    (void)snprintf(name, sizeof(name), "user%u%s", id, suffix);
    return is_taken(0x0A, name);
}

Test(load_request, takes_a_users_own_name_and_no_other)
{
    given(LOAD_GET_USER, 1);
    cr_assert(is_name_taken(request.id, ""));
    cr_assert(is_name_taken(request.id, "_abc12"), "a rename keeps whose it is");
    cr_assert_not(is_name_taken(request.id + 1, ""));
    cr_assert_not(is_name_taken(request.id, "0"), "another user's, that begins alike");
    cr_assert_not(is_taken(0x0A, ""));
    cr_assert_not(is_taken(0x12, "user1"), "another field");
    uint32_t names = 0;
    cr_assert_not(load_request_check(&request, &plan, bytes, 3, &names), "less than a prefix");
}

Test(load_request, takes_a_rename_only_as_it_was_sent_and_never_sends_one_twice)
{
    given(LOAD_USER_UPDATE, 1);
    cr_assert(is_name_taken(request.id, "_abc0"));
    cr_assert_not(is_name_taken(request.id, ""));
    load_request_fill(&request, &plan, &draws);
    cr_assert_not(is_name_taken(request.id, "_abc0"));
}

Test(load_request, takes_only_the_id_that_the_name_shows)
{
    given(LOAD_GET_BY_USERNAME, 1);
    uint32_t names = 0;
    uint8_t answer[] = {0, 0, 0, 0, 2, 0x08, (uint8_t)request.id};
    cr_assert(load_request_check(&request, &plan, answer, sizeof(answer), &names));
    answer[6]++;
    cr_assert_not(load_request_check(&request, &plan, answer, sizeof(answer), &names));
}

/* One entry for each of `ids`, named after `ids[i] + shift`. */
static size_t make_map(uint8_t *answer, const uint32_t *ids, size_t count, uint32_t shift)
{
    size_t length = LOAD_PREFIX_BYTES;
    for (size_t i = 0; i < count; i++) {
        char name[32];
        uint8_t name_length = (uint8_t)snprintf(name, sizeof(name), "user%u", ids[i] + shift);
        const uint8_t head[] = {
            0x0A, (uint8_t)(name_length + 4), 0x08, (uint8_t)ids[i], 0x12, name_length};
        memcpy(answer + length, head, sizeof(head));
        memcpy(answer + length + sizeof(head), name, name_length);
        length += sizeof(head) + name_length;
    }
    return length;
}

Test(load_request, takes_a_map_only_when_it_holds_each_id_once_with_its_name)
{
    static uint8_t answer[4096];
    uint32_t ids[4];
    uint32_t names = 0;
    given(LOAD_GET_BY_IDS, 3);
    do { /* three different ones */
        load_request_fill(&request, &plan, &draws);
        for (size_t i = 0; i < 3; i++)
            ids[i] = request.bytes[LOAD_PREFIX_BYTES + 2 + i];
    } while (ids[0] == ids[1] || ids[1] == ids[2] || ids[0] == ids[2]);
    ids[3] = ids[0];
    cr_assert(load_request_check(&request, &plan, answer, make_map(answer, ids, 3, 0), &names));
    cr_assert_eq(names, 3);
    cr_assert_not(load_request_check(&request, &plan, answer, make_map(answer, ids, 2, 0), &names),
        "one is missing");
    cr_assert_not(load_request_check(&request, &plan, answer, make_map(answer, ids, 4, 0), &names),
        "one is there twice");
    cr_assert_not(load_request_check(&request, &plan, answer, make_map(answer, ids, 3, 1), &names),
        "the names are others'");
    ids[2] = ids[2] % 100 + 1;
    while (ids[2] == ids[0] || ids[2] == ids[1])
        ids[2] = ids[2] % 100 + 1;
    cr_assert_not(load_request_check(&request, &plan, answer, make_map(answer, ids, 3, 0), &names),
        "one was not asked for");
}

Test(load_request, counts_an_absent_user_as_wrong_unless_users_go)
{
    given(LOAD_GET_USER, 1);
    cr_assert_not(load_request_may_miss(&request, &plan));
    plan.weights[LOAD_USER_UPDATE] = 1;
    cr_assert_not(load_request_may_miss(&request, &plan));
    plan.weights[LOAD_DELETE_USER] = 1;
    cr_assert(load_request_may_miss(&request, &plan));
    given(LOAD_GET_BY_USERNAME, 1);
    plan.weights[LOAD_USER_UPDATE] = 1;
    cr_assert(load_request_may_miss(&request, &plan), "the old name is gone");
}
