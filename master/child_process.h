/* Starts one child program: fork and exec with exactly what common/process_protocol.h promises it.
 *
 * Mechanism only: it knows no slots, states or settings. The child gets its numbered descriptors
 * and standard output and error, an empty standard input, the allowed part of the environment,
 * SIGKILL when the master dies, and signals that cannot end it before it has decided about them:
 * SIGHUP, SIGINT, SIGUSR1 and SIGUSR2 are ignored, SIGTERM is blocked, the others are at their
 * default.
 */
#ifndef USERD_MASTER_CHILD_PROCESS_H
#define USERD_MASTER_CHILD_PROCESS_H

#include <sys/types.h>

#include "common/attributes.h"

struct child_process_plan {
    const char *program;    /* path */
    char *const *arguments; /* with the program's name, ended by NULL */
    int scoreboard_fd;
    int outbox_wake_fd; /* -1: the child gets none */
};

/* Returns when the program runs: *ret_control_fd (caller's) is our end of its control channel. A
 * program that cannot be exec'd is a negative errno and leaves no process behind. */
MUST_CHECK int child_process_start(
    const struct child_process_plan *plan, pid_t *ret_pid, int *ret_control_fd);

/* SIGKILL, and reaps it. One that hangs in the kernel is given up after two seconds, logged, and
 * left to whoever reaps after us. */
void child_process_kill(pid_t pid);

#endif
