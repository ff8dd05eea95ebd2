/* What the scoreboard says of each unary method, summed over the workers: answers by status, and
 * how long they took. */
#ifndef USERD_MASTER_STATUS_METHODS_H
#define USERD_MASTER_STATUS_METHODS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/scoreboard.h"

struct status_method {
    char name[SCOREBOARD_NAME_SIZE];
    uint64_t calls; /* that are over */
    uint64_t statuses[SCOREBOARD_STATUSES];
    uint64_t latency_sum_us;
    uint64_t latency[LATENCY_HISTOGRAM_BUCKETS];
    double per_second; /* of status_methods_set_rates() */
};

struct status_methods {
    struct status_method rows[SCOREBOARD_METHODS];
    size_t count;
};

/* One row of the scoreboard. False: it is not used. */
bool status_methods_read(const struct scoreboard_method *row, struct status_method *ret_method);
/* Adds a worker's. */
void status_methods_add(struct status_methods *methods, const struct scoreboard_slot *slot);
void status_methods_set_rates(
    struct status_methods *methods, const struct status_methods *earlier, double seconds);
/* Leaves what has happened since `earlier`. A worker that has gone since took its calls along: what
 * would be less than nothing is nothing. */
void status_methods_subtract(struct status_methods *methods, const struct status_methods *earlier);

/* So many of the durations (0.99) took at most this long; 0 where there is none. */
uint64_t status_methods_quantile_us(
    const uint64_t latency[LATENCY_HISTOGRAM_BUCKETS], double fraction);
/* "OK", "NOT_FOUND": of a code below SCOREBOARD_STATUSES. */
const char *status_methods_status_name(size_t status);

#endif
