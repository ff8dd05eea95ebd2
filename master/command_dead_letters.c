#include "master/command_dead_letters.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "common/log.h"
#include "common/settings.h"
#include "master/command_options.h"
#include "master/errand.h"

#define MAX_IDS          1000
#define PARTITION_DIGITS 9
#define OFFSET_DIGITS    18
#define DIGITS           "0123456789"

/* "PARTITION:OFFSET" in the dead-letter topic. */
static bool is_id(const char *word)
{
    size_t partition = strspn(word, DIGITS);
    if (partition == 0 || partition > PARTITION_DIGITS || word[partition] != ':')
        return false;
    const char *rest = word + partition + 1;
    size_t offset = strspn(rest, DIGITS);
    return offset > 0 && offset <= OFFSET_DIGITS && rest[offset] == '\0';
}

static const char *find_fault_of_ids(const struct command_options *options)
{
    if (options->word_count - 1 > MAX_IDS)
        return "there are more than 1000 IDs: use --all, or several runs";
    for (int i = 1; i < options->word_count; i++) {
        if (!is_id(options->words[i]))
            return "an ID is none: expected PARTITION:OFFSET, as userd dead-letters list shows it";
    }
    return NULL;
}

/* NULL when the words are in order, or what is wrong. */
static const char *find_fault(const struct command_options *options)
{
    if (options->has_migrate)
        return "--migrate belongs to run";
    if (options->word_count == 0)
        return "dead-letters needs to know what to do: list, show, replay or drop";
    const char *verb = options->words[0];
    int ids = options->word_count - 1;
    if (options->has_json && strcmp(verb, "list") != 0)
        return "--json belongs to list";
    if (options->value != NULL && strcmp(verb, "replay") != 0)
        return "--value belongs to replay";
    if (options->value != NULL && (options->has_all || ids != 1))
        return "--value takes one ID: the letter that gets this value";
    if (strcmp(verb, "list") == 0)
        return options->has_all || ids > 0 ? "list takes no further words" : NULL;
    if (strcmp(verb, "show") == 0 && (options->has_all || ids != 1))
        return "show takes one ID";
    if (strcmp(verb, "replay") == 0 || strcmp(verb, "drop") == 0) {
        if (options->has_all == (ids > 0))
            return "replay and drop take either IDs or --all";
    } else if (strcmp(verb, "show") != 0) {
        return "what to do is none of list, show, replay and drop";
    }
    return find_fault_of_ids(options);
}

int command_dead_letters(int argc, char **argv)
{
    struct command_options options;
    int status = command_options_parse(argc, argv, COMMAND_DEAD_LETTERS_USAGE, &options);
    if (status != EX_OK)
        return status;
    const char *fault = find_fault(&options);
    if (fault != NULL)
        return command_options_refuse(COMMAND_DEAD_LETTERS_USAGE, fault);

    struct settings settings;
    status = command_options_read_settings(options.file, &settings);
    if (status != EX_OK)
        return status;
    log_configure((enum log_level)settings.log.level, (enum log_format)settings.log.format);
    const char *words[MAX_IDS + 5] = {0};
    size_t count = 0;
    words[count++] = options.words[0];
    if (options.has_json)
        words[count++] = "--json";
    if (options.value != NULL) {
        words[count++] = "--value";
        words[count++] = options.value;
    }
    if (options.has_all)
        words[count++] = "--all";
    for (int i = 1; i < options.word_count; i++)
        words[count++] = options.words[i];
    status = errand_run(ERRAND_DEAD_LETTERS, &settings, words, NULL);
    settings_cleanup(&settings);
    return status;
}
