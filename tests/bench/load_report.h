/* What a load run counts, in all and for each method, and how it says it: calls by gRPC status,
 * calls without an answer, wrong answers, and latency in a histogram of fixed size (buckets of 1/32
 * of their value: an error of three per cent at most). */
#ifndef USERD_TESTS_BENCH_LOAD_REPORT_H
#define USERD_TESTS_BENCH_LOAD_REPORT_H

#include <stddef.h>
#include <stdint.h>

#define LOAD_STATUSES 17
#define LOAD_BUCKETS  (60 * 32)
#define LOAD_LOSSES   4096 /* connections with failed calls that are told one by one */

enum load_method {
    LOAD_GET_USER,
    LOAD_USER_UPDATE,
    LOAD_DELETE_USER,
    LOAD_GET_BY_ID,
    LOAD_GET_BY_IDS,
    LOAD_GET_BY_USERNAME,
};
#define LOAD_METHODS 6

struct load_counts {
    uint64_t by_status[LOAD_STATUSES];
    uint64_t unanswered; /* the stream or its connection ended without a gRPC status */
    uint64_t cancelled;  /* by ourselves */
    uint64_t wrong;      /* another answer than asked for */
    uint64_t names;      /* in the answers */
    uint64_t timed;      /* entries in the histogram: OK answers only */
    uint64_t buckets[LOAD_BUCKETS];
};

/* What a connection cost. */
struct load_loss {
    uint16_t port;  /* our end of it */
    uint64_t calls; /* on it that had no answer, or another status than OK */
};

struct load_report {
    struct load_counts all;
    struct load_counts by_method[LOAD_METHODS];
    uint64_t started;
    uint64_t reconnects;
    uint64_t refused;     /* connections that could not be made */
    uint64_t not_started; /* by the clock, but no stream was free for them until the end */
    /* `all`, and OK, when the time was over: what came later is no throughput. */
    uint64_t started_in_time;
    uint64_t answered_in_time;
    uint64_t ok_in_time;
    uint64_t names_in_time;
    double seconds;
    struct load_loss losses[LOAD_LOSSES]; /* in the order in which the connections ended */
    size_t loss_count;
    uint64_t losses_left_out; /* calls of those for which there was no room */
};

const char *load_report_method_name(enum load_method method);

void load_report_add_latency(struct load_counts *counts, uint64_t latency_us);
/* The least latency that `fraction` of the OK answers do not exceed, in microseconds. */
uint64_t load_report_percentile(const struct load_counts *counts, double fraction);
/* A connection has ended on which calls failed. */
void load_report_add_loss(struct load_report *report, uint16_t port, uint64_t calls);
/* The time is over: what was counted until now is the throughput. */
void load_report_end_time(struct load_report *report, double seconds);

/* On standard output: one line of key=value fields, or one JSON object. */
void load_report_print(const struct load_report *report);
void load_report_print_json(const struct load_report *report);

#endif
