/* A status report in Prometheus' text format. Names and labels stay; README lists them. */
#ifndef USERD_MASTER_STATUS_METRICS_H
#define USERD_MASTER_STATUS_METRICS_H

#include <stdio.h>

#include "master/status_report.h"

#include "ipc.pb-c.h"

/* The stream's errors are the caller's to look for. */
void status_metrics_print(
    FILE *stream, const Userd__Ipc__AdminResult *master, const struct status_report *report);

#endif
