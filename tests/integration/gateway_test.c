/* What the API Gateway sees of user.User: every method, and every error that it shows to people. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/harness/test_userd.h"
#include "user/user.pb-c.h"

static struct test_userd userd;

static void init(void)
{
    static const struct test_userd_options options = {.workers = 2};
    given_userd(&userd, &options);
}

static void fini(void)
{
    finally_userd(&userd);
}

TestSuite(gateway, .init = init, .fini = fini, .timeout = 120);

static void then_renamed_to(struct test_reply *reply, const char *expected)
{
    ProtobufCMessage *message = test_reply_decode(reply, &user__user_out_response__descriptor);
    cr_assert_str_eq(((User__UserOutResponse *)(void *)message)->username, expected);
    protobuf_c_message_free_unpacked(message, NULL);
    test_reply_cleanup(reply);
}

Test(gateway, reads_a_name_by_auth_id)
{
    given_user(&userd, 17, "trinity");
    then_name_is(&userd, 17, "trinity");
}

Test(gateway, says_not_found_for_an_absent_user)
{
    User__UserGetRequest request = USER__USER_GET_REQUEST__INIT;
    request.id = 404;
    struct test_reply reply;
    test_rpc_call_message(&userd.gateway, METHOD_GET_USER, &request.base, &reply);
    then_fails_with(&reply, GRPC_STATUS_NOT_FOUND, "Not found");
    when_renamed(&userd, 404, "somebody", &reply);
    then_fails_with(&reply, GRPC_STATUS_NOT_FOUND, "Not found");
    when_deleted(&userd, 404, &reply);
    then_fails_with(&reply, GRPC_STATUS_NOT_FOUND, "Not found");
}

Test(gateway, reads_an_empty_message_as_id_zero_and_a_negative_id_as_absent)
{
    struct test_reply reply;
    test_rpc_call(&userd.gateway, METHOD_GET_USER, "", 0, &reply);
    then_fails_with(&reply, GRPC_STATUS_NOT_FOUND, "Not found");
    char name[256];
    cr_assert_eq(test_userd_name(&userd, -5, name), GRPC_STATUS_NOT_FOUND);
    cr_assert_eq(test_userd_name(&userd, INT32_MAX, name), GRPC_STATUS_NOT_FOUND);
    cr_assert_eq(test_userd_name(&userd, INT32_MIN, name), GRPC_STATUS_NOT_FOUND);
}

Test(gateway, renames_and_answers_with_the_stored_name)
{
    given_user(&userd, 17, "trinity");
    struct test_reply reply;
    when_renamed(&userd, 17, "Trinity Two", &reply);
    then_renamed_to(&reply, "Trinity Two");
    then_name_is(&userd, 17, "Trinity Two");
}

Test(gateway, stores_a_name_in_nfc)
{
    given_user(&userd, 17, "trinity");
    struct test_reply reply;
    when_renamed(&userd, 17, "Zoe\xCC\x88 Z", &reply); /* e, combining diaeresis */
    then_renamed_to(&reply, "Zo\xC3\xAB Z");
    then_name_is(&userd, 17, "Zo\xC3\xAB Z");
}

Test(gateway, refuses_a_name_that_someone_else_holds_in_any_case_and_width)
{
    given_user(&userd, 1, "trinity");
    given_user(&userd, 2, "morpheus");
    struct test_reply reply;
    when_renamed(&userd, 2, "trinity", &reply);
    then_fails_with(&reply, GRPC_STATUS_INVALID_ARGUMENT, "username is already taken");
    when_renamed(&userd, 2, "TRINITY", &reply);
    then_fails_with(&reply, GRPC_STATUS_INVALID_ARGUMENT, "username is already taken");
    when_renamed(&userd, 2, "\xEF\xBD\x94rinity", &reply); /* full-width t */
    then_fails_with(&reply, GRPC_STATUS_INVALID_ARGUMENT, "username is already taken");
    then_name_is(&userd, 2, "morpheus");
}

Test(gateway, lets_a_user_take_the_own_name_in_another_case)
{
    given_user(&userd, 1, "trinity");
    struct test_reply reply;
    when_renamed(&userd, 1, "TriNity", &reply);
    then_renamed_to(&reply, "TriNity");
    when_renamed(&userd, 1, "TriNity", &reply);
    then_renamed_to(&reply, "TriNity");
}

Test(gateway, frees_a_name_that_was_given_up)
{
    given_user(&userd, 1, "trinity");
    given_user(&userd, 2, "morpheus");
    struct test_reply reply;
    when_renamed(&userd, 1, "switch", &reply);
    then_renamed_to(&reply, "switch");
    when_renamed(&userd, 2, "trinity", &reply);
    then_renamed_to(&reply, "trinity");
    when_deleted(&userd, 2, &reply);
    cr_assert_eq(reply.status, GRPC_STATUS_OK);
    test_reply_cleanup(&reply);
    when_renamed(&userd, 1, "Trinity", &reply);
    then_renamed_to(&reply, "Trinity");
}

