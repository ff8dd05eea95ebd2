/* What a load run counts, and how it says it: calls by gRPC status, calls without an answer, wrong
 * answers, and latency in a histogram of fixed size (buckets of 1/32 of their value: an error of
 * three per cent at most). */
#ifndef USERD_TESTS_BENCH_LOAD_REPORT_H
#define USERD_TESTS_BENCH_LOAD_REPORT_H

#include <stdint.h>

#define LOAD_STATUSES 17
#define LOAD_BUCKETS  (60 * 32)

struct load_report {
    uint64_t by_status[LOAD_STATUSES];
    uint64_t unanswered; /* the stream or its connection ended without a gRPC status */
    uint64_t cancelled;  /* by ourselves */
    uint64_t wrong;      /* OK, with another reply than asked for */
    uint64_t reconnects;
    uint64_t timed; /* entries in the histogram: OK answers only */
    uint64_t buckets[LOAD_BUCKETS];
};

void load_report_add_latency(struct load_report *report, uint64_t latency_us);
/* One line of key=value fields on standard output. */
void load_report_print(const struct load_report *report, double duration_s);

#endif
