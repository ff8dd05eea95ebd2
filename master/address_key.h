/* Whom a client address counts as: an IPv4 address each, an IPv6 /64 as one, for whoever has it may
 * choose among all its addresses. */
#ifndef USERD_MASTER_ADDRESS_KEY_H
#define USERD_MASTER_ADDRESS_KEY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/* Scatters keys over a table, with a seed so that nobody can choose addresses that meet there. */
#define ADDRESS_KEY_MULTIPLIER UINT64_C(0x9E3779B97F4A7C15)

/* False for a family that is not counted. */
bool address_key_make(const struct sockaddr *address, uint64_t *ret_key);

#endif
