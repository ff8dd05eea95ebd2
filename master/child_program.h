/* Where the programs of the children are: $USERD_LIBEXEC_DIR, or else beside our own program, in a
 * build tree, or where `install` puts them. Looked up anew at each start, so that a respawn or
 * reload after an upgrade runs what is there then.
 */
#ifndef USERD_MASTER_CHILD_PROGRAM_H
#define USERD_MASTER_CHILD_PROGRAM_H

#include <stdbool.h>
#include <sys/types.h>
#include <time.h>

#include "common/attributes.h"

#define CHILD_PROGRAM_WORKER "userd-worker"
#define CHILD_PROGRAM_EVENTD "userd-eventd"

/* *ret_path is malloc'ed. -ENOENT, logged with the places that were tried, when no such program can
 * be run. */
MUST_CHECK int child_program_find(const char *program, char **ret_path);

/* Which program a path names now: another file, or the same one written anew, is another program.
 */
struct child_program_identity {
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec modified;
};

MUST_CHECK int child_program_identify(
    const char *path, struct child_program_identity *ret_identity);
bool child_program_is_same(
    const struct child_program_identity *one, const struct child_program_identity *other);

#endif
