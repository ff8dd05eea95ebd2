#include "common/printable.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define ESCAPE_LENGTH    4 /* \xNN */
#define FIRST_PRINTABLE  0x20
#define DELETE_CHARACTER 0x7f
#define CONTINUATION     0x80

/* The length of the sequence that a byte begins; 0: none (RFC 3629, section 4). */
static size_t sequence_length(unsigned char first)
{
    if (first < CONTINUATION)
        return 1;
    if (first >= 0xc2 && first <= 0xdf)
        return 2;
    if (first >= 0xe0 && first <= 0xef)
        return 3;
    return first >= 0xf0 && first <= 0xf4 ? 4 : 0;
}

static bool is_hidden(uint32_t character)
{
    static const struct {
        uint32_t first;
        uint32_t last;
    } ranges[] = {{0x00, 0x1f}, {0x7f, 0x9f}, {0x61c, 0x61c}, {0x200e, 0x200f}, {0x2028, 0x202e},
        {0x2066, 0x2069}, {0xd800, 0xdfff}, {0x110000, UINT32_MAX}};
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++)
        if (character >= ranges[i].first && character <= ranges[i].last)
            return true;
    return false;
}

size_t printable_length(const char *text)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    static const unsigned char masks[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    unsigned char first = (unsigned char)text[0];
    size_t length = sequence_length(first);
    uint32_t character = first & masks[length];
    for (size_t i = 1; i < length; i++) {
        unsigned char next = (unsigned char)text[i]; /* the NUL at the end is no continuation */
        if ((next & 0xc0) != CONTINUATION)
            return 0;
        character = (character << 6) | (next & 0x3f);
    }
    return length == 0 || character < least[length] || is_hidden(character) ? 0 : length;
}

size_t printable_copy(const char *text, char *target, size_t size)
{
    size_t used = 0;
    while (*text != '\0') {
        size_t length = printable_length(text);
        if (used + (length > 0 ? length : ESCAPE_LENGTH) >= size)
            break;
        if (length == 0)
            used += (size_t)snprintf(
                target + used, size - used, "\\x%02x", (unsigned int)(unsigned char)*text++);
        for (; length > 0; length--)
            target[used++] = *text++;
    }
    target[used] = '\0';
    return used;
}
