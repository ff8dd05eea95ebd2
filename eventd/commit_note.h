/* The metadata of the offsets that userd commits to Kafka: who committed, and for which database.
 *
 * "userd/1 database=UUID position=OFFSET". A commit without a note is another program's, and says
 * how far that program got on the database that both work on. The position repeats the offset: one
 * that differs was moved by somebody else, who kept the metadata. Pure logic.
 */
#ifndef USERD_EVENTD_COMMIT_NOTE_H
#define USERD_EVENTD_COMMIT_NOTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define COMMIT_NOTE_SIZE          128 /* with the NUL */
#define COMMIT_NOTE_DATABASE_SIZE 40  /* a UUID */

enum commit_origin {
    COMMIT_NONE,           /* nothing is committed */
    COMMIT_FOREIGN,        /* by another program */
    COMMIT_OURS,           /* by userd on this database */
    COMMIT_OTHER_DATABASE, /* by userd on another one */
};

/* Returns the length without the NUL. */
size_t commit_note_format(const char *database, int64_t position, char ret_text[COMMIT_NOTE_SIZE]);
/* Whose a commit of `offset` with this metadata is; offset -1: there is none. `metadata` may be
 * NULL and needs no NUL. */
enum commit_origin commit_note_origin(
    const void *metadata, size_t length, int64_t offset, const char *database);

#endif
