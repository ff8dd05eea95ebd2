/* What the commands share: their options, and reading the configuration with complaints for a
 * person. */
#ifndef USERD_MASTER_COMMAND_OPTIONS_H
#define USERD_MASTER_COMMAND_OPTIONS_H

#include <stdbool.h>
#include <stdio.h>

#include "common/attributes.h"
#include "common/settings.h"
#include "common/settings_complaints.h"

#define COMMAND_OPTIONS_NO_FILE "/dev/null" /* an empty configuration */

struct command_options {
    /* -c, --config. Unless given SETTINGS_FILE_DEFAULT, or COMMAND_OPTIONS_NO_FILE where there is
     * no such file. */
    const char *file;
    bool is_file_named;           /* by -c */
    bool has_migrate;             /* --migrate */
    bool has_all;                 /* --all */
    bool has_json;                /* --json */
    bool has_dry_run;             /* --dry-run */
    bool has_connect;             /* --connect */
    const char *timeout;          /* --timeout; NULL unless given */
    const char *value;            /* --value; NULL unless given */
    const char *environment_file; /* --env-file; NULL unless given; it is in the environment */
    unsigned int wait_seconds;    /* --wait; 0 unless given */
    const char *listen;           /* --listen; NULL unless given */
    const char *run_dir;          /* --run-dir; NULL unless given: what the configuration says */
    char **words;                 /* what is left of the command line */
    int word_count;
};

/* `argv[0]` is the command's name. EX_OK, or EX_USAGE with the reason and `usage` on standard
 * error. */
MUST_CHECK int command_options_parse(
    int argc, char **argv, const char *usage, struct command_options *ret_options);
/* Each option of the usage with what it is for. */
void command_options_print(FILE *stream, const char *usage);
/* Says what was wrong and how the command is used; EX_USAGE. */
MUST_CHECK int command_options_refuse(const char *usage, const char *reason);

/* EX_OK, or EX_CONFIG with every complaint on standard error as "file:line: what, expected";
 * EX_NOINPUT when all of them are of secrets' files that are not there (yet). The caller cleans up.
 */
MUST_CHECK int command_options_read_settings(const char *file, struct settings *ret_settings);
/* The same, with the warnings for the caller to say. */
MUST_CHECK int command_options_read_quietly(
    const char *file, struct settings *ret_settings, struct settings_complaints *warnings);
/* The same about what only the children's libraries can say of them. */
MUST_CHECK int command_options_check_children(const char *file, const struct settings *settings);

#endif
