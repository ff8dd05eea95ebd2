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

/* Three digits are enough for people: "812 us", "1.25 ms", "12.5 s". */
#define STATUS_PRINT_DURATION_SIZE 32
void status_print_format_duration(uint64_t duration_us, char ret_text[STATUS_PRINT_DURATION_SIZE]);

#endif
