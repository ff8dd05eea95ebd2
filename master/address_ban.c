#include "master/address_ban.h"

#include <errno.h>
#include <stdlib.h>

#include "common/keyed_hash.h"

#define SETS        512
#define WAYS        8
#define US_PER_S    UINT64_C(1000000)
#define DECAY_US    (60 * US_PER_S)
#define STRIKES_MAX 20U /* of doublings: over a week from one second on */

struct banned_address {
    uint64_t key;
    uint64_t until_us; /* when the ban ends, or has ended; 0: the place is free */
    unsigned int strikes;
};

struct address_ban {
    struct keyed_hash hash;
    uint64_t first_s; /* 0: no bans */
    uint64_t longest_s;
    struct banned_address sets[SETS][WAYS];
};

int address_ban_new(struct address_ban **ret_ban)
{
    struct address_ban *ban = calloc(1, sizeof(*ban));
    if (ban == NULL)
        return -ENOMEM;
    if (!keyed_hash_init(&ban->hash)) {
        free(ban);
        return -EIO;
    }
    *ret_ban = ban;
    return 0;
}

struct address_ban *address_ban_free(struct address_ban *ban)
{
    free(ban);
    return NULL;
}

void address_ban_set(struct address_ban *ban, unsigned int first_s, unsigned int longest_s)
{
    ban->first_s = first_s;
    ban->longest_s = longest_s > first_s ? longest_s : first_s;
}

static uint64_t set_of(const struct address_ban *ban, uint64_t key)
{
    return keyed_hash_of(&ban->hash, key) % SETS;
}

/* The address's own place, or the one in its set whose ban ends first. */
static struct banned_address *find_place(struct address_ban *ban, uint64_t key)
{
    struct banned_address *set = ban->sets[set_of(ban, key)];
    struct banned_address *first = &set[0];
    for (unsigned int i = 0; i < WAYS; i++) {
        if (set[i].until_us != 0 && set[i].key == key)
            return &set[i];
        if (set[i].until_us < first->until_us)
            first = &set[i];
    }
    *first = (struct banned_address){.key = key};
    return first;
}

static void decay(struct banned_address *place, uint64_t now_us)
{
    uint64_t quiet = now_us > place->until_us ? (now_us - place->until_us) / DECAY_US : 0;
    place->strikes -= quiet < place->strikes ? (unsigned int)quiet : place->strikes;
}

unsigned int address_ban_add(struct address_ban *ban, uint64_t key, uint64_t now_us)
{
    if (ban->first_s == 0)
        return 0;
    struct banned_address *place = find_place(ban, key);
    if (now_us < place->until_us)
        return 0;
    decay(place, now_us);
    uint64_t seconds = ban->first_s << place->strikes;
    if (seconds < ban->longest_s && place->strikes < STRIKES_MAX)
        place->strikes++;
    if (seconds > ban->longest_s)
        seconds = ban->longest_s;
    place->until_us = now_us + seconds * US_PER_S;
    return (unsigned int)seconds;
}

bool address_ban_holds(const struct address_ban *ban, uint64_t key, uint64_t now_us)
{
    if (ban->first_s == 0)
        return false;
    const struct banned_address *set = ban->sets[set_of(ban, key)];
    for (unsigned int i = 0; i < WAYS; i++)
        if (set[i].key == key && now_us < set[i].until_us)
            return true;
    return false;
}