static const char *const bad_names[] = {
    "", "neo",                           /* three letters */
    "abcdefghijklmnopqrstuvwxyz0123456", /* 33 */
    " trinity", "trinity ", "tri  nity", "tri\tnity",
    "tri\xE2\x80\x8Bnity", /* zero width space: default-ignorable */
    "tri\xE2\x80\xAEnity", /* right-to-left override */
    "tri\xCD\xB8nity",     /* U+0378: unassigned */
};

Test(gateway, refuses_names_that_break_the_rules_with_a_message_for_people)
{
    given_user(&userd, 1, "trinity");
    for (size_t i = 0; i < ARRAY_LENGTH(bad_names); i++) {
        struct test_reply reply;
        when_renamed(&userd, 1, bad_names[i], &reply);
        cr_assert(reply.status == GRPC_STATUS_INVALID_ARGUMENT, "name %zu: status %d", i,
            (int)reply.status);
        cr_assert(strlen(reply.message) > 10, "name %zu: \"%s\" is no message for people", i,
            reply.message);
        test_reply_cleanup(&reply);
    }
    then_name_is(&userd, 1, "trinity");
}

/* As by event, or by the legacy service. */
static void given_user_without_claim(int32_t auth_id, const char *username)
{
    PGconn *session = test_database_connect(&userd.database);
    char id_text[16];
    (void)snprintf(id_text, sizeof(id_text), "%d", auth_id);
    const char *const values[] = {id_text, username};
    PGresult *result =
        PQexecParams(session, "INSERT INTO \"user\" (id_auth, username) VALUES ($1::int4, $2)", 2,
            NULL, values, NULL, NULL, 0);
    cr_assert(PQresultStatus(result) == PGRES_COMMAND_OK, "%s", PQresultErrorMessage(result));
    PQclear(result);
    PQfinish(session);
}

