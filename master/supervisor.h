/* The master process: what it owns for its whole life, what signals do to it, and how it ends.
 *
 * It owns the run directory's lock, the listening sockets, the scoreboard, the configuration and
 * the children (staffing.h). It never opens a database or Kafka connection, never reads a client's
 * byte, and never does a child's work when there is none: what it does not do cannot break it, and
 * everything else can be started again while it lives.
 *
 *   SIGTERM, SIGINT   no more connections, drain, leave; a second one ends at once
 *   SIGHUP            read the configuration again and replace every child by one of the new
 * generation
 *   SIGUSR2           become the userd that is on disk now, and reload
 *
 * A SIGHUP or SIGUSR2 that comes during the start or a reload is remembered, once.
 */
#ifndef USERD_MASTER_SUPERVISOR_H
#define USERD_MASTER_SUPERVISOR_H

#include <stdbool.h>

#include "common/attributes.h"
#include "common/settings.h"

struct supervisor_plan {
    const char *file;          /* the configuration's, read again on SIGHUP */
    struct settings *settings; /* taken over, also on failure */
    bool migrates;             /* brings the schema up, beside serving */
};

/* SIGHUP and SIGUSR2 wait until the service can hear them. As early as possible: they would end the
 * process. 0 or negative errno. */
MUST_CHECK int supervisor_block_requests(void);

/* Runs until told to stop; returns the exit status for main():
 * EX_OK after a stop, EX_TEMPFAIL when another master holds run_dir, EX_CONFIG for an address that
 * cannot be read, EX_UNAVAILABLE when a role cannot be started, EX_OSERR for the rest, all logged;
 * a failed migration's own. */
int supervisor_run(const struct supervisor_plan *plan);

/* Goes on for the program that this process was until now (`userd upgrade`), and then reloads, so
 * that the children are of this release too. `handover_fd` is taken. */
int supervisor_take_over(const char *file, int handover_fd);

#endif
