#include "tests/bench/load_report.h"

#include <stdio.h>

#define SUB_BITS 5 /* 32 buckets for each power of two */

static unsigned int bucket_of(uint64_t value)
{
    if (value < (1U << (SUB_BITS + 1)))
        return (unsigned int)value;
    unsigned int exponent = 63U - (unsigned int)__builtin_clzll(value);
    unsigned int sub = (unsigned int)(value >> (exponent - SUB_BITS)) & ((1U << SUB_BITS) - 1);
    return ((exponent - SUB_BITS + 1) << SUB_BITS) + sub;
}

static uint64_t value_of(unsigned int bucket)
{
    if (bucket < (1U << (SUB_BITS + 1)))
        return bucket;
    unsigned int exponent = (bucket >> SUB_BITS) + SUB_BITS - 1;
    uint64_t sub = bucket & ((1U << SUB_BITS) - 1);
    return ((UINT64_C(1) << SUB_BITS) + sub) << (exponent - SUB_BITS);
}

void load_report_add_latency(struct load_report *report, uint64_t latency_us)
{
    unsigned int bucket = bucket_of(latency_us);
    report->buckets[bucket < LOAD_BUCKETS ? bucket : LOAD_BUCKETS - 1]++;
    report->timed++;
}

static uint64_t percentile(const struct load_report *report, double fraction)
{
    uint64_t wanted = (uint64_t)((double)report->timed * fraction);
    uint64_t seen = 0;
    for (unsigned int i = 0; i < LOAD_BUCKETS; i++) {
        seen += report->buckets[i];
        if (seen > wanted)
            return value_of(i);
    }
    return 0;
}

void load_report_print(const struct load_report *report, double duration_s)
{
    uint64_t answered = 0;
    for (unsigned int i = 0; i < LOAD_STATUSES; i++)
        answered += report->by_status[i];
    printf("seconds=%.3f calls=%llu rate=%.0f ok_rate=%.0f", duration_s,
        (unsigned long long)answered, (double)answered / duration_s,
        (double)report->by_status[0] / duration_s);
    printf(" p50_us=%llu p90_us=%llu p99_us=%llu p999_us=%llu max_us=%llu",
        (unsigned long long)percentile(report, 0.50), (unsigned long long)percentile(report, 0.90),
        (unsigned long long)percentile(report, 0.99), (unsigned long long)percentile(report, 0.999),
        (unsigned long long)percentile(report, 1.0 - 1e-9));
    for (unsigned int i = 0; i < LOAD_STATUSES; i++) {
        if (report->by_status[i] > 0)
            printf(" status_%u=%llu", i, (unsigned long long)report->by_status[i]);
    }
    printf(" unanswered=%llu wrong=%llu cancelled=%llu reconnects=%llu\n",
        (unsigned long long)report->unanswered, (unsigned long long)report->wrong,
        (unsigned long long)report->cancelled, (unsigned long long)report->reconnects);
}
