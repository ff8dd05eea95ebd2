/* The parts of the metrics that are one series for each worker and method: answers by status, and
 * durations as Prometheus' histograms. */
#ifndef USERD_MASTER_METRICS_HISTOGRAM_H
#define USERD_MASTER_METRICS_HISTOGRAM_H

#include <stdio.h>

#include "common/scoreboard.h"

void metrics_histogram_print_methods(FILE *stream, const struct scoreboard *scoreboard);
/* From COMMIT to the broker's acknowledgement. */
void metrics_histogram_print_publishing(FILE *stream, const struct scoreboard *scoreboard);

#endif
