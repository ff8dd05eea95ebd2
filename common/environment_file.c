#include "common/environment_file.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bounded_file.h"

#define BLANKS       " \t\r\f\v"
#define NAME_LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
#define EXPORT       "export"

#define BYTE_ORDER_MARK "\xef\xbb\xbf" /* editors of other systems begin a text with it */

/* Set by us: DB_URL and where Kafka is (settings_environment.h). */
static const char *const wanted[] = {"DB_URL", "KAFKA_URL", "KAFKA_BOOTSTRAP_SERVERS"};

struct variable {
    char *name;  /* owned */
    char *value; /* owned, wiped */
};

struct environment_file {
    struct variable variables[ENVIRONMENT_FILE_MAX_VARIABLES];
    size_t count;
    const char *path;
    unsigned int line;
    struct settings_complaints *complaints;
};

static void wipe_text(char *text)
{
    if (text != NULL)
        explicit_bzero(text, strlen(text));
    free(text);
}

static int refuse(const struct environment_file *file, const char *what)
{
    settings_complaints_add(file->complaints, file->path, file->line, "%s", what);
    return -EINVAL;
}

static const char *look_up(const struct environment_file *file, const char *name)
{
    const char *value = getenv(name);
    for (size_t i = 0; value == NULL && i < file->count; i++)
        if (strcmp(file->variables[i].name, name) == 0)
            value = file->variables[i].value;
    return value;
}

/* Takes both. */
static int keep(struct environment_file *file, char *name, char *value)
{
    for (size_t i = 0; i < file->count; i++) {
        if (strcmp(file->variables[i].name, name) != 0)
            continue;
        wipe_text(file->variables[i].value);
        file->variables[i].value = value;
        free(name);
        return 0;
    }
    if (file->count < ENVIRONMENT_FILE_MAX_VARIABLES) {
        file->variables[file->count++] = (struct variable){.name = name, .value = value};
        return 0;
    }
    free(name);
    wipe_text(value);
    return refuse(file, "there are too many variables, expected at most 256");
}

/* ---- values ---- */

/* "${NAME}" or "${NAME:-standard}" at `text`: writes what it stands for. The length of the
 * reference; 0: it is none. */
static size_t expand_one(const struct environment_file *file, const char *text, FILE *stream)
{
    if (text[0] != '$' || text[1] != '{')
        return 0;
    size_t length = strspn(text + 2, NAME_LETTERS);
    const char *rest = text + 2 + length;
    size_t standard = strncmp(rest, ":-", 2) == 0 ? strcspn(rest + 2, "}\n") + 2 : 0;
    if (length == 0 || rest[standard] != '}')
        return 0;
    char name[64];
    (void)snprintf(name, sizeof(name), "%.*s", (int)length, text + 2);
    const char *value = look_up(file, name);
    if (value != NULL)
        (void)fputs(value, stream);
    else if (standard > 0)
        (void)fprintf(stream, "%.*s", (int)standard - 2, rest + 2);
    return (size_t)(rest - text) + standard + 1;
}

static char unescape(char letter)
{
    static const char letters[] = "abfnrtv";
    static const char meanings[] = "\a\b\f\n\r\t\v";
    const char *place = letter == '\0' ? NULL : strchr(letters, letter);
    if (place == NULL)
        return letter;
    return meanings[place - letters];
}

/* Writes the value of `length` bytes at `text` as its quotes have it ('\0': none). */
static void write_value(
    const struct environment_file *file, const char *text, size_t length, char quote, FILE *stream)
{
    for (size_t i = 0; i < length;) {
        size_t reference = quote == '\'' ? 0 : expand_one(file, text + i, stream);
        bool is_escape = text[i] == '\\' && i + 1 < length &&
                         ((quote == '\'' && strchr("\\'", text[i + 1]) != NULL) ||
                             (quote == '"' && strchr("\\'\"abfnrtv", text[i + 1]) != NULL));
        if (reference > 0 && i + reference <= length) {
            i += reference;
        } else if (is_escape) {
            char letter = text[i + 1];
            (void)fputc(quote == '"' ? unescape(letter) : letter, stream);
            i += 2;
        } else {
            (void)fputc(text[i++], stream);
        }
    }
}

/* How long a value in quotes is, behind the first one; -1: it does not end. */
static ssize_t quoted_length(const char *text, char quote)
{
    for (const char *next = text; *next != '\0'; next++) {
        if (*next == '\\' && next[1] != '\0')
            next++;
        else if (*next == quote)
            return next - text;
    }
    return -1;
}

