#include "common/listener_address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#define UNIX_PREFIX "unix:"
#define PORT_MAX    65535

static const char expected_form[] = "HOST:PORT, [IPV6]:PORT or unix:/PATH";
static const char expected_port[] = "a port from 0 to 65535 behind the last colon";
static const char expected_path[] = "an absolute path of at most 107 bytes behind unix:";
static const char expected_host[] = "a host name or address of 1 to 255 bytes before the port";
static const char expected_brackets[] = "an IPv6 address in brackets, as in [::]:50053";

_Static_assert(LISTENER_PATH_MAX + 1 == sizeof(((struct sockaddr_un *)NULL)->sun_path),
    "LISTENER_PATH_MAX is what unix(7) takes");

static int parse_unix(
    const char *path, struct listener_address *ret_address, const char **ret_expected)
{
    size_t length = strlen(path);
    if (path[0] != '/' || length > LISTENER_PATH_MAX) {
        *ret_expected = expected_path;
        return -EINVAL;
    }
    *ret_address = (struct listener_address){.is_unix = true};
    memcpy(ret_address->path, path, length + 1);
    return 0;
}

static int parse_port(const char *text, uint16_t *ret_port)
{
    unsigned int port = 0;
    if (*text == '\0')
        return -EINVAL;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9')
            return -EINVAL;
        port = port * 10 + (unsigned int)(*text - '0');
        if (port > PORT_MAX)
            return -EINVAL;
    }
    *ret_port = (uint16_t)port;
    return 0;
}

static int parse_host(const char *start, size_t length, char *ret_host, const char **ret_expected)
{
    bool is_bracketed = length > 0 && start[0] == '[';
    if (is_bracketed) {
        if (length < 3 || start[length - 1] != ']') {
            *ret_expected = expected_brackets;
            return -EINVAL;
        }
        start++;
        length -= 2;
    }
    if (length == 0 || length > LISTENER_HOST_MAX) {
        *ret_expected = expected_host;
        return -EINVAL;
    }
    bool has_colon = memchr(start, ':', length) != NULL;
    if (has_colon != is_bracketed) {
        *ret_expected = expected_brackets;
        return -EINVAL;
    }
    memcpy(ret_host, start, length);
    ret_host[length] = '\0';
    return 0;
}

int listener_address_parse(
    const char *text, struct listener_address *ret_address, const char **ret_expected)
{
    if (strncmp(text, UNIX_PREFIX, strlen(UNIX_PREFIX)) == 0)
        return parse_unix(text + strlen(UNIX_PREFIX), ret_address, ret_expected);

    const char *colon = strrchr(text, ':');
    if (colon == NULL) {
        *ret_expected = expected_form;
        return -EINVAL;
    }
    struct listener_address address = {.is_unix = false};
    int result = parse_host(text, (size_t)(colon - text), address.host, ret_expected);
    if (result < 0)
        return result;
    result = parse_port(colon + 1, &address.port);
    if (result < 0) {
        *ret_expected = expected_port;
        return result;
    }
    *ret_address = address;
    return 0;
}

void listener_address_format(
    const struct sockaddr *address, socklen_t length, char ret_text[LISTENER_TEXT_MAX])
{
    char host[INET6_ADDRSTRLEN] = "?";
    if (address->sa_family == AF_INET) {
        struct sockaddr_in ipv4;
        memcpy(&ipv4, address, sizeof(ipv4));
        (void)inet_ntop(AF_INET, &ipv4.sin_addr, host, sizeof(host));
        (void)snprintf(ret_text, LISTENER_TEXT_MAX, "%s:%u", host, ntohs(ipv4.sin_port));
    } else if (address->sa_family == AF_INET6) {
        struct sockaddr_in6 ipv6;
        memcpy(&ipv6, address, sizeof(ipv6));
        (void)inet_ntop(AF_INET6, &ipv6.sin6_addr, host, sizeof(host));
        (void)snprintf(ret_text, LISTENER_TEXT_MAX, "[%s]:%u", host, ntohs(ipv6.sin6_port));
    } else if (address->sa_family == AF_UNIX && length > offsetof(struct sockaddr_un, sun_path)) {
        struct sockaddr_un local = {0};
        memcpy(&local, address, length < sizeof(local) ? length : sizeof(local));
        (void)snprintf(ret_text, LISTENER_TEXT_MAX, UNIX_PREFIX "%.*s", (int)sizeof(local.sun_path),
            local.sun_path);
    } else {
        (void)snprintf(ret_text, LISTENER_TEXT_MAX, "?");
    }
}
