/* What the Post Service sees of user_post.UserPost. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "tests/harness/test_userd.h"
#include "user_post/user_post.pb-c.h"

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

TestSuite(post, .init = init, .fini = fini, .timeout = 120);

static void then_id_is(const char *username, int32_t expected)
{
    struct test_reply reply;
    when_asked_for_id(&userd, username, &reply);
    ProtobufCMessage *message = test_reply_decode(&reply, &user_post__user_id__descriptor);
    int32_t found = ((UserPost__UserId *)(void *)message)->id;
    protobuf_c_message_free_unpacked(message, NULL);
    test_reply_cleanup(&reply);
    cr_assert_eq(found, expected, "the id of %s is %d, expected %d", username, found, expected);
}

/* NULL with *ret_reply's status, when the call fails. */
static UserPost__UsersMapResponse *ask_for_names(
    int32_t *ids, size_t count, struct test_reply *ret_reply)
{
    UserPost__GetByIdsRequest request = USER_POST__GET_BY_IDS_REQUEST__INIT;
    request.ids = ids;
    request.n_ids = count;
    test_rpc_call_message(&userd.post, METHOD_GET_BY_IDS, &request.base, ret_reply);
    if (ret_reply->status != GRPC_STATUS_OK)
        return NULL;
    return (UserPost__UsersMapResponse *)(void *)test_reply_decode(
        ret_reply, &user_post__users_map_response__descriptor);
}

static const char *name_in(const UserPost__UsersMapResponse *response, int32_t id)
{
    for (size_t i = 0; i < response->n_users; i++) {
        if (response->users[i]->key == id)
            return response->users[i]->value;
    }
    return "";
}

static void finish(UserPost__UsersMapResponse *response, struct test_reply *reply)
{
    protobuf_c_message_free_unpacked(&response->base, NULL);
    test_reply_cleanup(reply);
}

Test(post, finds_a_user_by_name_exactly_first)
{
    given_user(&userd, 17, "trinity");
    given_user(&userd, 18, "morpheus");
    then_id_is("trinity", 17);
    then_id_is("morpheus", 18);
}

Test(post, finds_the_holder_of_a_names_canonical_form)
{
    given_user(&userd, 17, "trinity");
    then_id_is("TRINITY", 17);
    then_id_is("\xEF\xBD\x94rinity", 17);
}

Test(post, answers_with_the_claims_holder_when_two_users_share_a_name)
{
    given_user(&userd, 17, "trinity");
    test_database_execute(&userd.database,
        "INSERT INTO \"user\" (id_auth, username) VALUES (5, 'trinity'), (6, 'Trinity')");
    then_id_is("trinity", 17);
    then_id_is("Trinity", 6);
}

Test(post, says_not_found_for_unknown_names)
{
    static const char *const names[] = {"nobody", "", "%", "a'; --", "tri\xE2\x80\x8Bnity"};
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        struct test_reply reply;
        when_asked_for_id(&userd, names[i], &reply);
        then_fails_with(&reply, GRPC_STATUS_NOT_FOUND, "Not found");
    }
}

/* By event a name may be anything. */
Test(post, finds_a_user_whose_name_is_empty)
{
    test_database_execute(
        &userd.database, "INSERT INTO \"user\" (id_auth, username) VALUES (5, '')");
    then_id_is("", 5);
}

Test(post, reads_a_name_by_id)
{
    given_user(&userd, 17, "trinity");
    UserPost__GetByIdRequest request = USER_POST__GET_BY_ID_REQUEST__INIT;
    request.id = 17;
    struct test_reply reply;
    test_rpc_call_message(&userd.post, METHOD_GET_BY_ID, &request.base, &reply);
    ProtobufCMessage *message = test_reply_decode(&reply, &user_post__user_username__descriptor);
    cr_assert_str_eq(((UserPost__UserUsername *)(void *)message)->username, "trinity");
    protobuf_c_message_free_unpacked(message, NULL);
    test_reply_cleanup(&reply);
    request.id = 18;
    test_rpc_call_message(&userd.post, METHOD_GET_BY_ID, &request.base, &reply);
    then_fails_with(&reply, GRPC_STATUS_NOT_FOUND, "Not found");
}

Test(post, reads_many_names_leaving_out_the_absent_and_the_repeated)
{
    given_user(&userd, 1, "trinity");
    given_user(&userd, 2, "morpheus");
    int32_t ids[] = {2, 404, 1, 2, 2, -1, 0};
    struct test_reply reply;
    UserPost__UsersMapResponse *response = ask_for_names(ids, ARRAY_LENGTH(ids), &reply);
    cr_assert(response != NULL, "%s", reply.message);
    cr_assert_eq(response->n_users, 2);
    cr_assert_str_eq(name_in(response, 1), "trinity");
    cr_assert_str_eq(name_in(response, 2), "morpheus");
    finish(response, &reply);
}

Test(post, answers_an_empty_request_with_an_empty_map)
{
    struct test_reply reply;
    UserPost__UsersMapResponse *response = ask_for_names(NULL, 0, &reply);
    cr_assert(response != NULL, "%s", reply.message);
    cr_assert_eq(response->n_users, 0);
    finish(response, &reply);
}

Test(post, takes_ten_thousand_ids_and_not_one_more)
{
    enum { MOST = 10000 };
    test_database_execute(&userd.database, "INSERT INTO \"user\" (id_auth, username) SELECT n, "
                                           "'user ' || n FROM generate_series(1, 10000) n");
    int32_t *ids = calloc(MOST + 1, sizeof(ids[0]));
    cr_assert(ids != NULL);
    for (int32_t i = 0; i <= MOST; i++)
        ids[i] = i + 1;
    struct test_reply reply;
    UserPost__UsersMapResponse *response = ask_for_names(ids, MOST, &reply);
    cr_assert(response != NULL, "%s", reply.message);
    cr_assert_eq(response->n_users, MOST);
    cr_assert_str_eq(name_in(response, MOST), "user 10000");
    finish(response, &reply);

    response = ask_for_names(ids, MOST + 1, &reply);
    cr_assert(response == NULL, "10,001 ids are taken");
    then_fails_with(&reply, GRPC_STATUS_INVALID_ARGUMENT, NULL);
    free(ids);
}

Test(post, reads_ids_that_are_not_packed)
{
    given_user(&userd, 1, "trinity");
    given_user(&userd, 2, "morpheus");
    /* field 1, varint, twice: as a proto2 writer sends repeated numbers */
    struct test_reply reply;
    test_rpc_call(&userd.post, METHOD_GET_BY_IDS, "\x08\x01\x08\x02", 4, &reply);
    ProtobufCMessage *message =
        test_reply_decode(&reply, &user_post__users_map_response__descriptor);
    cr_assert_eq(((UserPost__UsersMapResponse *)(void *)message)->n_users, 2);
    protobuf_c_message_free_unpacked(message, NULL);
    test_reply_cleanup(&reply);
}
