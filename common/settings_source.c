#include "common/settings_source.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/bounded_file.h"
#include "common/number_literal.h"

#define INCLUDE         "@include"
#define INCLUDE_DIR     "@include_dir"
#define FILE_SUFFIX     ".conf"
#define BYTE_ORDER_MARK "\xef\xbb\xbf" /* editors of other systems begin a text with it */
#define DIRECTIVE_FORM \
    "expected @include \"FILE\" or @include_dir \"DIRECTORY\" on a line of its own"

/* One file while it is read. */
struct scanner {
    struct settings_source *source;
    struct settings_complaints *complaints;
    const char *path;
    const char *next; /* in the file's text, which ends with a NUL */
    unsigned int file;
    unsigned int line;
    unsigned int depth;
    bool is_line_start; /* only blanks since the line's beginning */
};

#define COMPLAIN(scanner, ...) \
    settings_complaints_add((scanner)->complaints, (scanner)->path, (scanner)->line, __VA_ARGS__)

static int append(struct settings_source *source, const char *bytes, size_t length)
{
    if (source->length + length + 1 > source->capacity) {
        size_t capacity = source->capacity * 2 + length + 1024;
        char *text = malloc(capacity); /* not realloc(): what it leaves behind may be a password */
        if (text == NULL)
            return -ENOMEM;
        if (source->text != NULL) {
            memcpy(text, source->text, source->length);
            explicit_bzero(source->text, source->length);
            free(source->text);
        }
        source->text = text;
        source->capacity = capacity;
    }
    memcpy(source->text + source->length, bytes, length);
    source->length += length;
    source->text[source->length] = '\0';
    return 0;
}

/* From here on the joined text comes from the scanner's file and line. */
static int begin_span(const struct scanner *scanner)
{
    struct settings_source *source = scanner->source;
    if (source->span_count == source->span_capacity) {
        size_t capacity = source->span_capacity * 2 + 16;
        struct settings_source_span *spans =
            reallocarray(source->spans, capacity, sizeof(*source->spans));
        if (spans == NULL)
            return -ENOMEM;
        source->spans = spans;
        source->span_capacity = capacity;
    }
    source->spans[source->span_count++] = (struct settings_source_span){
        .joined_line = source->joined_line, .file = scanner->file, .line = scanner->line};
    return 0;
}

/* Ends a line of the joined text that is none of a file. */
static int break_line(struct settings_source *source)
{
    source->joined_line++;
    return append(source, "\n", 1);
}

/* Copies the next character and goes on behind it. */
static int copy(struct scanner *scanner)
{
    char character = *scanner->next++;
    if (character == '\n') {
        scanner->line++;
        scanner->source->joined_line++;
    }
    scanner->is_line_start =
        character == '\n' || (scanner->is_line_start && (character == ' ' || character == '\t'));
    return append(scanner->source, &character, 1);
}

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* ---- comments, strings and numbers ---- */

/* Leaves nothing of a comment but its line feeds. */
static int skip_comment(struct scanner *scanner)
{
    bool is_block = starts_with(scanner->next, "/*");
    unsigned int first_line = scanner->line;
    if (is_block)
        scanner->next += strlen("/*");
    int result = append(scanner->source, " ", 1);
    while (result == 0 && *scanner->next != '\0') {
        if (is_block && starts_with(scanner->next, "*/")) {
            scanner->next += strlen("*/");
            return 0;
        }
        if (!is_block && *scanner->next == '\n')
            return 0;
        if (*scanner->next == '\n')
            result = copy(scanner);
        else
            scanner->next++;
    }
    if (result < 0 || !is_block)
        return result;
    scanner->line = first_line;
    COMPLAIN(scanner, "a comment begins here and does not end, expected */");
    return -EINVAL;
}

/* A string ends as libconfig has it: \" and \\ stand for themselves, a lone \ for nothing more. */
static int copy_string(struct scanner *scanner)
{
    unsigned int first_line = scanner->line;
    int result = copy(scanner);
    while (result == 0 && *scanner->next != '\0') {
        bool is_end = *scanner->next == '"';
        bool is_pair =
            *scanner->next == '\\' && (scanner->next[1] == '"' || scanner->next[1] == '\\');
        result = copy(scanner);
        if (result == 0 && is_pair)
            result = copy(scanner);
        scanner->is_line_start = false;
        if (is_end)
            return result;
    }
    if (result < 0)
        return result;
    scanner->line = first_line;
    COMPLAIN(scanner, "a string begins here and does not end, expected a double quote");
    return -EINVAL;
}

