/* A list of addresses that an operator writes: "192.0.2.7, 10.0.0.0/8, 2001:db8::/32". An address
 * without a prefix length is that address alone. IPv4 addresses that come mapped into IPv6 count as
 * IPv4. Holds no memory of its own. */
#ifndef USERD_COMMON_ADDRESS_LIST_H
#define USERD_COMMON_ADDRESS_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "common/attributes.h"

#define ADDRESS_LIST_MAX 64

/* An IPv4 network is the one inside ::ffff:0:0/96. */
struct address_network {
    uint8_t bytes[16];
    unsigned int bits; /* of the prefix, 0 to 128 */
};

struct address_list {
    struct address_network networks[ADDRESS_LIST_MAX];
    size_t count;
};

/* Items are separated by commas and blanks; "" is an empty list. False: *ret_reason says what is
 * wrong (at most ADDRESS_LIST_REASON_BYTES), and *ret_list is empty. */
#define ADDRESS_LIST_REASON_BYTES 192
MUST_CHECK bool address_list_parse(const char *text, struct address_list *ret_list,
    char ret_reason[static ADDRESS_LIST_REASON_BYTES]);

/* False for an address that is neither IPv4 nor IPv6. */
bool address_list_contains(const struct address_list *list, const struct sockaddr *address);

#endif
