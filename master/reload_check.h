/* The configuration that a reload asks for: read whole, and right as a whole, before anything
 * changes. What cannot change while the master lives keeps the value that it has, and a warning
 * says so. */
#ifndef USERD_MASTER_RELOAD_CHECK_H
#define USERD_MASTER_RELOAD_CHECK_H

#include "common/attributes.h"
#include "common/settings.h"
#include "common/settings_complaints.h"

/* Fills *ret_next (the caller cleans it up), or adds to *complaints all that stands against it, by
 * file and line. 0 or negative errno; never negative without a complaint, memory permitting. */
MUST_CHECK int reload_check_file(const char *file, const struct settings *current,
    struct settings *ret_next, struct settings_complaints *complaints,
    struct settings_complaints *warnings);
/* The part that reads no file: 0 or -ENOMEM. */
MUST_CHECK int reload_check_keep_fixed(const char *file, const struct settings *current,
    struct settings *next, struct settings_complaints *warnings);

#endif
