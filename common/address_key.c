#include "common/address_key.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#define KEY_SIZE        8
#define IPV4_KEY_PREFIX UINT64_C(0x0000FFFF00000000) /* no IPv6 network in use begins like this */
#define IPV4_KEY_MASK   UINT64_C(0xFFFFFFFF00000000)

bool address_key_make(const struct sockaddr *address, uint64_t *ret_key)
{
    if (address->sa_family == AF_INET) {
        struct sockaddr_in ipv4;
        memcpy(&ipv4, address, sizeof(ipv4));
        *ret_key = IPV4_KEY_PREFIX | ipv4.sin_addr.s_addr;
        return true;
    }
    if (address->sa_family != AF_INET6)
        return false;
    struct sockaddr_in6 ipv6;
    memcpy(&ipv6, address, sizeof(ipv6));
    if (IN6_IS_ADDR_V4MAPPED(&ipv6.sin6_addr)) {
        uint32_t ipv4 = 0;
        memcpy(&ipv4, &ipv6.sin6_addr.s6_addr[12], sizeof(ipv4));
        *ret_key = IPV4_KEY_PREFIX | ipv4;
        return true;
    }
    memcpy(ret_key, ipv6.sin6_addr.s6_addr, KEY_SIZE);
    return true;
}

void address_key_write(uint64_t key, char ret_text[static ADDRESS_KEY_TEXT_BYTES])
{
    if ((key & IPV4_KEY_MASK) == IPV4_KEY_PREFIX) {
        struct in_addr ipv4 = {.s_addr = (uint32_t)key};
        if (inet_ntop(AF_INET, &ipv4, ret_text, ADDRESS_KEY_TEXT_BYTES) == NULL)
            ret_text[0] = '\0';
        return;
    }
    struct in6_addr network = {0};
    char text[INET6_ADDRSTRLEN] = "";
    memcpy(network.s6_addr, &key, KEY_SIZE);
    (void)inet_ntop(AF_INET6, &network, text, sizeof(text));
    (void)snprintf(ret_text, ADDRESS_KEY_TEXT_BYTES, "%s/64", text);
}
