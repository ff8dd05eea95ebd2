#include "common/address_list.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEPARATORS   ", \t\r\n"
#define ITEM_BYTES   80
#define IPV6_BITS    128
#define IPV4_BITS    32
#define IPV4_PREFIX  96 /* of ::ffff:0:0/96 */
#define BITS_OF_BYTE 8
#define IPV4_MAPPED                              \
    {                                            \
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff \
    }
#define DECIMAL         10
#define MAPPED_POSITION 12

static bool read_bits(const char *text, unsigned int most, unsigned int *ret_bits)
{
    char *end = NULL;
    if (text[0] < '0' || text[0] > '9')
        return false;
    unsigned long bits = strtoul(text, &end, DECIMAL);
    if (*end != '\0' || bits > most)
        return false;
    *ret_bits = (unsigned int)bits;
    return true;
}

static bool read_network(char *item, struct address_network *ret_network)
{
    struct address_network network = {.bytes = IPV4_MAPPED};
    char *slash = strchr(item, '/');
    unsigned int bits = 0;
    if (slash != NULL)
        *slash = '\0';
    bool is_ipv4 = inet_pton(AF_INET, item, &network.bytes[MAPPED_POSITION]) == 1;
    if (!is_ipv4 && inet_pton(AF_INET6, item, network.bytes) != 1)
        return false;
    unsigned int most = is_ipv4 ? IPV4_BITS : IPV6_BITS;
    if (slash == NULL)
        bits = most;
    else if (!read_bits(slash + 1, most, &bits))
        return false;
    network.bits = is_ipv4 ? IPV4_PREFIX + bits : bits;
    *ret_network = network;
    return true;
}

bool address_list_parse(const char *text, struct address_list *ret_list,
    char ret_reason[static ADDRESS_LIST_REASON_BYTES])
{
    *ret_list = (struct address_list){0};
    struct address_list list = {0};
    for (const char *next = text + strspn(text, SEPARATORS); *next != '\0';
         next += strspn(next, SEPARATORS)) {
        char item[ITEM_BYTES];
        char copy[ITEM_BYTES];
        size_t length = strcspn(next, SEPARATORS);
        (void)snprintf(item, sizeof(item), "%.*s", (int)length, next);
        (void)snprintf(copy, sizeof(copy), "%s", item);
        if (list.count == ADDRESS_LIST_MAX) {
            (void)snprintf(ret_reason, ADDRESS_LIST_REASON_BYTES,
                "more than %d addresses, expected at most that many", ADDRESS_LIST_MAX);
            return false;
        }
        if (length >= sizeof(item) || !read_network(copy, &list.networks[list.count])) {
            (void)snprintf(ret_reason, ADDRESS_LIST_REASON_BYTES,
                "\"%s\" is no address, expected addresses or networks such as \"192.0.2.7\" or "
                "\"2001:db8::/32\"",
                item);
            return false;
        }
        list.count++;
        next += length;
    }
    *ret_list = list;
    return true;
}

static bool is_within(const uint8_t bytes[static 16], const struct address_network *network)
{
    unsigned int whole = network->bits / BITS_OF_BYTE;
    unsigned int rest = network->bits % BITS_OF_BYTE;
    if (memcmp(bytes, network->bytes, whole) != 0)
        return false;
    if (rest == 0)
        return true;
    uint8_t mask = (uint8_t)(0xff << (BITS_OF_BYTE - rest));
    return ((bytes[whole] ^ network->bytes[whole]) & mask) == 0;
}

bool address_list_contains(const struct address_list *list, const struct sockaddr *address)
{
    uint8_t bytes[16] = IPV4_MAPPED;
    if (list->count == 0)
        return false;
    if (address->sa_family == AF_INET) {
        struct sockaddr_in ipv4;
        memcpy(&ipv4, address, sizeof(ipv4));
        memcpy(&bytes[MAPPED_POSITION], &ipv4.sin_addr, sizeof(ipv4.sin_addr));
    } else if (address->sa_family == AF_INET6) {
        struct sockaddr_in6 ipv6;
        memcpy(&ipv6, address, sizeof(ipv6));
        memcpy(bytes, ipv6.sin6_addr.s6_addr, sizeof(bytes));
    } else {
        return false;
    }
    for (size_t i = 0; i < list->count; i++)
        if (is_within(bytes, &list->networks[i]))
            return true;
    return false;
}
