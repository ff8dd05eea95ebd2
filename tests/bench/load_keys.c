#include "tests/bench/load_keys.h"

#include <math.h>

/* A prime larger than any count of ids that is in use: rank times it, modulo the count, puts every
 * rank elsewhere. */
#define SCATTER UINT64_C(4294967291)

/* xorshift64*: plenty for drawing keys. */
static uint64_t draw_bits(struct load_random *random)
{
    uint64_t state = random->state;
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    random->state = state;
    return state * UINT64_C(0x2545F4914F6CDD1D);
}

uint32_t load_random_below(struct load_random *random, uint32_t bound)
{
    return (uint32_t)(((draw_bits(random) >> 32) * bound) >> 32);
}

/* ---- Zipf: rejection-inversion (Hoermann and Derflinger, 1996): no table, whatever the count ----
 */

/* The integral of x^-exponent. */
static double area_to(const struct load_keys *keys, double x)
{
    if (keys->exponent == 1.0)
        return log(x);
    return (pow(x, 1.0 - keys->exponent) - 1.0) / (1.0 - keys->exponent);
}

static double at_area(const struct load_keys *keys, double area)
{
    if (keys->exponent == 1.0)
        return exp(area);
    return pow(1.0 + area * (1.0 - keys->exponent), 1.0 / (1.0 - keys->exponent));
}

void load_keys_init(struct load_keys *keys)
{
    if (keys->exponent == 0.0)
        return;
    keys->area_first = area_to(keys, 1.5) - 1.0;
    keys->area_last = area_to(keys, keys->count + 0.5);
    keys->shortcut = 2.0 - at_area(keys, area_to(keys, 2.5) - pow(2.0, -keys->exponent));
}

static uint32_t draw_rank(const struct load_keys *keys, struct load_random *random)
{
    for (;;) {
        double share = (double)(draw_bits(random) >> 11) * 0x1p-53;
        double area = keys->area_last + share * (keys->area_first - keys->area_last);
        double x = at_area(keys, area);
        double rank = floor(x + 0.5);
        rank = rank < 1.0 ? 1.0 : rank > keys->count ? keys->count : rank;
        if (rank - x <= keys->shortcut ||
            area >= area_to(keys, rank + 0.5) - pow(rank, -keys->exponent))
            return (uint32_t)rank;
    }
}

uint32_t load_keys_draw(const struct load_keys *keys, struct load_random *random)
{
    if (keys->exponent == 0.0)
        return 1 + load_random_below(random, keys->count);
    return 1 + (uint32_t)(draw_rank(keys, random) * SCATTER % keys->count);
}
