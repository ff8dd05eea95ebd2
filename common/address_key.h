/* Whom a client address counts as: an IPv4 address each, an IPv6 /64 as one, for whoever has it may
 * choose among all its addresses. */
#ifndef USERD_COMMON_ADDRESS_KEY_H
#define USERD_COMMON_ADDRESS_KEY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/* False for a family that is not counted. */
bool address_key_make(const struct sockaddr *address, uint64_t *ret_key);

/* For people: "192.0.2.1", "2001:db8::/64". */
#define ADDRESS_KEY_TEXT_BYTES 64
void address_key_write(uint64_t key, char ret_text[static ADDRESS_KEY_TEXT_BYTES]);

#endif