/* A profile form sends all of its fields. */
Test(gateway, lets_a_user_keep_the_own_name_whatever_it_is)
{
    static const char long_name[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    static const char decomposed[] = "Zoe\xCC\x88 Z";
    given_user(&userd, 1, "trinity");       /* holds the claim */
    given_user_without_claim(2, "trinity"); /* a namesake */
    given_user_without_claim(3, "x");       /* against the rules */
    given_user_without_claim(4, long_name);
    given_user_without_claim(5, decomposed); /* not in NFC */
    given_user_without_claim(6, "two  spaces\xE2\x80\x8B");
    given_user_without_claim(7, "");
    then_database_says(&userd, "SELECT count(*) FROM username_claim WHERE id_auth = 2", "0");
    static const char *const names[] = {
        "trinity", "trinity", "x", long_name, decomposed, "two  spaces\xE2\x80\x8B", ""};
    char *rows = test_database_value(
        &userd.database, "SELECT string_agg(xmin || ' ' || ctid, ',' ORDER BY id) FROM \"user\"");
    for (int32_t id = 1; id <= 7; id++) {
        struct test_reply reply;
        when_renamed(&userd, id, names[id - 1], &reply);
        then_renamed_to(&reply, names[id - 1]);
        then_name_is(&userd, id, names[id - 1]);
    }
    then_database_says(
        &userd, "SELECT string_agg(xmin || ' ' || ctid, ',' ORDER BY id) FROM \"user\"", rows);
    then_database_says(&userd, "SELECT count(*) FROM username_claim WHERE id_auth = 2", "0");
    free(rows);
    struct test_reply reply;
    when_renamed(&userd, 3, "y", &reply);
    then_fails_with(&reply, GRPC_STATUS_INVALID_ARGUMENT, "username must have 4 to 32 characters");
    when_renamed(&userd, 2, "Trinity", &reply);
    then_fails_with(&reply, GRPC_STATUS_INVALID_ARGUMENT, "username is already taken");
    when_renamed(&userd, 5, "Zo\xC3\xAB Z", &reply);
    then_renamed_to(&reply, "Zo\xC3\xAB Z");
}

Test(gateway, says_that_a_user_is_absent_before_it_judges_the_name)
{
    given_user(&userd, 1, "trinity");
    for (size_t i = 0; i < ARRAY_LENGTH(bad_names); i++) {
        struct test_reply reply;
        when_renamed(&userd, 404, bad_names[i], &reply);
        then_fails_with(&reply, GRPC_STATUS_NOT_FOUND, "Not found");
    }
    struct test_reply reply;
    when_renamed(&userd, 404, "trinity", &reply);
    then_fails_with(&reply, GRPC_STATUS_NOT_FOUND, "Not found");
    /* so long that it is nobody's own */
    static char huge[20000];
    memset(huge, 'x', sizeof(huge) - 1);
    when_renamed(&userd, 404, huge, &reply);
    then_fails_with(&reply, GRPC_STATUS_NOT_FOUND, "Not found");
    when_renamed(&userd, 1, huge, &reply);
    then_fails_with(&reply, GRPC_STATUS_INVALID_ARGUMENT, "username must have at most 512 bytes");
}

/* The API Gateway shows no name of more than 32 code points. */
Test(gateway, names_the_character_that_it_refuses_and_counts_code_points)
{
    given_user(&userd, 1, "trinity");
    struct test_reply reply;
    when_renamed(&userd, 1, "tri\xE2\x80\x8Bnity", &reply);
    then_fails_with(&reply, GRPC_STATUS_INVALID_ARGUMENT,
        "username must not contain invisible or formatting characters: U+200B");
    char name[17 * 3 + 1] = "";
    for (int i = 0; i < 17; i++)
        memcpy(name + (size_t)i * 3, "\xE0\xA5\x98", 4); /* U+0958 */
    when_renamed(&userd, 1, name, &reply);
    then_fails_with(
        &reply, GRPC_STATUS_INVALID_ARGUMENT, "username must have at most 32 code points");
    /* a family, stored as sent; whoever leaves the joiners out means the same name */
    static const char family[] = "neo\xF0\x9F\x91\xA8\xE2\x80\x8D\xF0\x9F\x91\xA9";
    static const char apart[] = "neo\xF0\x9F\x91\xA8\xF0\x9F\x91\xA9";
    when_renamed(&userd, 1, family, &reply);
    then_renamed_to(&reply, family);
    given_user(&userd, 2, "morpheus");
    when_renamed(&userd, 2, apart, &reply);
    then_fails_with(&reply, GRPC_STATUS_INVALID_ARGUMENT, "username is already taken");
}

Test(gateway, refuses_a_name_that_is_no_utf8)
{
    given_user(&userd, 1, "trinity");
    static const char request[] = "\x08\x01\x12\x05"
                                  "abc\xFF\xFE";
    struct test_reply reply;
    test_rpc_call(&userd.gateway, METHOD_USER_UPDATE, request, sizeof(request) - 1, &reply);
    then_fails_with(&reply, GRPC_STATUS_INVALID_ARGUMENT, NULL);
    then_name_is(&userd, 1, "trinity");
}

Test(gateway, counts_grapheme_clusters_not_bytes)
{
    given_user(&userd, 1, "trinity");
    struct test_reply reply;
    /* four Hangul syllables; 32 letters of three bytes */
    when_renamed(&userd, 1, "\xED\x95\x9C\xEA\xB5\xAD\xEC\x82\xAC\xEB\x9E\x8C", &reply);
    then_renamed_to(&reply, "\xED\x95\x9C\xEA\xB5\xAD\xEC\x82\xAC\xEB\x9E\x8C");
    char name[32 * 3 + 1] = "";
    for (size_t i = 0; i < 32; i++)
        memcpy(name + 3 * i, "\xE3\x81\x82", 4);
    when_renamed(&userd, 1, name, &reply);
    then_renamed_to(&reply, name);
}

Test(gateway, deletes_a_user_once)
{
    given_user(&userd, 17, "trinity");
    struct test_reply reply;
    when_deleted(&userd, 17, &reply);
    cr_assert_eq(reply.status, GRPC_STATUS_OK, "%s", reply.message);
    cr_assert_eq(reply.length, 0, "Empty has no bytes");
    test_reply_cleanup(&reply);
    char name[256];
    cr_assert_eq(test_userd_name(&userd, 17, name), GRPC_STATUS_NOT_FOUND);
    when_deleted(&userd, 17, &reply);
    then_fails_with(&reply, GRPC_STATUS_NOT_FOUND, "Not found");
    then_database_says(&userd, "SELECT count(*) FROM user_tombstone WHERE id_auth = 17", "1");
    then_database_says(&userd, "SELECT count(*) FROM username_claim", "0");
}

Test(gateway, does_not_serve_the_post_services_methods)
{
    struct test_reply reply;
    test_rpc_call(&userd.gateway, METHOD_GET_BY_ID, "\x08\x01", 2, &reply);
    then_fails_with(&reply, GRPC_STATUS_UNIMPLEMENTED, NULL);
    test_rpc_call(&userd.post, METHOD_GET_USER, "\x08\x01", 2, &reply);
    then_fails_with(&reply, GRPC_STATUS_UNIMPLEMENTED, NULL);
}