/* Without a comment behind a blank, and without blanks at the end. */
static size_t bare_length(const char *text)
{
    size_t length = strcspn(text, "\n");
    for (size_t i = 1; i < length; i++)
        if (text[i] == '#' && strchr(BLANKS, text[i - 1]) != NULL) {
            length = i;
            break;
        }
    if (length > 0 && *text == '#')
        length = 0;
    while (length > 0 && strchr(BLANKS, text[length - 1]) != NULL)
        length--;
    return length;
}

/* The value at *next, which is behind the equals sign; goes on behind it. */
static int read_value(struct environment_file *file, const char **next, char **ret_value)
{
    const char *text = *next + strspn(*next, BLANKS);
    char quote = '\0';
    if (*text == '"' || *text == '\'')
        quote = *text;
    ssize_t length = quote != '\0' ? quoted_length(text + 1, quote) : (ssize_t)bare_length(text);
    if (length < 0)
        return refuse(file, "a value begins with a quote and has none at its end");
    size_t size = 0;
    FILE *stream = open_memstream(ret_value, &size);
    if (stream == NULL)
        return -ENOMEM;
    if (quote != '\0')
        text++;
    write_value(file, text, (size_t)length, quote, stream);
    for (ssize_t i = 0; i < length; i++)
        file->line += text[i] == '\n' ? 1 : 0;
    *next = text + length + (quote != '\0' ? 1 : 0);
    return fclose(stream) == 0 ? 0 : -ENOMEM;
}

/* ---- the file ---- */

/* One assignment, or nothing that matters. `text` is at a line's first character. */
static int read_line(struct environment_file *file, const char **text)
{
    const char *next = *text + strspn(*text, BLANKS);
    size_t word = strlen(EXPORT);
    if (strncmp(next, EXPORT, word) == 0 && next[word] != '\0' &&
        strchr(BLANKS, next[word]) != NULL)
        next += word + strspn(next + word, BLANKS);
    size_t length = strspn(next, NAME_LETTERS);
    const char *equals = next + length + strspn(next + length, BLANKS);
    int result = 0;
    if (length > 0 && *equals == '=') {
        char *name = strndup(next, length);
        char *value = NULL;
        next = equals + 1;
        result = name == NULL ? -ENOMEM : read_value(file, &next, &value);
        if (result < 0) {
            free(name);
            return result;
        }
        result = keep(file, name, value);
    } else if (*next != '#' && *next != '\n' && *next != '\0') {
        return refuse(file, "the line cannot be read, expected NAME=VALUE");
    }
    *text = next + strcspn(next, "\n");
    return result;
}

static int read_text(struct environment_file *file, const char *text)
{
    int result = 0;
    while (result == 0 && *text != '\0') {
        result = read_line(file, &text);
        if (result == 0 && *text == '\n') {
            text++;
            file->line++;
        }
    }
    return result;
}

/* The text ends there for whoever reads it: what is behind would be left out without a word. */
static int refuse_nul(struct environment_file *file, const char *text)
{
    for (; *text != '\0'; text++)
        file->line += *text == '\n' ? 1 : 0;
    (void)refuse(file, "the file holds a NUL byte, expected text");
    return -EILSEQ;
}

static int read_content(struct environment_file *file, const struct bounded_file *content)
{
    const char *text = content->text;
    if (strlen(text) != content->length)
        return refuse_nul(file, text);
    if (strncmp(text, BYTE_ORDER_MARK, strlen(BYTE_ORDER_MARK)) == 0)
        text += strlen(BYTE_ORDER_MARK);
    return read_text(file, text);
}

static int set_wanted(const struct environment_file *file)
{
    for (size_t i = 0; i < ARRAY_LENGTH(wanted); i++) {
        const char *value = look_up(file, wanted[i]);
        if (value != NULL && setenv(wanted[i], value, 0) < 0)
            return -errno;
    }
    return 0;
}

int environment_file_apply(
    const char *path, struct settings_complaints *complaints, struct settings_complaints *warnings)
{
    struct bounded_file content CLEANUP(bounded_file_cleanup) = {0};
    int result = bounded_file_read(path, ENVIRONMENT_FILE_MAX_BYTES, &content);
    if (result < 0) {
        settings_complaints_add(complaints, path, 0,
            "cannot be read: %s, expected a file of NAME=VALUE lines",
            result == -EPERM ? "it is not a regular file" : strerror(-result));
        return result;
    }
    struct environment_file *file = calloc(1, sizeof(*file));
    if (file == NULL)
        return -ENOMEM;
    file->path = path;
    file->line = 1;
    file->complaints = complaints;
    result = read_content(file, &content);
    if (result == 0)
        result = set_wanted(file);
    if (content.is_world_readable)
        settings_complaints_add(
            warnings, path, 0, "everybody can read the file, expected mode 0640 or less");
    for (size_t i = 0; i < file->count; i++) {
        free(file->variables[i].name);
        wipe_text(file->variables[i].value);
    }
    free(file);
    return result;
}
