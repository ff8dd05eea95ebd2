/* What a process says when a signal ends it that means a fault: the stack of the thread that got it
 * and, when it was sent by somebody (kill -ABRT, kill -QUIT, the master to one that hangs), those
 * of all threads, on standard error. The signal then has its own effect: the process ends by it,
 * with a core where the system keeps one.
 *
 * Frames are lines of "program(function+offset) [address]"; addr2line has the rest. SIGUSR1 is what
 * threads are asked with for their stacks; from outside it writes one stack and changes nothing.
 */
#ifndef USERD_COMMON_CRASH_REPORT_H
#define USERD_COMMON_CRASH_REPORT_H

#include <signal.h>

/* Before there are threads. Idempotent. */
void crash_report_install(void);
/* All signals but those that mean a fault and the one that asks for a stack: what a thread that is
 * not to be bothered blocks. */
void crash_report_fill_mask(sigset_t *ret_mask);

#endif