static int copy_number(struct scanner *scanner)
{
    size_t length = 0;
    enum number_literal kind = number_literal_scan(scanner->next, &length);
    if (kind == NUMBER_LITERAL_TOO_LARGE) {
        COMPLAIN(scanner, "the number %.*s is too large, expected at most %lld",
            (int)(length > 40 ? 40 : length), scanner->next, (long long)INT64_MAX);
        return -EINVAL;
    }
    int result = append(scanner->source, scanner->next, length);
    if (result == 0 && kind == NUMBER_LITERAL_NEEDS_MARK)
        result = append(scanner->source, "L", 1);
    scanner->next += length;
    scanner->is_line_start = false;
    return result;
}

static bool is_name_character(char character)
{
    return isalnum((unsigned char)character) || strchr("_*-", character) != NULL;
}

static int copy_name(struct scanner *scanner)
{
    int result = 0;
    while (result == 0 && *scanner->next != '\0' && is_name_character(*scanner->next))
        result = copy(scanner);
    return result;
}

static int copy_assignment(struct scanner *scanner)
{
    if (++scanner->source->setting_count <= SETTINGS_SOURCE_MAX_SETTINGS)
        return copy(scanner);
    COMPLAIN(
        scanner, "there are too many settings, expected at most %d", SETTINGS_SOURCE_MAX_SETTINGS);
    return -E2BIG;
}

/* ---- directives ---- */

static int scan_file(struct settings_source *source, const char *path,
    const struct scanner *includer, struct settings_complaints *complaints);

/* Relative to the directory of the file that names it. NULL without memory. */
static char *resolve(const struct scanner *scanner, const char *name, size_t length)
{
    const char *slash = strrchr(scanner->path, '/');
    char *path = NULL;
    int result = *name == '/' || slash == NULL
                     ? asprintf(&path, "%.*s", (int)length, name)
                     : asprintf(&path, "%.*s/%.*s", (int)(slash - scanner->path), scanner->path,
                           (int)length, name);
    return result < 0 ? NULL : path;
}

static int is_included(const struct dirent *entry)
{
    size_t length = strlen(entry->d_name);
    size_t suffix = strlen(FILE_SUFFIX);
    return entry->d_name[0] != '.' && length > suffix &&
           strcmp(entry->d_name + length - suffix, FILE_SUFFIX) == 0;
}

static int compare_names(const struct dirent **left, const struct dirent **right)
{
    return strcmp((*left)->d_name, (*right)->d_name);
}

static int include_directory(struct scanner *scanner, const char *directory)
{
    struct dirent **entries = NULL;
    int count = scandir(directory, &entries, is_included, compare_names);
    if (count < 0) {
        int error = errno;
        COMPLAIN(scanner, "the directory %s cannot be read: %s, expected one with NAME.conf files",
            directory, strerror(error));
        return -error;
    }
    int result = 0;
    for (int i = 0; i < count; i++) {
        char *path = NULL;
        if (result == 0 && asprintf(&path, "%s/%s", directory, entries[i]->d_name) < 0)
            result = -ENOMEM;
        if (result == 0)
            result = scan_file(scanner->source, path, scanner, scanner->complaints);
        free(path);
        free(entries[i]);
    }
    free(entries);
    return result;
}

/* What follows the directive on its line is the includer's again. */
static int include(struct scanner *scanner)
{
    bool is_directory = starts_with(scanner->next, INCLUDE_DIR);
    const char *start = scanner->next + strlen(is_directory ? INCLUDE_DIR : INCLUDE);
    const char *name = start + strspn(start, " \t");
    size_t length = *name == '"' ? strcspn(name + 1, "\"\n") : 0;
    bool is_directive = starts_with(scanner->next, INCLUDE) && scanner->is_line_start &&
                        name > start && length > 0 && name[length + 1] == '"';
    if (!is_directive) {
        COMPLAIN(scanner, "an @ has no meaning here, " DIRECTIVE_FORM);
        return -EINVAL;
    }
    char *path = resolve(scanner, name + 1, length);
    if (path == NULL)
        return -ENOMEM;
    int result = is_directory ? include_directory(scanner, path)
                              : scan_file(scanner->source, path, scanner, scanner->complaints);
    free(path);
    scanner->next = name + 1 + length + 1;
    scanner->is_line_start = false;
    return result == 0 ? begin_span(scanner) : result;
}

/* ---- a file ---- */

static int scan_text(struct scanner *scanner)
{
    int result = begin_span(scanner);
    while (result == 0 && *scanner->next != '\0') {
        const char *next = scanner->next;
        if (*next == '#' || starts_with(next, "//") || starts_with(next, "/*"))
            result = skip_comment(scanner);
        else if (*next == '"')
            result = copy_string(scanner);
        else if (*next == '@')
            result = include(scanner);
        else if (number_literal_begins(next))
            result = copy_number(scanner);
        else if (isalpha((unsigned char)*next) || *next == '*')
            result = copy_name(scanner);
        else if (*next == '=' || *next == ':')
            result = copy_assignment(scanner);
        else
            result = copy(scanner);
    }
    return result == 0 ? break_line(scanner->source) : result;
}

