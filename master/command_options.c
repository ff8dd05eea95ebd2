#include "master/command_options.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "common/settings_complaints.h"
#include "common/settings_file.h"
#include "master/kafka_check.h"
#include "master/listener_address.h"

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

int command_options_parse(
    int argc, char **argv, const char *usage, struct command_options *ret_options)
{
    static const struct option known[] = {
        {.name = "config", .has_arg = required_argument, .val = 'c'},
        {.name = "migrate", .has_arg = no_argument, .val = 'm'},
        {.name = "all", .has_arg = no_argument, .val = 'a'},
        {.name = "json", .has_arg = no_argument, .val = 'j'},
        {.name = "listen", .has_arg = required_argument, .val = 'l'},
        {.name = "run-dir", .has_arg = required_argument, .val = 'r'},
        {0},
    };
    struct command_options options = {.file = SETTINGS_FILE_DEFAULT};
    opterr = 0;
    optind = 1;
    int option = 0;
    while ((option = getopt_long(argc, argv, ":c:", known, NULL)) != -1) {
        switch (option) {
        case 'c':
            options.file = optarg;
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
        case 'l':
            if (strstr(usage, "--listen") == NULL)
                return refuse_option(usage, "has no meaning here", "--listen");
            options.listen = optarg;
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
    options.words = argv + optind;
    options.word_count = argc - optind;
    *ret_options = options;
    return EX_OK;
}

static int check_addresses(const char *file, const struct settings *settings)
{
    int status = EX_OK;
    for (size_t i = 0; i < settings->listener_count; i++) {
        const struct settings_listener *listener = &settings->listeners[i];
        struct listener_address address;
        const char *expected = NULL;
        if (listener_address_parse(listener->address, &address, &expected) == 0)
            continue;
        (void)fprintf(stderr, "%s:%u: address \"%s\" of listener %s cannot be read, expected %s\n",
            file, listener->line, listener->address, listener->name, expected);
        status = EX_CONFIG;
    }
    return status;
}

int command_options_read_settings(const char *file, struct settings *ret_settings)
{
    struct settings_complaints complaints = {0};
    struct settings settings = {0};
    int result = settings_file_read(file, &settings, &complaints);
    if (result < 0) {
        (void)fprintf(
            stderr, "%s\n", complaints.text != NULL ? complaints.text : strerror(-result));
        settings_complaints_cleanup(&complaints);
        return EX_CONFIG;
    }
    settings_complaints_cleanup(&complaints);
    int status = check_addresses(file, &settings);
    if (status != EX_OK) {
        settings_cleanup(&settings);
        return status;
    }
    *ret_settings = settings;
    return EX_OK;
}

int command_options_check_kafka(const char *file, const struct settings *settings)
{
    struct settings_complaints complaints = {0};
    int result = kafka_check_run(file, settings, &complaints);
    if (result < 0)
        (void)fprintf(
            stderr, "%s\n", complaints.text != NULL ? complaints.text : strerror(-result));
    settings_complaints_cleanup(&complaints);
    return result < 0 ? EX_CONFIG : EX_OK;
}
