/* The embedded .proto files, as server reflection sees them. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "worker/rpc/descriptor_index.h"

static struct descriptor_index *open_index(void)
{
    struct descriptor_index *index = NULL;
    cr_assert_eq(descriptor_index_new(&index), 0);
    return index;
}

Test(descriptor_index, finds_files_by_name)
{
    struct descriptor_index *index = open_index();
    cr_assert_geq(descriptor_index_find_file(index, "user/user.proto"), 0);
    cr_assert_geq(descriptor_index_find_file(index, "grpc/health/v1/health.proto"), 0);
    cr_assert_eq(descriptor_index_find_file(index, "user.proto"), -1);
    (void)descriptor_index_free(index);
}

Test(descriptor_index, finds_every_kind_of_symbol)
{
    struct descriptor_index *index = open_index();
    int user = descriptor_index_find_file(index, "user/user.proto");
    int post = descriptor_index_find_file(index, "user_post/user_post.proto");
    cr_assert_eq(descriptor_index_find_symbol(index, "user.User"), user);
    cr_assert_eq(descriptor_index_find_symbol(index, "user.User.GetUser"), user);
    cr_assert_eq(descriptor_index_find_symbol(index, "user.Empty"), user);
    cr_assert_eq(descriptor_index_find_symbol(index, "user.UserGetRequest.id"), user);
    cr_assert_eq(
        descriptor_index_find_symbol(index, "user_post.UsersMapResponse.UsersEntry"), post);
    cr_assert_geq(
        descriptor_index_find_symbol(index, "grpc.health.v1.HealthCheckResponse.ServingStatus"), 0);
    cr_assert_eq(descriptor_index_find_symbol(index, "user"), -1);
    cr_assert_eq(descriptor_index_find_symbol(index, ".user.User"), -1);
    cr_assert_eq(descriptor_index_find_symbol(index, ""), -1);
    (void)descriptor_index_free(index);
}

Test(descriptor_index, knows_messages_from_the_rest)
{
    struct descriptor_index *index = open_index();
    cr_assert(descriptor_index_has_message(index, "user.Empty"));
    cr_assert(!descriptor_index_has_message(index, "user.User"));
    cr_assert(!descriptor_index_has_message(index, "user.Nothing"));
    (void)descriptor_index_free(index);
}

Test(descriptor_index, hands_out_the_file_itself_first)
{
    struct descriptor_index *index = open_index();
    int file = descriptor_index_find_file(index, "user/user.proto");
    cr_assert_geq(file, 0);
    ProtobufCBinaryData *files = calloc(descriptor_index_file_count(index), sizeof(*files));
    cr_assert_eq(descriptor_index_collect(index, (size_t)file, files), 1, "it imports nothing");
    cr_assert_eq(memcmp(files[0].data, "\x0a\x0fuser/user.proto", 17), 0);
    free(files);
    (void)descriptor_index_free(index);
}
