/* Puts the program that is on disk now in the place of the one that runs: asks it first whether it
 * would take over what is handed to it, and only then becomes it. */
#ifndef USERD_MASTER_UPGRADE_H
#define USERD_MASTER_UPGRADE_H

#include "common/attributes.h"
#include "common/settings_complaints.h"

#include "handover.pb-c.h"

/* Our own program's path as it is on disk now; malloc'ed. */
MUST_CHECK int upgrade_find_program(char **ret_path);
/* Runs `PROGRAM handover-check -c FILE` with the hand-over before it, and waits for its word. 0
 * when it agrees; otherwise a complaint names the program and says what it said. */
MUST_CHECK int upgrade_ask(const char *program, const char *file,
    const Userd__Handover__State *state, int handover_fd, struct settings_complaints *complaints);
/* Becomes `PROGRAM run -c FILE`; returns only when that failed, with a complaint and everything as
 * it was. */
void upgrade_become(const char *program, const char *file, const Userd__Handover__State *state,
    int handover_fd, struct settings_complaints *complaints);

#endif
