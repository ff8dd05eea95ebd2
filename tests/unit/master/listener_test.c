/* Which address of a name a listener takes. The names are the test's own: getaddrinfo() is
 * answered here, for all tests of this program. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/attributes.h"
#include "master/listener.h"

#define ADDRESSES_MAX 4
#define ABSENT        "192.0.2.1" /* RFC 5737: of documentation, on no machine */

static const struct {
    const char *name;
    const char *addresses[ADDRESSES_MAX];
} names[] = {
    {"both.test", {"127.0.0.1", "::1"}},
    {"two.test", {"127.0.0.1", "127.0.0.2"}},
    {"moved.test", {ABSENT, "127.0.0.1"}},
    {"six.test", {ABSENT, "::1"}},
};

static struct addrinfo *make_entry(const char *text, uint16_t port)
{
    struct addrinfo *entry = calloc(1, sizeof(*entry));
    struct sockaddr_in6 *address = calloc(1, sizeof(*address)); /* as large as either */
    cr_assert(entry != NULL && address != NULL);
    struct sockaddr_in *ipv4 = (struct sockaddr_in *)(void *)address;
    bool is_ipv4 = inet_pton(AF_INET, text, &ipv4->sin_addr) == 1;
    if (!is_ipv4)
        cr_assert_eq(inet_pton(AF_INET6, text, &address->sin6_addr), 1);
    *(is_ipv4 ? &ipv4->sin_port : &address->sin6_port) = htons(port);
    *(is_ipv4 ? &ipv4->sin_family : &address->sin6_family) = is_ipv4 ? AF_INET : AF_INET6;
    entry->ai_family = is_ipv4 ? AF_INET : AF_INET6;
    entry->ai_socktype = SOCK_STREAM;
    entry->ai_addr = (struct sockaddr *)(void *)address;
    entry->ai_addrlen = is_ipv4 ? sizeof(*ipv4) : sizeof(*address);
    return entry;
}

/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name) */
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
    struct addrinfo **ret_entries)
{
    (void)hints;
    struct addrinfo **end = ret_entries;
    *end = NULL;
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++)
        for (size_t j = 0; strcmp(names[i].name, node) == 0 && j < ADDRESSES_MAX; j++)
            if (names[i].addresses[j] != NULL) {
                *end = make_entry(names[i].addresses[j], (uint16_t)strtoul(service, NULL, 10));
                end = &(*end)->ai_next;
            }
    struct in6_addr ignored;
    if (*ret_entries == NULL &&
        (inet_pton(AF_INET, node, &ignored) == 1 || inet_pton(AF_INET6, node, &ignored) == 1))
        *ret_entries = make_entry(node, (uint16_t)strtoul(service, NULL, 10));
    return *ret_entries == NULL ? EAI_NONAME : 0;
}

/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name) */
void freeaddrinfo(struct addrinfo *entries)
{
    while (entries != NULL) {
        struct addrinfo *next = entries->ai_next;
        free(entries->ai_addr);
        free(entries);
        entries = next;
    }
}

/* A socket that listens on a free port of that address; -1: the machine has no such address. */
static int given_taken_port(const char *address, uint16_t *port)
{
    struct addrinfo *entry = make_entry(address, *port);
    int fd = socket(entry->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && (bind(fd, entry->ai_addr, entry->ai_addrlen) < 0 || listen(fd, 1) < 0)) {
        (void)close(fd);
        fd = -1;
    }
    if (fd >= 0) {
        socklen_t length = entry->ai_addrlen;
        cr_assert_eq(getsockname(fd, entry->ai_addr, &length), 0);
        *port = ntohs(entry->ai_family == AF_INET
                          ? ((struct sockaddr_in *)(void *)entry->ai_addr)->sin_port
                          : ((struct sockaddr_in6 *)(void *)entry->ai_addr)->sin6_port);
    }
    freeaddrinfo(entry);
    return fd;
}

/* The result; *ret_text is where it listens, "" when it does not. */
static int when_opened(const char *name, uint16_t port, char ret_text[LISTENER_TEXT_MAX])
{
    char address[64];
    char listener_name[] = "gateway";
    (void)snprintf(address, sizeof(address), "%s:%u", name, port);
    const struct settings_listener setting = {.name = listener_name, .address = address};
    struct settings_complaints complaints = {0};
    struct listener listener = {.fd = -1};
    int result = listener_open(&setting, "userd.conf", NULL, &complaints, &listener);
    ret_text[0] = '\0';
    if (result == 0) {
        (void)snprintf(ret_text, LISTENER_TEXT_MAX, "%s", listener.bound_text);
        listener_close(&listener);
    }
    settings_complaints_cleanup(&complaints);
    return result;
}

Test(listener, takes_no_ipv6_address_for_an_ipv4_address_that_is_in_use)
{
    uint16_t port = 0;
    char text[LISTENER_TEXT_MAX];
    int taken = given_taken_port("127.0.0.1", &port);
    cr_assert_geq(taken, 0);
    cr_expect_eq(when_opened("both.test", port, text), -EADDRINUSE, "listens on %s", text);
    cr_expect_eq(when_opened("two.test", port, text), -EADDRINUSE, "listens on %s", text);
    (void)close(taken);
}

Test(listener, takes_the_next_address_for_one_that_this_machine_does_not_have)
{
    char text[LISTENER_TEXT_MAX];
    cr_assert_eq(when_opened("moved.test", 0, text), 0);
    cr_expect_eq(strncmp(text, "127.0.0.1:", strlen("127.0.0.1:")), 0, "%s", text);
    uint16_t port = 0;
    int ipv6 = given_taken_port("::1", &port);
    if (ipv6 < 0) {
        cr_expect_eq(when_opened("six.test", 0, text), -EADDRNOTAVAIL);
        return;
    }
    (void)close(ipv6);
    cr_assert_eq(when_opened("six.test", 0, text), 0);
    cr_expect_eq(strncmp(text, "[::1]:", strlen("[::1]:")), 0, "%s", text);
}

Test(listener, says_that_a_name_is_unknown)
{
    char text[LISTENER_TEXT_MAX];
    cr_expect_eq(when_opened("nowhere.test", 0, text), -EADDRNOTAVAIL);
}
