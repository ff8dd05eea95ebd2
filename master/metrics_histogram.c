#include "master/metrics_histogram.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>

#include "master/status_methods.h"

/* Of the log-linear buckets only the doublings are shown: 64 us to 67 s, exactly as counted. */
#define FIRST_BIT               6
#define LAST_BIT                26
#define MICROSECONDS_PER_SECOND 1e6
#define LABELS_SIZE             (SCOREBOARD_NAME_SIZE + 64)

/* A method's own name: of a program's, but a label must hold whatever comes. */
static void quote(const char *name, char ret_text[SCOREBOARD_NAME_SIZE])
{
    size_t length = 0;
    for (; name[length] != '\0' && length < SCOREBOARD_NAME_SIZE - 1; length++) {
        bool is_plain = name[length] > ' ' && name[length] < 0x7f && name[length] != '"' &&
                        name[length] != '\\';
        ret_text[length] = name[length];
        if (!is_plain)
            ret_text[length] = '?';
    }
    ret_text[length] = '\0';
}

/* `labels`: "worker=\"1\"". A bucket holds what is less than its bound: durations are cut to whole
 * microseconds, so that a bucket's edge is where Prometheus puts it. */
static void print_series(FILE *stream, const char *name, const char *labels,
    const uint64_t latency[LATENCY_HISTOGRAM_BUCKETS], uint64_t sum_us)
{
    uint64_t count = 0;
    size_t bucket = 0;
    for (unsigned int bit = FIRST_BIT; bit <= LAST_BIT; bit++) {
        uint64_t bound_us = UINT64_C(1) << bit;
        for (size_t end = latency_histogram_bucket(bound_us); bucket < end; bucket++)
            count += latency[bucket];
        (void)fprintf(stream, "%s_bucket{%s,le=\"%.9g\"} %" PRIu64 "\n", name, labels,
            (double)bound_us / MICROSECONDS_PER_SECOND, count);
    }
    for (; bucket < LATENCY_HISTOGRAM_BUCKETS; bucket++)
        count += latency[bucket];
    (void)fprintf(stream, "%s_bucket{%s,le=\"+Inf\"} %" PRIu64 "\n", name, labels, count);
    (void)fprintf(
        stream, "%s_sum{%s} %.15g\n", name, labels, (double)sum_us / MICROSECONDS_PER_SECOND);
    (void)fprintf(stream, "%s_count{%s} %" PRIu64 "\n", name, labels, count);
}

static void print_statuses(FILE *stream, const struct status_method *method, const char *labels)
{
    for (size_t i = 0; i < SCOREBOARD_STATUSES; i++)
        if (i == 0 || method->statuses[i] > 0)
            (void)fprintf(stream, "userd_method_calls_total{%s,status=\"%s\"} %" PRIu64 "\n",
                labels, status_methods_status_name(i), method->statuses[i]);
}

static void print_durations(FILE *stream, const struct status_method *method, const char *labels)
{
    print_series(
        stream, "userd_call_duration_seconds", labels, method->latency, method->latency_sum_us);
}

static bool is_living(const struct scoreboard *scoreboard, uint32_t slot)
{
    return atomic_load_explicit(&scoreboard->slots[slot].pid, memory_order_relaxed) != 0;
}

static void print_each_method(FILE *stream, const struct scoreboard *scoreboard,
    void (*print)(FILE *stream, const struct status_method *method, const char *labels))
{
    struct status_method method;
    for (uint32_t slot = SCOREBOARD_SLOT_EVENTD + 1; slot < SCOREBOARD_SLOTS; slot++) {
        if (!is_living(scoreboard, slot))
            continue;
        for (size_t i = 0; i < SCOREBOARD_METHODS; i++) {
            if (!status_methods_read(&scoreboard->slots[slot].methods[i], &method))
                continue;
            char name[SCOREBOARD_NAME_SIZE];
            char labels[LABELS_SIZE];
            quote(method.name, name);
            (void)snprintf(labels, sizeof(labels), "method=\"%s\",worker=\"%u\"", name, slot);
            print(stream, &method, labels);
        }
    }
}

void metrics_histogram_print_methods(FILE *stream, const struct scoreboard *scoreboard)
{
    (void)fputs("# HELP userd_method_calls_total Answers by method and gRPC status.\n"
                "# TYPE userd_method_calls_total counter\n",
        stream);
    print_each_method(stream, scoreboard, print_statuses);
    (void)fputs("# HELP userd_call_duration_seconds From a call's arrival to its answer.\n"
                "# TYPE userd_call_duration_seconds histogram\n",
        stream);
    print_each_method(stream, scoreboard, print_durations);
}

void metrics_histogram_print_publishing(FILE *stream, const struct scoreboard *scoreboard)
{
    (void)fputs("# HELP userd_publish_duration_seconds From an event's COMMIT to the broker's "
                "acknowledgement.\n# TYPE userd_publish_duration_seconds histogram\n",
        stream);
    for (uint32_t slot = SCOREBOARD_SLOT_EVENTD + 1; slot < SCOREBOARD_SLOTS; slot++) {
        if (!is_living(scoreboard, slot))
            continue;
        const struct scoreboard_slot *from = &scoreboard->slots[slot];
        uint64_t latency[LATENCY_HISTOGRAM_BUCKETS];
        for (size_t i = 0; i < LATENCY_HISTOGRAM_BUCKETS; i++)
            latency[i] = atomic_load_explicit(&from->publish_latency[i], memory_order_relaxed);
        char labels[LABELS_SIZE];
        (void)snprintf(labels, sizeof(labels), "worker=\"%u\"", slot);
        print_series(stream, "userd_publish_duration_seconds", labels, latency,
            atomic_load_explicit(&from->publish_latency_sum_us, memory_order_relaxed));
    }
}
