/* Named points at which a test may end or stop the process that passes them:
 * FAILPOINT("relay.selected").
 *
 * Compiled in only with the CMake option USERD_FAILPOINTS (preset `fault`); in every other build
 * the macro is nothing, and not even a name is left. The environment variable
 * USERD_FAILPOINTS_FILE, which the master hands on in such builds, names a file of FAILPOINT_SLOTS
 * slots that all processes map: a test arms a slot, and the process whose passage brings its
 * countdown to zero raises the signal on itself, wherever it is, without a word.
 * tests/fault/failpoints.py is the other side.
 */
#ifndef USERD_COMMON_FAILPOINT_H
#define USERD_COMMON_FAILPOINT_H

#ifdef USERD_FAILPOINTS

#include <stdatomic.h>
#include <stdint.h>

#define FAILPOINT_VARIABLE  "USERD_FAILPOINTS_FILE"
#define FAILPOINT_SLOTS     64
#define FAILPOINT_NAME_SIZE 40

/* Native byte order; 64 bytes. An empty name ends the table. */
struct failpoint_slot {
    char name[FAILPOINT_NAME_SIZE];
    _Atomic uint32_t passages;
    _Atomic int32_t countdown; /* 0: not armed */
    _Atomic uint32_t signal;   /* SIGKILL or SIGSTOP */
    _Atomic uint32_t pid;      /* of the process that raised it */
    uint8_t reserved[8];
};

#define FAILPOINT(name) failpoint_pass(name)

/* Loop threads only: the map is made at the first passage, without a lock. */
void failpoint_pass(const char *name);

#else

#define FAILPOINT(name) ((void)0)

#endif

#endif
