/* The text of a configuration: one file and all that it includes, joined for the parser.
 *
 * libconfig 1.5 ends the process when an included path is a directory, resolves include paths by
 * the working directory, and reads numbers modulo 2^32. So the parser never opens a file: this
 * module resolves the directives, removes comments, marks numbers that need 64 bits with the suffix
 * L, and bounds what the parser gets. It keeps the number of lines, and can say for each line of
 * the joined text which file and line it came from.
 *
 *   @include "FILE"       the file, relative to the file that names it
 *   @include_dir "DIR"    all DIR/NAME.conf in the order of their names (byte values); none is fine
 *
 * A directive stands at the beginning of a line. Files are regular files (or /dev/null).
 */
#ifndef USERD_COMMON_SETTINGS_SOURCE_H
#define USERD_COMMON_SETTINGS_SOURCE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/attributes.h"
#include "common/settings_complaints.h"

#define SETTINGS_SOURCE_MAX_BYTES    ((size_t)256 * 1024) /* of all files together */
#define SETTINGS_SOURCE_MAX_FILES    64
#define SETTINGS_SOURCE_MAX_DEPTH    10   /* of includes, as in libconfig */
#define SETTINGS_SOURCE_MAX_SETTINGS 2000 /* libconfig's time grows with the square of it */

struct settings_source_file {
    char *path; /* owned; as the operator named it, or as it was found */
    bool is_world_readable;
};

/* From line `joined_line` of the joined text on: line `line` and following of file `file`. */
struct settings_source_span {
    unsigned int joined_line;
    unsigned int file;
    unsigned int line;
};

struct settings_source {
    char *text; /* owned, wiped: it may hold passwords */
    size_t length;
    size_t capacity;
    struct settings_source_file files[SETTINGS_SOURCE_MAX_FILES];
    size_t file_count;
    struct settings_source_span *spans; /* owned */
    size_t span_count;
    size_t span_capacity;
    unsigned int joined_line; /* the last line of the text */
    size_t read_bytes;
    unsigned int setting_count;
};

/* Reads `path` and what it includes. 0; or a negative errno, with complaints that name file and
 * line. *ret_source is to be cleaned up in any case. Never waits for a FIFO or a terminal. */
MUST_CHECK int settings_source_read(
    const char *path, struct settings_source *ret_source, struct settings_complaints *complaints);
void settings_source_cleanup(struct settings_source *source);

/* Where a line of the joined text came from. The path is the source's. */
void settings_source_place(const struct settings_source *source, unsigned int joined_line,
    const char **ret_path, unsigned int *ret_line);
/* Whether everybody may read the file that a line of the joined text came from. */
bool settings_source_is_world_readable(
    const struct settings_source *source, unsigned int joined_line);

#endif
