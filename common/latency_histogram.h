/* Durations in log-linear buckets: eight to each doubling, so that a value is known to 12.5 %.
 *
 * The layout of the counters alone, for whoever keeps them: a scoreboard slot's, which others read.
 */
#ifndef USERD_COMMON_LATENCY_HISTOGRAM_H
#define USERD_COMMON_LATENCY_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

#define LATENCY_HISTOGRAM_STEP_BITS 3
#define LATENCY_HISTOGRAM_STEPS     ((size_t)8) /* of each doubling */
#define LATENCY_HISTOGRAM_TOP_BIT   36 /* 2^36 us are 19 hours; what is longer counts as that */
#define LATENCY_HISTOGRAM_BUCKETS \
    ((LATENCY_HISTOGRAM_TOP_BIT - LATENCY_HISTOGRAM_STEP_BITS + 2) * LATENCY_HISTOGRAM_STEPS)

static inline size_t latency_histogram_bucket(uint64_t duration_us)
{
    if (duration_us < LATENCY_HISTOGRAM_STEPS)
        return (size_t)duration_us;
    unsigned int bit = 63 - (unsigned int)__builtin_clzll(duration_us);
    if (bit > LATENCY_HISTOGRAM_TOP_BIT)
        return LATENCY_HISTOGRAM_BUCKETS - 1;
    size_t step = (size_t)(duration_us >> (bit - LATENCY_HISTOGRAM_STEP_BITS)) &
                  (LATENCY_HISTOGRAM_STEPS - 1);
    return (size_t)(bit - LATENCY_HISTOGRAM_STEP_BITS + 1) * LATENCY_HISTOGRAM_STEPS + step;
}

/* The least duration that falls into the bucket. */
static inline uint64_t latency_histogram_least_us(size_t bucket)
{
    if (bucket < LATENCY_HISTOGRAM_STEPS)
        return bucket;
    unsigned int shift = (unsigned int)(bucket / LATENCY_HISTOGRAM_STEPS) - 1;
    return (uint64_t)(LATENCY_HISTOGRAM_STEPS + bucket % LATENCY_HISTOGRAM_STEPS) << shift;
}

#endif
