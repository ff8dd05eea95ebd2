#include "eventd/commit_note.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char head[] = "userd/1 database=";
static const char middle[] = " position=";

size_t commit_note_format(const char *database, int64_t position, char ret_text[COMMIT_NOTE_SIZE])
{
    int length = snprintf(ret_text, COMMIT_NOTE_SIZE, "%s%.*s%s%" PRIi64, head,
        COMMIT_NOTE_DATABASE_SIZE - 1, database, middle, position);
    return length < 0 ? 0 : (size_t)length;
}

enum commit_origin commit_note_origin(
    const void *metadata, size_t length, int64_t offset, const char *database)
{
    if (offset < 0)
        return COMMIT_NONE;
    char text[COMMIT_NOTE_SIZE] = "";
    if (metadata == NULL || length >= sizeof(text) || length < sizeof(head))
        return COMMIT_FOREIGN;
    memcpy(text, metadata, length);
    char *position = strstr(text, middle);
    if (strncmp(text, head, sizeof(head) - 1) != 0 || position == NULL)
        return COMMIT_FOREIGN;
    char *end = NULL;
    long long number = strtoll(position + sizeof(middle) - 1, &end, 10);
    if (*end != '\0' || number != offset)
        return COMMIT_FOREIGN;
    *position = '\0';
    return strcmp(text + sizeof(head) - 1, database) == 0 ? COMMIT_OURS : COMMIT_OTHER_DATABASE;
}
