#include "master/address_rate.h"

#include <errno.h>
#include <stdlib.h>

#include "common/address_key.h"
#include "common/keyed_hash.h"

#define SETS     512
#define WAYS     8
#define US_PER_S UINT64_C(1000000)
#define BURST_US US_PER_S /* of a second's connections all may come at once */

struct address_due {
    uint64_t key;
    uint64_t
        due_us; /* when the next one would be in step; in the past: nothing is held against it */
};

struct address_rate {
    struct keyed_hash hash;
    uint64_t interval_us; /* 0: no limit */
    struct address_due sets[SETS][WAYS];
};

int address_rate_new(struct address_rate **ret_rate)
{
    struct address_rate *rate = calloc(1, sizeof(*rate));
    if (rate == NULL)
        return -ENOMEM;
    if (!keyed_hash_init(&rate->hash)) {
        free(rate);
        return -EIO;
    }
    *ret_rate = rate;
    return 0;
}

struct address_rate *address_rate_free(struct address_rate *rate)
{
    free(rate);
    return NULL;
}

void address_rate_set(struct address_rate *rate, unsigned int per_second)
{
    rate->interval_us = per_second == 0 ? 0 : (US_PER_S + per_second - 1) / per_second;
}

/* The address's own place, or the one in its set that is missed least. */
static struct address_due *find_place(struct address_rate *rate, uint64_t key)
{
    struct address_due *set = rate->sets[keyed_hash_of(&rate->hash, key) % SETS];
    struct address_due *least = &set[0];
    for (unsigned int i = 0; i < WAYS; i++) {
        if (set[i].key == key)
            return &set[i];
        if (set[i].due_us < least->due_us)
            least = &set[i];
    }
    *least = (struct address_due){.key = key};
    return least;
}

bool address_rate_allows(struct address_rate *rate, const struct sockaddr *address, uint64_t now_us)
{
    uint64_t key = 0;
    if (rate->interval_us == 0 || !address_key_make(address, &key))
        return true;
    struct address_due *place = find_place(rate, key);
    uint64_t due_us = place->due_us > now_us ? place->due_us : now_us;
    if (due_us >= now_us + BURST_US)
        return false;
    place->due_us = due_us + rate->interval_us;
    return true;
}
