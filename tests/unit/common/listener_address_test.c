/* Listener addresses as people write them. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/un.h>

#include "common/attributes.h"
#include "common/listener_address.h"

static void expect_tcp(const char *text, const char *host, uint16_t port)
{
    struct listener_address address;
    const char *expected = NULL;
    cr_assert_eq(listener_address_parse(text, &address, &expected), 0, "%s", text);
    cr_assert_not(address.is_unix, "%s", text);
    cr_assert_str_eq(address.host, host);
    cr_assert_eq(address.port, port, "%s", text);
}

static void expect_refusal(const char *text)
{
    struct listener_address address = {.port = 7};
    const char *expected = NULL;
    cr_assert_eq(listener_address_parse(text, &address, &expected), -EINVAL, "%s", text);
    cr_assert_not_null(expected, "%s", text);
    cr_assert_eq(address.port, 7, "%s: the output was touched", text);
}

Test(listener_address, reads_hosts_and_ports)
{
    expect_tcp("0.0.0.0:50053", "0.0.0.0", 50053);
    expect_tcp("localhost:50053", "localhost", 50053);
    expect_tcp("user.example.org:1", "user.example.org", 1);
    expect_tcp("127.0.0.1:65535", "127.0.0.1", 65535);
}

Test(listener_address, reads_ipv6_addresses_in_brackets)
{
    expect_tcp("[::]:50053", "::", 50053);
    expect_tcp("[::1]:50055", "::1", 50055);
    expect_tcp("[fe80::1%eth0]:50055", "fe80::1%eth0", 50055);
}

Test(listener_address, takes_port_0_as_any_free_one)
{
    expect_tcp("127.0.0.1:0", "127.0.0.1", 0);
    expect_tcp("[::]:0", "::", 0);
}

Test(listener_address, reads_unix_paths)
{
    struct listener_address address;
    const char *expected = NULL;
    cr_assert_eq(listener_address_parse("unix:/run/userd/gateway.sock", &address, &expected), 0);
    cr_assert(address.is_unix);
    cr_assert_str_eq(address.path, "/run/userd/gateway.sock");
}

Test(listener_address, refuses_what_is_no_address)
{
    const char *const texts[] = {"", ":", "localhost", "50053", ":50053",
        "localhost:", "localhost:65536", "localhost:99999999999", "localhost:-1", "localhost:+1",
        "localhost:0x10", "localhost: 1", "localhost:1 ", "::1:50053", "[::1]", "[]:1", "[:1",
        "[::1:50053", "::1]:50053", "[localhost]:50053", "unix:", "unix:relative.sock",
        "unix:@abstract"};
    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++)
        expect_refusal(texts[i]);
}

Test(listener_address, holds_a_unix_path_of_the_most_bytes_and_refuses_one_more)
{
    char text[5 + LISTENER_PATH_MAX + 2] = "unix:/";
    memset(text + 6, 'p', LISTENER_PATH_MAX - 1);
    struct listener_address address;
    const char *expected = NULL;
    cr_assert_eq(listener_address_parse(text, &address, &expected), 0);
    cr_assert_eq(strlen(address.path), LISTENER_PATH_MAX);
    text[5 + LISTENER_PATH_MAX] = 'p';
    expect_refusal(text);
}

Test(listener_address, refuses_a_host_over_its_bound)
{
    char text[LISTENER_HOST_MAX + 8] = "";
    memset(text, 'h', LISTENER_HOST_MAX + 1);
    memcpy(text + LISTENER_HOST_MAX + 1, ":1", 3);
    expect_refusal(text);
    text[LISTENER_HOST_MAX] = ':';
    text[LISTENER_HOST_MAX + 1] = '1';
    text[LISTENER_HOST_MAX + 2] = '\0';
    struct listener_address address;
    const char *expected = NULL;
    cr_assert_eq(listener_address_parse(text, &address, &expected), 0);
}

Test(listener_address, writes_bound_addresses_in_the_notation_that_it_reads)
{
    char text[LISTENER_TEXT_MAX];
    struct sockaddr_in ipv4 = {.sin_family = AF_INET, .sin_port = htons(50053)};
    ipv4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener_address_format((const struct sockaddr *)&ipv4, sizeof(ipv4), text);
    cr_assert_str_eq(text, "127.0.0.1:50053");

    struct sockaddr_in6 ipv6 = {
        .sin6_family = AF_INET6, .sin6_port = htons(50055), .sin6_addr = in6addr_any};
    listener_address_format((const struct sockaddr *)&ipv6, sizeof(ipv6), text);
    cr_assert_str_eq(text, "[::]:50055");

    struct sockaddr_un local = {.sun_family = AF_UNIX, .sun_path = "/run/userd/post.sock"};
    listener_address_format((const struct sockaddr *)&local, sizeof(local), text);
    cr_assert_str_eq(text, "unix:/run/userd/post.sock");
}
