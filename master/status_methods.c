#include "master/status_methods.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

static uint64_t get(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

bool status_methods_read(const struct scoreboard_method *row, struct status_method *ret_method)
{
    if (atomic_load_explicit(&row->is_named, memory_order_acquire) == 0)
        return false;
    struct status_method *method = ret_method;
    memset(method, 0, sizeof(*method));
    memcpy(method->name, row->name, sizeof(method->name) - 1);
    for (size_t i = 0; i < SCOREBOARD_STATUSES; i++) {
        method->statuses[i] = get(&row->statuses[i]);
        method->calls += method->statuses[i];
    }
    for (size_t i = 0; i < LATENCY_HISTOGRAM_BUCKETS; i++)
        method->latency[i] = get(&row->latency[i]);
    method->latency_sum_us = get(&row->latency_sum_us);
    return true;
}

static struct status_method *find(struct status_methods *methods, const char *name)
{
    for (size_t i = 0; i < methods->count; i++)
        if (strcmp(methods->rows[i].name, name) == 0)
            return &methods->rows[i];
    return NULL;
}

void status_methods_add(struct status_methods *methods, const struct scoreboard_slot *slot)
{
    struct status_method part;
    for (size_t i = 0; i < SCOREBOARD_METHODS; i++) {
        if (!status_methods_read(&slot->methods[i], &part))
            continue;
        struct status_method *total = find(methods, part.name);
        if (total == NULL && methods->count == SCOREBOARD_METHODS)
            continue; /* workers of several releases: more methods than one has */
        if (total == NULL) {
            methods->rows[methods->count++] = part;
            continue;
        }
        total->calls += part.calls;
        total->latency_sum_us += part.latency_sum_us;
        for (size_t j = 0; j < SCOREBOARD_STATUSES; j++)
            total->statuses[j] += part.statuses[j];
        for (size_t j = 0; j < LATENCY_HISTOGRAM_BUCKETS; j++)
            total->latency[j] += part.latency[j];
    }
}

static uint64_t difference(uint64_t now, uint64_t before)
{
    return now > before ? now - before : 0;
}

void status_methods_set_rates(
    struct status_methods *methods, const struct status_methods *earlier, double seconds)
{
    for (size_t i = 0; i < methods->count; i++) {
        struct status_method *method = &methods->rows[i];
        uint64_t before = 0;
        for (size_t j = 0; j < earlier->count; j++)
            if (strcmp(earlier->rows[j].name, method->name) == 0)
                before = earlier->rows[j].calls;
        method->per_second = (double)difference(method->calls, before) / seconds;
    }
}

void status_methods_subtract(struct status_methods *methods, const struct status_methods *earlier)
{
    for (size_t i = 0; i < earlier->count; i++) {
        const struct status_method *before = &earlier->rows[i];
        struct status_method *method = find(methods, before->name);
        if (method == NULL)
            continue;
        method->calls = difference(method->calls, before->calls);
        method->latency_sum_us = difference(method->latency_sum_us, before->latency_sum_us);
        for (size_t j = 0; j < SCOREBOARD_STATUSES; j++)
            method->statuses[j] = difference(method->statuses[j], before->statuses[j]);
        for (size_t j = 0; j < LATENCY_HISTOGRAM_BUCKETS; j++)
            method->latency[j] = difference(method->latency[j], before->latency[j]);
    }
}

uint64_t status_methods_quantile_us(
    const uint64_t latency[LATENCY_HISTOGRAM_BUCKETS], double fraction)
{
    uint64_t count = 0;
    for (size_t i = 0; i < LATENCY_HISTOGRAM_BUCKETS; i++)
        count += latency[i];
    double rank = ceil(fraction * (double)count);
    uint64_t reached = 0;
    for (size_t i = 0; i < LATENCY_HISTOGRAM_BUCKETS; i++) {
        reached += latency[i];
        if (reached > 0 && (double)reached >= rank)
            return latency_histogram_least_us(i + 1) - 1;
    }
    return 0;
}

const char *status_methods_status_name(size_t status)
{
    static const char *const names[SCOREBOARD_STATUSES] = {"OK", "CANCELLED", "UNKNOWN",
        "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
        "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"};
    return names[status];
}
