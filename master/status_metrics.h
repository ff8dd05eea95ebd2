/* The scoreboard in Prometheus' text format. Names and labels stay; README lists them. */
#ifndef USERD_MASTER_STATUS_METRICS_H
#define USERD_MASTER_STATUS_METRICS_H

#include <stdio.h>

#include "common/attributes.h"
#include "common/scoreboard.h"

#include "ipc.pb-c.h"

/* -ENOMEM, or 0; the stream's errors are the caller's to look for. */
MUST_CHECK int status_metrics_print(
    FILE *stream, const Userd__Ipc__AdminResult *master, const struct scoreboard *scoreboard);
/* What there is to say while no service answers: userd_up 0. */
void status_metrics_print_absence(FILE *stream);

#endif
