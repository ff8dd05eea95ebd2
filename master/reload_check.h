/* Whether a configuration file can be put in force by a reload: it must be right as a whole, and
 * leave alone what lives as long as the master does. Decides nothing else, changes nothing. */
#ifndef USERD_MASTER_RELOAD_CHECK_H
#define USERD_MASTER_RELOAD_CHECK_H

#include "common/attributes.h"
#include "common/settings.h"
#include "common/settings_complaints.h"

/* Fills *ret_next (the caller cleans it up), or adds to *complaints all that stands against it, by
 * file and line. 0 or negative errno; never negative without a complaint, memory permitting. */
MUST_CHECK int reload_check_file(const char *file, const struct settings *current,
    struct settings *ret_next, struct settings_complaints *complaints);
/* The part that reads no file. */
MUST_CHECK int reload_check_change(const char *file, const struct settings *current,
    const struct settings *next, struct settings_complaints *complaints);

#endif
