#include "common/settings_complaints.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/printable.h"

#define COMPLAINT_SIZE 512
#define COMPLAINTS_MAX 100 /* are written down: whoever mends those asks again */

static void append(struct settings_complaints *complaints, const char *place, const char *what)
{
    if (complaints->count > COMPLAINTS_MAX) {
        complaints->count++;
        return;
    }
    if (complaints->count == COMPLAINTS_MAX) {
        place = "";
        what = "there is more to complain of, which is left out here";
    }
    char *longer = NULL;
    int length = complaints->text == NULL
                     ? asprintf(&longer, "%s%s", place, what)
                     : asprintf(&longer, "%s\n%s%s", complaints->text, place, what);
    complaints->count++; /* counted even without memory for its text: a bad file must never pass */
    if (length < 0)
        return;
    free(complaints->text);
    complaints->text = longer;
}

void settings_complaints_add(struct settings_complaints *complaints, const char *file,
    unsigned int line, const char *format, ...)
{
    char what[COMPLAINT_SIZE];
    char place[COMPLAINT_SIZE] = "";
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(what, sizeof(what), format, arguments);
    va_end(arguments);
    if (file != NULL && line > 0)
        (void)snprintf(place, sizeof(place), "%s:%u: ", file, line);
    else if (file != NULL)
        (void)snprintf(place, sizeof(place), "%s: ", file);

    /* names of files and values are others' text, and a complaint is read in a terminal */
    char shown_place[COMPLAINT_SIZE];
    char shown[COMPLAINT_SIZE];
    (void)printable_copy(place, shown_place, sizeof(shown_place));
    (void)printable_copy(what, shown, sizeof(shown));
    append(complaints, shown_place, shown);
}

void settings_complaints_append(
    struct settings_complaints *complaints, const struct settings_complaints *more)
{
    if (more->count == 0)
        return;
    append(complaints, "", more->text != NULL ? more->text : "out of memory");
    complaints->count += more->count - 1;
    complaints->passing += more->passing;
}

void settings_complaints_note_missing(struct settings_complaints *complaints, int result)
{
    complaints->passing += result == -ENOENT || result == -ENOTDIR ? 1 : 0;
}

bool settings_complaints_may_pass(const struct settings_complaints *complaints)
{
    return complaints->count > 0 && complaints->passing == complaints->count;
}

void settings_complaints_log(const struct settings_complaints *complaints, enum log_level level)
{
    for (const char *line = complaints->text; line != NULL && *line != '\0';) {
        int length = (int)strcspn(line, "\n");
        log_write(level, "%.*s", length, line);
        line += length + (line[length] == '\n' ? 1 : 0);
    }
}

void settings_complaints_cleanup(struct settings_complaints *complaints)
{
    free(complaints->text);
    complaints->text = NULL;
    complaints->count = 0;
}
