#include "master/command_migrate.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "common/log.h"
#include "common/settings.h"
#include "master/command_options.h"
#include "master/errand.h"

#define COUNT_DIGITS_MAX   4
#define SECONDS_DIGITS_MAX 5
#define SECONDS_MAX        86400
#define MAX_WORDS          5

static bool is_number(const char *word, size_t digits_max)
{
    size_t length = strlen(word);
    return length > 0 && length <= digits_max && strspn(word, "0123456789") == length;
}

static bool is_count(const char *word)
{
    return is_number(word, COUNT_DIGITS_MAX) && word[0] != '0';
}

static bool is_time(const char *word)
{
    return is_number(word, SECONDS_DIGITS_MAX) && strtol(word, NULL, 10) <= SECONDS_MAX;
}

/* NULL when the words are in order, or what is wrong. */
static const char *find_fault(const struct command_options *options)
{
    if (options->has_migrate)
        return "--migrate belongs to run";
    if (options->has_all)
        return "--all belongs to dead-letters";
    if (options->has_json)
        return "--json belongs to status";
    if (options->word_count == 0)
        return "migrate needs to know where to: up, down or status";
    const char *direction = options->words[0];
    bool is_down = strcmp(direction, "down") == 0;
    if (!is_down && strcmp(direction, "up") != 0 && strcmp(direction, "status") != 0)
        return "the direction is none of up, down and status";
    if (options->word_count > (is_down ? 2 : 1))
        return "there are more words than the direction takes";
    if (options->word_count == 2 && !is_count(options->words[1]))
        return "the number of migrations is not one from 1 to 9999";
    if (options->has_dry_run && strcmp(direction, "up") != 0)
        return "--dry-run belongs to up";
    if (options->timeout != NULL && !is_time(options->timeout))
        return "the timeout is not a number of seconds from 0 to 86400";
    return NULL;
}

int command_migrate(int argc, char **argv)
{
    struct command_options options;
    int status = command_options_parse(argc, argv, COMMAND_MIGRATE_USAGE, &options);
    if (status != EX_OK)
        return status;
    const char *fault = find_fault(&options);
    if (fault != NULL)
        return command_options_refuse(COMMAND_MIGRATE_USAGE, fault);

    struct settings settings;
    status = command_options_read_settings(options.file, &settings);
    if (status != EX_OK)
        return status;
    log_configure((enum log_level)settings.log.level, (enum log_format)settings.log.format);
    const char *words[MAX_WORDS + 1] = {0};
    int count = 0;
    for (; count < options.word_count; count++)
        words[count] = options.words[count];
    if (options.has_dry_run)
        words[count++] = "--dry-run";
    if (options.timeout != NULL) {
        words[count++] = "--timeout";
        words[count++] = options.timeout;
    }
    status = errand_run(ERRAND_MIGRATE, &settings, words, NULL);
    settings_cleanup(&settings);
    return status;
}
