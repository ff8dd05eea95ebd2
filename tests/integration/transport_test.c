/* What any peer may send: unknown methods, bytes that are no message, too much of them, compressed
 * ones, nothing at all. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/file_descriptor.h"

#include "tests/harness/test_userd.h"
#include "user_post/user_post.pb-c.h"

#define MIB (1024 * 1024)

static struct test_userd userd;

static void init(void)
{
    static const struct test_userd_options options = {
        .limit_settings = "handshake_timeout_ms = 1000;"};
    given_userd(&userd, &options);
}

static void fini(void)
{
    finally_userd(&userd);
}

TestSuite(transport, .init = init, .fini = fini, .timeout = 120);

Test(transport, says_unimplemented_for_unknown_methods)
{
    static const char *const methods[] = {"/user.User/Nothing", "/nothing.Nothing/GetUser", "/",
        "/user.User/", "/user.User/getuser", "/user.User/GetUser/"};
    for (size_t i = 0; i < ARRAY_LENGTH(methods); i++) {
        struct test_reply reply;
        test_rpc_call(&userd.gateway, methods[i], "", 0, &reply);
        cr_assert(reply.status == GRPC_STATUS_UNIMPLEMENTED, "%s: status %d", methods[i],
            (int)reply.status);
        test_reply_cleanup(&reply);
    }
}

Test(transport, refuses_bytes_that_are_no_message)
{
    static const struct {
        const char *bytes;
        size_t length;
    } requests[] = {
        {"\x08", 1},             /* a tag without its value */
        {"\x08\xFF\xFF\xFF", 4}, /* a varint without its end */
        {"\x12\x7F"
         "abc",
            5},          /* a text longer than the message */
        {"\x0F\x01", 2}, /* wire type 7 */
        {"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 11},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(requests); i++) {
        struct test_reply reply;
        test_rpc_call(
            &userd.gateway, METHOD_USER_UPDATE, requests[i].bytes, requests[i].length, &reply);
        cr_assert(reply.status == GRPC_STATUS_INVALID_ARGUMENT, "request %zu: status %d", i,
            (int)reply.status);
        cr_assert(reply.message[0] != '\0', "request %zu: no message", i);
        test_reply_cleanup(&reply);
    }
}

Test(transport, ignores_fields_that_it_does_not_know)
{
    given_user(&userd, 17, "trinity");
    /* id = 17, and field 100 with a text */
    static const char request[] = "\x08\x11\xA2\x06\x03"
                                  "abc";
    struct test_reply reply;
    test_rpc_call(&userd.gateway, METHOD_GET_USER, request, sizeof(request) - 1, &reply);
    cr_assert_eq(reply.status, GRPC_STATUS_OK, "%s", reply.message);
    test_reply_cleanup(&reply);
}

Test(transport, refuses_a_message_over_the_size_limit_and_goes_on)
{
    given_user(&userd, 17, "trinity");
    char *bytes = calloc(1, 5 * MIB);
    cr_assert(bytes != NULL);
    struct test_reply reply;
    test_rpc_call(&userd.post, METHOD_GET_BY_IDS, bytes, 5 * MIB, &reply);
    cr_assert(reply.has_pushback, "no retry hint");
    then_fails_with(&reply, GRPC_STATUS_RESOURCE_EXHAUSTED, "message is larger than 4194304 bytes");
    free(bytes);
    then_name_is(&userd, 17, "trinity");
}

/* `count` ids, all 17, unpacked: two bytes each, so the message is of any size and compresses well.
 */
static void ask_compressed(size_t count, struct test_reply *ret_reply)
{
    char *bytes = malloc(2 * count);
    cr_assert(bytes != NULL);
    for (size_t i = 0; i < count; i++)
        memcpy(bytes + 2 * i, "\x08\x11", 2);
    struct test_rpc rpc;
    test_rpc_open(&rpc, userd.post_address, true);
    test_rpc_call(&rpc, METHOD_GET_BY_IDS, bytes, 2 * count, ret_reply);
    test_rpc_close(&rpc);
    free(bytes);
}

Test(transport, inflates_a_compressed_request)
{
    given_user(&userd, 17, "trinity");
    struct test_reply reply;
    ask_compressed(9000, &reply);
    ProtobufCMessage *message =
        test_reply_decode(&reply, &user_post__users_map_response__descriptor);
    cr_assert_eq(((UserPost__UsersMapResponse *)(void *)message)->n_users, 1);
    protobuf_c_message_free_unpacked(message, NULL);
    test_reply_cleanup(&reply);
}

Test(transport, inflates_within_the_size_limit_only)
{
    struct test_reply reply;
    ask_compressed(8 * MIB, &reply); /* 16 MiB that arrive as 16 KB */
    then_fails_with(&reply, GRPC_STATUS_RESOURCE_EXHAUSTED, NULL);
}

static int connect_to(int port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0,
        "cannot connect");
    return fd;
}

/* Whether the server ends the connection in time: what it says before (SETTINGS, GOAWAY) is
 * skipped. */
static bool is_closed_within(int fd, int64_t timeout_ms)
{
    int64_t deadline_ms = test_now_ms() + timeout_ms;
    char bytes[512];
    while (test_now_ms() < deadline_ms) {
        struct pollfd entry = {.fd = fd, .events = POLLIN};
        if (poll(&entry, 1, TEST_STEP_MS) > 0 && recv(fd, bytes, sizeof(bytes), 0) <= 0)
            return true;
    }
    return false;
}

Test(transport, closes_a_peer_that_says_nothing)
{
    int silent CLEANUP(fd_close) = connect_to(userd.gateway_port);
    int half_open CLEANUP(fd_close) = connect_to(userd.post_port);
    cr_assert_eq(send(half_open, "PRI * HT", 8, MSG_NOSIGNAL), 8);
    cr_assert(is_closed_within(silent, 10000), "a silent peer keeps its connection");
    cr_assert(is_closed_within(half_open, 10000), "a half-open peer keeps its connection");
}

Test(transport, closes_a_peer_that_does_not_speak_http2)
{
    given_user(&userd, 17, "trinity");
    int peer CLEANUP(fd_close) = connect_to(userd.gateway_port);
    static const char request[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    cr_assert_eq(
        send(peer, request, sizeof(request) - 1, MSG_NOSIGNAL), (ssize_t)(sizeof(request) - 1));
    cr_assert(is_closed_within(peer, 10000), "a peer that speaks HTTP/1 keeps its connection");
    then_name_is(&userd, 17, "trinity");
}

Test(transport, answers_health_for_its_services_on_every_listener)
{
    struct test_reply reply;
    test_rpc_call(&userd.post, METHOD_HEALTH_CHECK, "", 0, &reply);
    cr_assert_eq(reply.status, GRPC_STATUS_OK);
    cr_assert(reply.length == 2 && reply.bytes[1] == TEST_HEALTH_SERVING);
    test_reply_cleanup(&reply);
    static const char service[] = "\x0A\x09user.User";
    test_rpc_call(&userd.gateway, METHOD_HEALTH_CHECK, service, sizeof(service) - 1, &reply);
    cr_assert_eq(reply.status, GRPC_STATUS_OK, "%s", reply.message);
    test_reply_cleanup(&reply);
    test_rpc_call(&userd.gateway, METHOD_HEALTH_CHECK, "\x0A\x02no", 4, &reply);
    then_fails_with(&reply, GRPC_STATUS_NOT_FOUND, NULL);
}
