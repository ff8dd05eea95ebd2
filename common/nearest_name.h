/* "did you mean": the known name with the least edit distance to a wrong one. */
#ifndef USERD_COMMON_NEAREST_NAME_H
#define USERD_COMMON_NEAREST_NAME_H

#include <stddef.h>

/* Damerau-Levenshtein (optimal string alignment) distance, ASCII; names over 127 bytes count as far
 * away. */
size_t nearest_name_distance(const char *left, const char *right);

/* Index of the nearest of `count` names, or -1 when none is near enough to be what was meant
 * (more than a third of the letters wrong, or more than 4). */
int nearest_name_find(const char *wrong, const char *const *names, size_t count);

#endif
