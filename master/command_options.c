#include "master/command_options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "common/settings_complaints.h"
#include "common/settings_file.h"
#include "master/settings_check.h"

#define REASON_SIZE 128

int command_options_refuse(const char *usage, const char *reason)
{
    (void)fprintf(stderr, "userd: %s\nusage: userd %s\n", reason, usage);
    return EX_USAGE;
}

static int refuse_option(const char *usage, const char *what, const char *word)
{
    char reason[REASON_SIZE];
    (void)snprintf(reason, sizeof(reason), "option %s %s", word, what);
    return command_options_refuse(usage, reason);
}

/* Without a file of the standard name the defaults hold, and what the environment says. */
static const char *find_standard_file(void)
{
    bool is_missing = access(SETTINGS_FILE_DEFAULT, F_OK) < 0 && errno == ENOENT;
    return is_missing ? COMMAND_OPTIONS_NO_FILE : SETTINGS_FILE_DEFAULT;
}

int command_options_parse(
    int argc, char **argv, const char *usage, struct command_options *ret_options)
{
    static const struct option known[] = {
        {.name = "config", .has_arg = required_argument, .val = 'c'},
        {.name = "migrate", .has_arg = no_argument, .val = 'm'},
        {.name = "all", .has_arg = no_argument, .val = 'a'},
        {.name = "json", .has_arg = no_argument, .val = 'j'},
        {.name = "dry-run", .has_arg = no_argument, .val = 'n'},
        {.name = "timeout", .has_arg = required_argument, .val = 't'},
        {.name = "listen", .has_arg = required_argument, .val = 'l'},
        {.name = "connect", .has_arg = no_argument, .val = 'k'},
        {.name = "run-dir", .has_arg = required_argument, .val = 'r'},
        {.name = "value", .has_arg = required_argument, .val = 'v'},
        {0},
    };
    struct command_options options = {.file = find_standard_file()};
    opterr = 0;
    optind = 1;
    int option = 0;
    while ((option = getopt_long(argc, argv, ":c:", known, NULL)) != -1) {
        switch (option) {
        case 'c':
            options.file = optarg;
            options.is_file_named = true;
            break;
        case 'm':
            options.has_migrate = true;
            break;
        case 'a':
            options.has_all = true;
            break;
        case 'r':
            if (strstr(usage, "--run-dir") == NULL)
                return refuse_option(usage, "has no meaning here", "--run-dir");
            options.run_dir = optarg;
            break;
        case 'n':
            if (strstr(usage, "--dry-run") == NULL)
                return refuse_option(usage, "has no meaning here", "--dry-run");
            options.has_dry_run = true;
            break;
        case 't':
            if (strstr(usage, "--timeout") == NULL)
                return refuse_option(usage, "has no meaning here", "--timeout");
            options.timeout = optarg;
            break;
        case 'l':
            if (strstr(usage, "--listen") == NULL)
                return refuse_option(usage, "has no meaning here", "--listen");
            options.listen = optarg;
            break;
        case 'v':
            if (strstr(usage, "--value") == NULL)
                return refuse_option(usage, "has no meaning here", "--value");
            options.value = optarg;
            break;
        case 'k':
            if (strstr(usage, "--connect") == NULL)
                return refuse_option(usage, "has no meaning here", "--connect");
            options.has_connect = true;
            break;
        case 'j':
            options.has_json = true;
            break;
        case ':':
            return refuse_option(usage, "lacks its value", argv[optind - 1]);
        default:
            return refuse_option(usage, "is not known", argv[optind - 1]);
        }
    }
    if (options.is_file_named && options.run_dir != NULL)
        return command_options_refuse(usage, "-c and --run-dir are two ways to say the same");
    options.words = argv + optind;
    options.word_count = argc - optind;
    *ret_options = options;
    return EX_OK;
}

int command_options_read_quietly(
    const char *file, struct settings *ret_settings, struct settings_complaints *warnings)
{
    struct settings_complaints complaints = {0};
    struct settings settings = {0};
    int result = settings_file_read(file, &settings, &complaints, warnings);
    if (result < 0) {
        (void)fprintf(
            stderr, "%s\n", complaints.text != NULL ? complaints.text : strerror(-result));
        int status = settings_complaints_may_pass(&complaints) ? EX_NOINPUT : EX_CONFIG;
        settings_complaints_cleanup(&complaints);
        return status;
    }
    settings_complaints_cleanup(&complaints);
    *ret_settings = settings;
    return EX_OK;
}

int command_options_read_settings(const char *file, struct settings *ret_settings)
{
    struct settings_complaints warnings = {0};
    int status = command_options_read_quietly(file, ret_settings, &warnings);
    if (warnings.text != NULL)
        (void)fprintf(stderr, "%s\n", warnings.text);
    settings_complaints_cleanup(&warnings);
    return status;
}

int command_options_check_children(const char *file, const struct settings *settings)
{
    struct settings_complaints complaints = {0};
    int result = settings_check_run(file, settings, false, &complaints, NULL);
    if (result < 0)
        (void)fprintf(
            stderr, "%s\n", complaints.text != NULL ? complaints.text : strerror(-result));
    settings_complaints_cleanup(&complaints);
    return result < 0 ? EX_CONFIG : EX_OK;
}
