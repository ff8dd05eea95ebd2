/* What `userd top` shows, as text of a given size. Pure: numbers in, lines out. */
#ifndef USERD_MASTER_TOP_SCREEN_H
#define USERD_MASTER_TOP_SCREEN_H

#include <stdbool.h>
#include <stdio.h>

#include "master/status_report.h"
#include "master/top_terminal.h"

#include "ipc.pb-c.h"

/* Which method comes first. */
enum top_order {
    TOP_BY_RATE,
    TOP_BY_ERRORS,
    TOP_BY_MEDIAN,
    TOP_BY_P99,
    TOP_BY_NAME,
};

struct top_view {
    enum top_order order;
    bool is_reversed;
    bool is_paused;
    bool has_colour;
    unsigned int interval_ms;
};

/* At most size->rows lines of at most size->columns characters. `report` has the rates and, in its
 * methods, what has happened since the report before. */
void top_screen_print(FILE *stream, const struct top_size *size, const struct top_view *view,
    const Userd__Ipc__AdminResult *master, struct status_report *report);
/* While there is nothing to show, and why. */
void top_screen_print_absence(
    FILE *stream, const struct top_size *size, const struct top_view *view, const char *reason);

#endif
