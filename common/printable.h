/* Text for people: what a terminal would take for a command, or a reader for another line, is
 * escaped. Passes UTF-8 as it is, but for control characters (C0, DEL, C1), the separators of lines
 * and paragraphs, and those that change the direction of writing. */
#ifndef USERD_COMMON_PRINTABLE_H
#define USERD_COMMON_PRINTABLE_H

#include <stddef.h>

/* How many bytes at `text` are one character that may be shown as it is; 0: its first byte may not
 * (also at the end of the text, and where it is not UTF-8). */
size_t printable_length(const char *text);
/* Copies with each byte that may not be shown as \xNN; cut off at `size`, and always ended by a
 * NUL. The length. */
size_t printable_copy(const char *text, char *target, size_t size);

#endif
