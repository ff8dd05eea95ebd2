#include "master/command_migrate.h"

#include <stdbool.h>
#include <string.h>
#include <sysexits.h>

#include "common/log.h"
#include "common/settings.h"
#include "master/command_options.h"
#include "master/errand.h"

#define COUNT_DIGITS_MAX 4
#define MAX_WORDS        2

static bool is_count(const char *word)
{
    size_t length = strlen(word);
    return length > 0 && length <= COUNT_DIGITS_MAX && word[0] != '0' &&
           strspn(word, "0123456789") == length;
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
    for (int i = 0; i < options.word_count; i++)
        words[i] = options.words[i];
    status = errand_run(ERRAND_MIGRATE, &settings, words, NULL);
    settings_cleanup(&settings);
    return status;
}
