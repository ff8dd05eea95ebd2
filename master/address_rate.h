/* How often each client address may connect: so many a second, and as many at once after a pause.
 *
 * The generic cell rate algorithm (ITU-T I.371): one time an address, from which on the next
 * connection is due. An address whose time has passed is as good as unknown, so a table of fixed
 * size is enough; when more addresses than it holds connect at once, the one that has asked for
 * least is forgotten, never one that floods.
 */
#ifndef USERD_MASTER_ADDRESS_RATE_H
#define USERD_MASTER_ADDRESS_RATE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "common/attributes.h"

struct address_rate;

/* Without a limit until address_rate_set(). */
MUST_CHECK int address_rate_new(struct address_rate **ret_rate);
/* NULL is fine. Always returns NULL. */
struct address_rate *address_rate_free(struct address_rate *rate);

/* 0: no limit. */
void address_rate_set(struct address_rate *rate, unsigned int per_second);
/* One more connection; it counts if it is allowed. `now_us`: CLOCK_MONOTONIC. */
bool address_rate_allows(
    struct address_rate *rate, const struct sockaddr *address, uint64_t now_us);

#endif
