#include "master/command_options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "common/environment_file.h"
#include "common/settings_complaints.h"
#include "common/settings_file.h"
#include "master/settings_check.h"

#define REASON_SIZE        128
#define OPTION_NAME_SIZE   32
#define SECONDS_DIGITS_MAX 6

int command_options_refuse(const char *usage, const char *reason)
{
    (void)fprintf(stderr, "userd: %s\nusage: userd %s\n", reason, usage);
    return EX_USAGE;
}

void command_options_print(FILE *stream, const char *usage)
{
    static const struct {
        const char *mark; /* as it stands in a usage */
        const char *text;
        const char *purpose;
    } explained[] = {
        {"-c FILE", "-c, --config FILE",
            "the configuration (" SETTINGS_FILE_DEFAULT ", if there is such a file)"},
        {"--env-file", "--env-file FILE",
            "variables that are not set, such as DB_URL, from a file of NAME=VALUE lines"},
        {"--run-dir", "--run-dir DIR", "the service in this run_dir, without a configuration"},
        {"--json", "--json", "for programs: names that stay, see docs/OPERATIONS.md"},
        {"--listen", "--listen ADDRESS:PORT", "serve them there, at /metrics"},
        {"--migrate", "--migrate", "first bring the schema up to date"},
        {"--connect", "--connect", "try the database, Kafka, topics and group instead"},
        {"--all", "--all", "all that are pending"},
        {"--wait", "--wait SECONDS", "for so long, until it is so"},
        {"--timeout", "--timeout SECONDS", "give up after so long"},
        {"--dry-run", "--dry-run", "say what would be done, and do nothing"},
        {"--value", "--value FILE", "send this in the place of the value"},
    };
    bool is_first = true;
    for (size_t i = 0; i < ARRAY_LENGTH(explained); i++) {
        if (strstr(usage, explained[i].mark) == NULL)
            continue;
        (void)fprintf(stream, "%s  %-24s %s\n", is_first ? "\n" : "", explained[i].text,
            explained[i].purpose);
        is_first = false;
    }
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

static const struct option known[] = {
    {.name = "config", .has_arg = required_argument, .val = 'c'},
    {.name = "migrate", .has_arg = no_argument, .val = 'm'},
    {.name = "all", .has_arg = no_argument, .val = 'a'},
    {.name = "json", .has_arg = no_argument, .val = 'j'},
    {.name = "listen", .has_arg = required_argument, .val = 'l'},
    {.name = "dry-run", .has_arg = no_argument, .val = 'n'},
    {.name = "timeout", .has_arg = required_argument, .val = 't'},
    {.name = "value", .has_arg = required_argument, .val = 'v'},
    {.name = "connect", .has_arg = no_argument, .val = 'k'},
    {.name = "run-dir", .has_arg = required_argument, .val = 'r'},
    {.name = "env-file", .has_arg = required_argument, .val = 'e'},
    {.name = "wait", .has_arg = required_argument, .val = 'w'},
    {0},
};

/* An option that a command would not look at must not seem to be heard: the usage says which it
 * takes. */
static bool is_in_usage(const char *usage, int value)
{
    if (value == 'c')
        return true; /* whoever has options has a configuration */
    for (const struct option *option = known; option->name != NULL; option++) {
        char mark[OPTION_NAME_SIZE];
        (void)snprintf(mark, sizeof(mark), "--%s", option->name);
        if (option->val == value)
            return strstr(usage, mark) != NULL;
    }
    return true; /* refused as unknown */
}

static bool read_seconds(const char *text, unsigned int *ret_seconds)
{
    size_t length = strspn(text, "0123456789");
    if (length == 0 || length > SECONDS_DIGITS_MAX || text[length] != '\0')
        return false;
    *ret_seconds = (unsigned int)strtoul(text, NULL, 10);
    return true;
}

/* EX_OK, or EX_USAGE with the reason on standard error. */
static int take_option(int value, const char *usage, struct command_options *options)
{
    switch (value) {
    case 'c':
        options->file = optarg;
        options->is_file_named = true;
        break;
    case 'm':
        options->has_migrate = true;
        break;
    case 'a':
        options->has_all = true;
        break;
    case 'r':
        options->run_dir = optarg;
        break;
    case 'l':
        options->listen = optarg;
        break;
    case 'n':
        options->has_dry_run = true;
        break;
    case 't':
        options->timeout = optarg;
        break;
    case 'v':
        options->value = optarg;
        break;
    case 'k':
        options->has_connect = true;
        break;
    case 'j':
        options->has_json = true;
        break;
    case 'e':
        options->environment_file = optarg;
        break;
    case 'w':
        if (!read_seconds(optarg, &options->wait_seconds))
            return refuse_option(usage, "wants a number of seconds", "--wait");
        break;
    default:
        break;
    }
    return EX_OK;
}

/* Into the environment, before anybody reads a configuration. */
static int apply_environment_file(const char *path)
{
    struct settings_complaints complaints = {0};
    struct settings_complaints warnings = {0};
    int result = environment_file_apply(path, &complaints, &warnings);
    if (warnings.text != NULL)
        (void)fprintf(stderr, "%s\n", warnings.text);
    if (result < 0)
        (void)fprintf(
            stderr, "%s\n", complaints.text != NULL ? complaints.text : strerror(-result));
    settings_complaints_cleanup(&complaints);
    settings_complaints_cleanup(&warnings);
    return result < 0 ? EX_CONFIG : EX_OK;
}

int command_options_parse(
    int argc, char **argv, const char *usage, struct command_options *ret_options)
{
    struct command_options options = {.file = find_standard_file()};
    opterr = 0;
    optind = 1;
    int value = 0;
    int status = EX_OK;
    while (status == EX_OK && (value = getopt_long(argc, argv, ":c:", known, NULL)) != -1) {
        if (value == ':')
            status = refuse_option(usage, "lacks its value", argv[optind - 1]);
        else if (value == '?')
            status = refuse_option(usage, "is not known", argv[optind - 1]);
        else if (!is_in_usage(usage, value))
            status = refuse_option(usage, "has no meaning here",
                argv[optind - 1] == optarg ? argv[optind - 2] : argv[optind - 1]);
        else
            status = take_option(value, usage, &options);
    }
    if (status == EX_OK && options.is_file_named && options.run_dir != NULL)
        status = command_options_refuse(usage, "-c and --run-dir are two ways to say the same");
    if (status == EX_OK && options.environment_file != NULL)
        status = apply_environment_file(options.environment_file);
    if (status != EX_OK)
        return status;
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
