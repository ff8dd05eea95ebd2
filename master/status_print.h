/* A status report as text: a table for people, JSON with stable names for programs. */
#ifndef USERD_MASTER_STATUS_PRINT_H
#define USERD_MASTER_STATUS_PRINT_H

#include <stdio.h>

#include "common/attributes.h"
#include "master/status_report.h"

#include "ipc.pb-c.h"

void status_print_table(
    FILE *stream, const Userd__Ipc__AdminResult *master, const struct status_report *report);
/* 0 or -ENOMEM; the stream's errors are the caller's to look for. */
MUST_CHECK int status_print_json(
    FILE *stream, const Userd__Ipc__AdminResult *master, const struct status_report *report);

#endif
