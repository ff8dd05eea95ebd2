/* Ids drawn at random from 1 to a count: all alike, or by Zipf's law, where the hottest ids stand
 * anywhere in the range. */
#ifndef USERD_TESTS_BENCH_LOAD_KEYS_H
#define USERD_TESTS_BENCH_LOAD_KEYS_H

#include <stdint.h>

struct load_keys {
    uint32_t count;
    double exponent; /* of Zipf's law; 0: uniform */
    /* private: of the rejection-inversion */
    double area_first;
    double area_last;
    double shortcut;
};

/* A source of random numbers: any state but 0. */
struct load_random {
    uint64_t state;
};

/* Below `bound`. */
uint32_t load_random_below(struct load_random *random, uint32_t bound);

/* `count` and `exponent` are set: makes the rest of it. */
void load_keys_init(struct load_keys *keys);
uint32_t load_keys_draw(const struct load_keys *keys, struct load_random *random);

#endif
