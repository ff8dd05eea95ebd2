/* A hash of one number under a secret of this process: whoever chooses the numbers cannot choose
 * which of them meet in a table. SipHash-1-3 (Aumasson and Bernstein, 2012) of eight bytes. */
#ifndef USERD_COMMON_KEYED_HASH_H
#define USERD_COMMON_KEYED_HASH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/random.h>
#include <sys/types.h>

#include "common/attributes.h"

struct keyed_hash {
    uint64_t secret[2];
};

/* False: the kernel has no random bytes. Waits for them at the start of the machine. */
MUST_CHECK static inline bool keyed_hash_init(struct keyed_hash *hash)
{
    return getrandom(hash->secret, sizeof(hash->secret), 0) == (ssize_t)sizeof(hash->secret);
}

static inline uint64_t keyed_hash_rotate(uint64_t value, unsigned int bits)
{
    return value << bits | value >> (64 - bits);
}

static inline void keyed_hash_round(uint64_t state[static 4])
{
    state[0] += state[1];
    state[2] += state[3];
    state[1] = keyed_hash_rotate(state[1], 13) ^ state[0];
    state[3] = keyed_hash_rotate(state[3], 16) ^ state[2];
    state[0] = keyed_hash_rotate(state[0], 32) + state[3];
    state[2] += state[1];
    state[1] = keyed_hash_rotate(state[1], 17) ^ state[2];
    state[3] = keyed_hash_rotate(state[3], 21) ^ state[0];
    state[2] = keyed_hash_rotate(state[2], 32);
}

static inline uint64_t keyed_hash_of(const struct keyed_hash *hash, uint64_t number)
{
    static const uint64_t length = UINT64_C(8) << 56; /* the last block: the length alone */
    uint64_t state[4] = {
        hash->secret[0] ^ UINT64_C(0x736f6d6570736575),
        hash->secret[1] ^ UINT64_C(0x646f72616e646f6d),
        hash->secret[0] ^ UINT64_C(0x6c7967656e657261),
        hash->secret[1] ^ UINT64_C(0x7465646279746573),
    };
    state[3] ^= number;
    keyed_hash_round(state);
    state[0] ^= number;
    state[3] ^= length;
    keyed_hash_round(state);
    state[0] ^= length;
    state[2] ^= 0xff;
    for (int i = 0; i < 3; i++)
        keyed_hash_round(state);
    return state[0] ^ state[1] ^ state[2] ^ state[3];
}

#endif
