/* Which client addresses are banned, and for how long.
 *
 * An offence begins a ban. The first one is short; each further offence doubles the next ban, up to
 * a maximum, and each minute without one after the end of a ban halves it again. What an address
 * does while it is banned (its other connections may be reset in the same moment) is the same
 * offence: it changes nothing. An IPv6 /64 counts as one address (common/address_key.h).
 *
 * The table has a fixed size. When it is full, the entry that would end first gives way.
 */
#ifndef USERD_MASTER_ADDRESS_BAN_H
#define USERD_MASTER_ADDRESS_BAN_H

#include <stdbool.h>
#include <stdint.h>

#include "common/attributes.h"

struct address_ban;

/* 0, -ENOMEM or -EIO. Bans nobody until address_ban_set(). */
MUST_CHECK int address_ban_new(struct address_ban **ret_ban);
/* NULL is fine. Always returns NULL. */
struct address_ban *address_ban_free(struct address_ban *ban);

/* The first ban and the longest one, in seconds. 0: no bans, those that last end. */
void address_ban_set(struct address_ban *ban, unsigned int first_s, unsigned int longest_s);
/* An offence of `key`. Returns for how many seconds it is banned from now on; 0: no new ban begins.
 * `now_us`: CLOCK_MONOTONIC. */
unsigned int address_ban_add(struct address_ban *ban, uint64_t key, uint64_t now_us);
bool address_ban_holds(const struct address_ban *ban, uint64_t key, uint64_t now_us);

#endif