/* The place that a complaint about a whole file belongs to: where it is included. */
static void complain_of_file(const struct scanner *includer, const char *path,
    struct settings_complaints *complaints, const char *what)
{
    if (includer != NULL)
        settings_complaints_add(
            complaints, includer->path, includer->line, "the included %s %s", path, what);
    else
        settings_complaints_add(complaints, path, 0, "%s", what);
}

static int read_file(struct settings_source *source, const char *path,
    const struct scanner *includer, struct settings_complaints *complaints,
    struct bounded_file *ret_file)
{
    char what[256];
    int result = 0;
    if (source->file_count == SETTINGS_SOURCE_MAX_FILES) {
        (void)snprintf(what, sizeof(what), "is one file too many, expected at most %d",
            SETTINGS_SOURCE_MAX_FILES);
        result = -EMFILE;
    } else if (includer != NULL && includer->depth >= SETTINGS_SOURCE_MAX_DEPTH) {
        (void)snprintf(what, sizeof(what),
            "is nested too deeply, expected at most %d includes within each other",
            SETTINGS_SOURCE_MAX_DEPTH);
        result = -ELOOP;
    } else {
        size_t room = SETTINGS_SOURCE_MAX_BYTES - source->read_bytes;
        result = bounded_file_read(path, room, ret_file);
        if (result == -EFBIG)
            (void)snprintf(what, sizeof(what), "is too large, expected at most %zu KiB%s",
                SETTINGS_SOURCE_MAX_BYTES / 1024, includer != NULL ? " in all files together" : "");
        else if (result == -EISDIR)
            (void)snprintf(what, sizeof(what),
                "is a directory, expected a file (@include_dir reads all NAME.conf in one)");
        else if (result < 0)
            (void)snprintf(what, sizeof(what),
                "cannot be opened: %s, expected a configuration file",
                result == -EPERM ? "it is not a regular file" : strerror(-result));
    }
    if (result < 0)
        complain_of_file(includer, path, complaints, what);
    return result;
}

static int scan_file(struct settings_source *source, const char *path,
    const struct scanner *includer, struct settings_complaints *complaints)
{
    struct bounded_file file CLEANUP(bounded_file_cleanup) = {0};
    int result = read_file(source, path, includer, complaints, &file);
    if (result < 0)
        return result;
    source->read_bytes += file.length;
    struct settings_source_file *entry = &source->files[source->file_count];
    *entry = (struct settings_source_file){
        .path = strdup(path), .is_world_readable = file.is_world_readable};
    if (entry->path == NULL)
        return -ENOMEM;
    struct scanner scanner = {
        .source = source,
        .complaints = complaints,
        .path = entry->path,
        .next = starts_with(file.text, BYTE_ORDER_MARK) ? file.text + strlen(BYTE_ORDER_MARK)
                                                        : file.text,
        .file = (unsigned int)source->file_count++,
        .line = 1,
        .depth = includer == NULL ? 0 : includer->depth + 1,
        .is_line_start = true,
    };
    if (strlen(file.text) != file.length) {
        COMPLAIN(&scanner, "the file holds a NUL byte, expected text");
        return -EILSEQ;
    }
    return scan_text(&scanner);
}

int settings_source_read(
    const char *path, struct settings_source *ret_source, struct settings_complaints *complaints)
{
    *ret_source = (struct settings_source){.joined_line = 1};
    int result = scan_file(ret_source, path, NULL, complaints);
    if (result == -ENOMEM && complaints->count == 0)
        settings_complaints_add(complaints, path, 0, "out of memory");
    return result;
}

void settings_source_cleanup(struct settings_source *source)
{
    if (source->text != NULL)
        explicit_bzero(source->text, source->length);
    free(source->text);
    free(source->spans);
    for (size_t i = 0; i < source->file_count; i++)
        free(source->files[i].path);
    *source = (struct settings_source){0};
}

/* ---- where a line came from ---- */

static const struct settings_source_span *find_span(
    const struct settings_source *source, unsigned int joined_line)
{
    const struct settings_source_span *found = NULL;
    for (size_t i = 0; i < source->span_count && source->spans[i].joined_line <= joined_line; i++)
        found = &source->spans[i];
    return found;
}

void settings_source_place(const struct settings_source *source, unsigned int joined_line,
    const char **ret_path, unsigned int *ret_line)
{
    const struct settings_source_span *span = find_span(source, joined_line);
    *ret_path = span == NULL ? "" : source->files[span->file].path;
    *ret_line = span == NULL ? 0 : span->line + (joined_line - span->joined_line);
}

bool settings_source_is_world_readable(
    const struct settings_source *source, unsigned int joined_line)
{
    const struct settings_source_span *span = find_span(source, joined_line);
    return span != NULL && source->files[span->file].is_world_readable;
}
