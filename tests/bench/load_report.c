#include "tests/bench/load_report.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>

#define SUB_BITS 5 /* 32 buckets for each power of two */

static const char *const method_names[LOAD_METHODS] = {
    [LOAD_GET_USER] = "GetUser",
    [LOAD_USER_UPDATE] = "UserUpdate",
    [LOAD_DELETE_USER] = "DeleteUser",
    [LOAD_GET_BY_ID] = "GetByID",
    [LOAD_GET_BY_IDS] = "GetByIDs",
    [LOAD_GET_BY_USERNAME] = "GetByUsername",
};

static const char *const status_names[LOAD_STATUSES] = {
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
};

static const struct {
    const char *name;
    double fraction;
} percentiles[] = {
    {"p50_us", 0.50},
    {"p90_us", 0.90},
    {"p99_us", 0.99},
    {"p999_us", 0.999},
    {"max_us", 1.0},
};
#define PERCENTILES (sizeof(percentiles) / sizeof(percentiles[0]))

const char *load_report_method_name(enum load_method method)
{
    return method_names[method];
}

/* ---- the histogram ---- */

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

void load_report_add_latency(struct load_counts *counts, uint64_t latency_us)
{
    unsigned int bucket = bucket_of(latency_us);
    counts->buckets[bucket < LOAD_BUCKETS ? bucket : LOAD_BUCKETS - 1]++;
    counts->timed++;
}

uint64_t load_report_percentile(const struct load_counts *counts, double fraction)
{
    double wanted = (double)counts->timed * fraction;
    uint64_t seen = 0;
    for (unsigned int i = 0; i < LOAD_BUCKETS; i++) {
        seen += counts->buckets[i];
        if (counts->buckets[i] > 0 && (double)seen >= wanted)
            return value_of(i);
    }
    return 0;
}

void load_report_add_loss(struct load_report *report, uint16_t port, uint64_t calls)
{
    if (report->loss_count == LOAD_LOSSES)
        report->losses_left_out += calls;
    else
        report->losses[report->loss_count++] = (struct load_loss){.port = port, .calls = calls};
}

/* ---- the end ---- */

static uint64_t answered(const struct load_counts *counts)
{
    uint64_t sum = 0;
    for (unsigned int i = 0; i < LOAD_STATUSES; i++)
        sum += counts->by_status[i];
    return sum;
}

void load_report_end_time(struct load_report *report, double seconds)
{
    report->answered_in_time = answered(&report->all);
    report->ok_in_time = report->all.by_status[0];
    report->names_in_time = report->all.names;
    report->started_in_time = report->started;
    report->seconds = seconds;
}

void load_report_print(const struct load_report *report)
{
    const struct load_counts *all = &report->all;
    printf("seconds=%.3f calls=%" PRIu64 " rate=%.0f ok_rate=%.0f names_rate=%.0f", report->seconds,
        answered(all), (double)report->answered_in_time / report->seconds,
        (double)report->ok_in_time / report->seconds,
        (double)report->names_in_time / report->seconds);
    for (size_t i = 0; i < PERCENTILES; i++)
        printf(" %s=%" PRIu64, percentiles[i].name,
            load_report_percentile(all, percentiles[i].fraction));
    for (unsigned int i = 0; i < LOAD_STATUSES; i++) {
        if (all->by_status[i] > 0)
            printf(" status_%u=%" PRIu64, i, all->by_status[i]);
    }
    printf(" unanswered=%" PRIu64 " wrong=%" PRIu64 " cancelled=%" PRIu64 " reconnects=%" PRIu64
           " refused=%" PRIu64 " not_started=%" PRIu64 "\n",
        all->unanswered, all->wrong, all->cancelled, report->reconnects, report->refused,
        report->not_started);
}

/* The members of an object, without its braces. */
static void print_counts(const struct load_counts *counts)
{
    printf("\"calls\": %" PRIu64 ", \"statuses\": {", answered(counts));
    bool is_first = true;
    for (unsigned int i = 0; i < LOAD_STATUSES; i++) {
        if (counts->by_status[i] == 0)
            continue;
        printf("%s\"%s\": %" PRIu64, is_first ? "" : ", ", status_names[i], counts->by_status[i]);
        is_first = false;
    }
    printf("}, \"unanswered\": %" PRIu64 ", \"wrong\": %" PRIu64 ", \"cancelled\": %" PRIu64
           ", \"names\": %" PRIu64,
        counts->unanswered, counts->wrong, counts->cancelled, counts->names);
    for (size_t i = 0; i < PERCENTILES; i++)
        printf(", \"%s\": %" PRIu64, percentiles[i].name,
            load_report_percentile(counts, percentiles[i].fraction));
}

static void print_losses(const struct load_report *report)
{
    printf(", \"losses_left_out\": %" PRIu64 ", \"losses\": [", report->losses_left_out);
    for (size_t i = 0; i < report->loss_count; i++)
        printf("%s{\"port\": %u, \"calls\": %" PRIu64 "}", i == 0 ? "" : ", ",
            report->losses[i].port, report->losses[i].calls);
    printf("]");
}

void load_report_print_json(const struct load_report *report)
{
    printf("{\"seconds\": %.3f, \"started_rate\": %.1f, \"rate\": %.1f, \"ok_rate\": %.1f, "
           "\"names_rate\": %.1f, ",
        report->seconds, (double)report->started_in_time / report->seconds,
        (double)report->answered_in_time / report->seconds,
        (double)report->ok_in_time / report->seconds,
        (double)report->names_in_time / report->seconds);
    print_counts(&report->all);
    printf(", \"reconnects\": %" PRIu64 ", \"refused\": %" PRIu64 ", \"not_started\": %" PRIu64,
        report->reconnects, report->refused, report->not_started);
    print_losses(report);
    printf(", \"methods\": {");
    bool is_first = true;
    for (unsigned int i = 0; i < LOAD_METHODS; i++) {
        const struct load_counts *counts = &report->by_method[i];
        if (answered(counts) + counts->unanswered + counts->cancelled == 0)
            continue;
        printf("%s\"%s\": {", is_first ? "" : ", ", method_names[i]);
        print_counts(counts);
        printf("}");
        is_first = false;
    }
    printf("}}\n");
}
