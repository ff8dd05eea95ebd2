/* How many living connections each client address has.
 *
 * The master passes a connection on and keeps nothing of it but a note: whose it is, and what the
 * kernel calls it. A note is not told when its connection ends. Only when an address seems to be at
 * its limit are its notes held against the kernel's books (socket_probe.h), and those of ended
 * connections struck out. So the count is never too low, and it is exact where it decides; the many
 * addresses far from the limit cost nothing. The alternatives: a second descriptor of each
 * connection here would keep a client connected after its worker has closed it, and a message for
 * each end would make the limit depend on the workers' word.
 *
 * IPv4 addresses count each; an IPv6 /64 counts as one, for whoever has it may choose among all its
 * addresses. Other families are not counted.
 */
#ifndef USERD_MASTER_ADDRESS_LIMIT_H
#define USERD_MASTER_ADDRESS_LIMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "common/attributes.h"

/* An address at its limit is held against the kernel's books so often at most; in between it stays
 * at its limit. */
#define ADDRESS_LIMIT_CHECK_INTERVAL_US (INT64_C(250) * 1000)

struct address_limit;

/* `capacity`: connections that can be noted at once; over it they go uncounted. Where the kernel
 * does not answer, nothing is ever counted, and a warning says so. */
MUST_CHECK int address_limit_new(size_t capacity, struct address_limit **ret_limit);
/* Makes room for `capacity` connections; never shrinks. -ENOMEM: all stays as it was. */
MUST_CHECK int address_limit_reserve(struct address_limit *limit, size_t capacity);
/* NULL is fine. Always returns NULL. */
struct address_limit *address_limit_free(struct address_limit *limit);

/* Whether the address has fewer than `maximum` living connections. `now_us`: CLOCK_MONOTONIC. */
bool address_limit_allows(struct address_limit *limit, const struct sockaddr *address,
    unsigned int maximum, int64_t now_us);
/* Notes the connection `fd`, passed to the worker in `slot`. -ENOSPC: there is no room for another
 * note. */
MUST_CHECK int address_limit_add(struct address_limit *limit, int fd,
    const struct sockaddr *address, uint32_t slot, int64_t now_us);
/* The worker has not taken the connection `fd`: strikes its note out. */
void address_limit_remove(struct address_limit *limit, int fd, const struct sockaddr *address);
/* The process in `slot` is gone, and all that it held. */
void address_limit_forget_slot(struct address_limit *limit, uint32_t slot);

/* Notes of that address, ended ones not yet struck out among them. */
unsigned int address_limit_count(const struct address_limit *limit, const struct sockaddr *address);

#endif
