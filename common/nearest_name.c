#include "common/nearest_name.h"

#include <stdint.h>
#include <string.h>

#define NAME_MAX_LENGTH     127
#define FARTHEST_SUGGESTION 4

static size_t least(size_t left, size_t right)
{
    return left < right ? left : right;
}

size_t nearest_name_distance(const char *left, const char *right)
{
    size_t left_length = strlen(left);
    size_t right_length = strlen(right);
    if (left_length > NAME_MAX_LENGTH || right_length > NAME_MAX_LENGTH)
        return SIZE_MAX;
    /* rows[i % 3][j]: distance of the first i letters of left to the first j of right; a
     * transposition looks two rows back */
    size_t rows[3][NAME_MAX_LENGTH + 1];
    for (size_t j = 0; j <= right_length; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= left_length; i++) {
        size_t *row = rows[i % 3];
        const size_t *above = rows[(i - 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= right_length; j++) {
            size_t replaced = above[j - 1] + (left[i - 1] == right[j - 1] ? 0 : 1);
            row[j] = least(replaced, least(above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1])
                row[j] = least(row[j], rows[(i - 2) % 3][j - 2] + 1);
        }
    }
    return rows[left_length % 3][right_length];
}

int nearest_name_find(const char *wrong, const char *const *names, size_t count)
{
    size_t limit = least(strlen(wrong) / 3 + 1, FARTHEST_SUGGESTION);
    size_t best = limit + 1;
    int found = -1;
    for (size_t i = 0; i < count; i++) {
        size_t distance = nearest_name_distance(wrong, names[i]);
        if (distance < best) {
            best = distance;
            found = (int)i;
        }
    }
    return found;
}
