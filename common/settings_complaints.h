/* What is wrong with a configuration: all of it, one line each, "file:line: what is wrong, what was
 * expected". */
#ifndef USERD_COMMON_SETTINGS_COMPLAINTS_H
#define USERD_COMMON_SETTINGS_COMPLAINTS_H

#include <stdbool.h>
#include <stddef.h>

#include "common/attributes.h"
#include "common/log.h"

struct settings_complaints {
    char *text; /* owned; lines joined by line feeds, NULL when there are none */
    size_t count;
    size_t passing; /* of them: may go away without a change of the configuration */
};

/* Adds one line of at most 511 bytes; beyond 100 lines they are counted and left out. `file` NULL:
 * the complaint names its own place. `line` 0: not known. */
void settings_complaints_add(struct settings_complaints *complaints, const char *file,
    unsigned int line, const char *format, ...) PRINTF_LIKE(4, 5);
/* Adds copies of all of another's. */
void settings_complaints_append(
    struct settings_complaints *complaints, const struct settings_complaints *more);
/* A line of the log for each. */
void settings_complaints_log(const struct settings_complaints *complaints, enum log_level level);
/* The complaint that was added last is of a file that may still come (negative errno `result`: it
 * is not there), such as a secret that another program writes. */
void settings_complaints_note_missing(struct settings_complaints *complaints, int result);
/* There are complaints, and all of them are of files that may still come. */
MUST_CHECK bool settings_complaints_may_pass(const struct settings_complaints *complaints);
void settings_complaints_cleanup(struct settings_complaints *complaints);

#endif
