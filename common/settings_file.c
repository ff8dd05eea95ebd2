#include "common/settings_file.h"

#include <errno.h>
#include <libconfig.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/nearest_name.h"
#include "common/settings_environment.h"
#include "common/settings_kafka.h"
#include "common/settings_listeners.h"
#include "common/settings_reader.h"
#include "common/settings_rules.h"

#define RUN_DIR   "run_dir"
#define PATH_SIZE 256
#define NAMES_MAX 128

static void full_name(const config_setting_t *setting, char *target, size_t size)
{
    const config_setting_t *parent = config_setting_parent(setting);
    if (parent == NULL || config_setting_is_root(parent))
        (void)snprintf(target, size, "%s", config_setting_name(setting));
    else
        (void)snprintf(
            target, size, "%s.%s", config_setting_name(parent), config_setting_name(setting));
}

/* All names that may stand in the file: settings, their groups, and "listeners". `storage` holds
 * the groups' texts. */
static size_t collect_names(const char *names[NAMES_MAX], char storage[NAMES_MAX][PATH_SIZE])
{
    size_t row_count = 0;
    const struct setting_row *rows = settings_table(&row_count);
    size_t count = 0;
    names[count++] = SETTINGS_LISTENERS;
    names[count++] = SETTINGS_KAFKA_OPTIONS;
    for (size_t i = 0; i < row_count && count + 2 < NAMES_MAX; i++) {
        names[count++] = rows[i].name;
        const char *dot = strchr(rows[i].name, '.');
        if (dot == NULL)
            continue;
        (void)snprintf(storage[count], PATH_SIZE, "%.*s", (int)(dot - rows[i].name), rows[i].name);
        names[count] = storage[count];
        count++;
    }
    return count;
}

static bool is_group_name(const char *name)
{
    size_t row_count = 0;
    const struct setting_row *rows = settings_table(&row_count);
    size_t length = strlen(name);
    for (size_t i = 0; i < row_count; i++) {
        if (strncmp(rows[i].name, name, length) == 0 && rows[i].name[length] == '.')
            return true;
    }
    return false;
}

static void complain_unknown(
    const struct settings_reader *reader, const config_setting_t *setting, const char *name)
{
    const char *names[NAMES_MAX];
    static char storage[NAMES_MAX][PATH_SIZE];
    size_t count = collect_names(names, storage);
    int nearest = nearest_name_find(name, names, count);
    if (nearest >= 0)
        SETTINGS_COMPLAIN(
            reader, setting, "%s: unknown setting, did you mean \"%s\"?", name, names[nearest]);
    else
        SETTINGS_COMPLAIN(reader, setting,
            "%s: unknown setting, expected one of those in the commented userd.conf", name);
}

static void read_integer(const struct settings_reader *reader, const config_setting_t *setting,
    const struct setting_row *row)
{
    int type = config_setting_type(setting);
    if (type != CONFIG_TYPE_INT && type != CONFIG_TYPE_INT64) {
        SETTINGS_COMPLAIN(reader, setting, "%s: is not a whole number, expected %d to %d",
            row->name, row->minimum, row->maximum);
        return;
    }
    long long value = type == CONFIG_TYPE_INT ? config_setting_get_int(setting)
                                              : config_setting_get_int64(setting);
    if (value < row->minimum || value > row->maximum)
        SETTINGS_COMPLAIN(reader, setting, "%s: %lld is out of bounds, expected %d to %d",
            row->name, value, row->minimum, row->maximum);
    else
        *settings_integer(reader->settings, row) = (int)value;
}

static void read_boolean(const struct settings_reader *reader, const config_setting_t *setting,
    const struct setting_row *row)
{
    if (config_setting_type(setting) != CONFIG_TYPE_BOOL)
        SETTINGS_COMPLAIN(
            reader, setting, "%s: is not a boolean, expected true or false", row->name);
    else
        *settings_integer(reader->settings, row) = config_setting_get_bool(setting);
}

static void read_text(const struct settings_reader *reader, const config_setting_t *setting,
    const struct setting_row *row)
{
    const char *text = config_setting_get_string(setting);
    if (text == NULL)
        SETTINGS_COMPLAIN(
            reader, setting, "%s: is not a string, expected text in double quotes", row->name);
    else if (*text == '\0' && *row->default_text != '\0')
        SETTINGS_COMPLAIN(reader, setting, "%s: is empty, expected text such as \"%s\"", row->name,
            row->default_text);
    else if (settings_set_text(reader->settings, row, text) < 0)
        SETTINGS_COMPLAIN(reader, setting, "%s: out of memory", row->name);
}

static void read_choice(const struct settings_reader *reader, const config_setting_t *setting,
    const struct setting_row *row)
{
    char reason[PATH_SIZE];
    if (!settings_set_choice(
            reader->settings, row, config_setting_get_string(setting), reason, sizeof(reason)))
        SETTINGS_COMPLAIN(reader, setting, "%s: %s", row->name, reason);
}

static void read_value(const struct settings_reader *reader, const config_setting_t *setting,
    const struct setting_row *row)
{
    switch (row->type) {
    case SETTING_INTEGER:
        read_integer(reader, setting, row);
        break;
    case SETTING_BOOLEAN:
        read_boolean(reader, setting, row);
        break;
    case SETTING_STRING:
        read_text(reader, setting, row);
        break;
    case SETTING_CHOICE:
        read_choice(reader, setting, row);
        break;
    }
}

/* ---- the whole file ---- */

static void read_group(const struct settings_reader *reader, const config_setting_t *group);

static void read_setting(const struct settings_reader *reader, const config_setting_t *setting)
{
    char name[PATH_SIZE];
    full_name(setting, name, sizeof(name));
    const struct setting_row *row = settings_find(name);
    if (row != NULL)
        read_value(reader, setting, row);
    else if (strcmp(name, SETTINGS_LISTENERS) == 0)
        settings_listeners_read(reader, setting);
    else if (strcmp(name, SETTINGS_KAFKA_OPTIONS) == 0)
        settings_kafka_read(reader, setting);
    else if (is_group_name(name) && config_setting_is_group(setting))
        read_group(reader, setting);
    else if (is_group_name(name))
        SETTINGS_COMPLAIN(
            reader, setting, "%s: is not a group, expected %s = { ... };", name, name);
    else
        complain_unknown(reader, setting, name);
}

static void read_group(const struct settings_reader *reader, const config_setting_t *group)
{
    for (int i = 0; i < config_setting_length(group); i++)
        read_setting(reader, config_setting_get_elem(group, (unsigned int)i));
}

static void complete(const struct settings_reader *reader)
{
    if (config_lookup(reader->config, SETTINGS_LISTENERS) == NULL)
        settings_listeners_add_standard(reader);
    settings_environment_apply(reader);
    settings_environment_complete_url(reader);
    settings_rules_check(reader);
}

/* Joins the file with what it includes and parses that. */
static int parse(const char *path, struct settings_source *source, config_t *config,
    struct settings_complaints *complaints)
{
    int result = settings_source_read(path, source, complaints);
    if (result < 0)
        return result;
    if (config_read_string(config, source->text))
        return 0;
    struct settings_place place = {0};
    settings_source_place(
        source, (unsigned int)config_error_line(config), &place.file, &place.line);
    settings_complaints_add(complaints, place.file, place.line,
        "%s, expected settings such as: workers = 2;",
        config_error_text(config) == NULL ? "cannot be read" : config_error_text(config));
    return -EINVAL;
}

int settings_file_read(const char *path, struct settings *ret_settings,
    struct settings_complaints *complaints, struct settings_complaints *warnings)
{
    struct settings settings CLEANUP(settings_cleanup) = {0};
    int result = settings_init(&settings);
    if (result < 0)
        return result;
    struct settings_source source CLEANUP(settings_source_cleanup) = {0};
    config_t config CLEANUP(config_destroy);
    config_init(&config);
    result = parse(path, &source, &config, complaints);
    if (result < 0)
        return result;
    const struct settings_reader reader = {
        .source = &source,
        .config = &config,
        .settings = &settings,
        .complaints = complaints,
        .warnings = warnings,
    };
    read_group(&reader, config_root_setting(&config));
    complete(&reader);
    if (complaints->count > 0)
        return -EINVAL;
    *ret_settings = settings;
    memset(&settings, 0, sizeof(settings));
    return 0;
}

/* NULL, with a complaint: what stands there is not usable. */
static const char *find_run_dir(const struct settings_reader *reader)
{
    const config_setting_t *setting = config_lookup(reader->config, RUN_DIR);
    if (setting == NULL)
        return settings_find(RUN_DIR)->default_text;
    const char *run_dir = config_setting_get_string(setting);
    if (run_dir != NULL && *run_dir == '/')
        return run_dir;
    SETTINGS_COMPLAIN(
        reader, setting, RUN_DIR ": is not usable, expected a path that begins with /");
    return NULL;
}

int settings_file_find_run_dir(
    const char *path, char **ret_run_dir, struct settings_complaints *complaints)
{
    struct settings_source source CLEANUP(settings_source_cleanup) = {0};
    config_t config CLEANUP(config_destroy);
    config_init(&config);
    int result = parse(path, &source, &config, complaints);
    if (result < 0)
        return result;
    const struct settings_reader reader = {
        .source = &source, .config = &config, .complaints = complaints};
    const char *run_dir = find_run_dir(&reader);
    if (run_dir == NULL)
        return -EINVAL;
    *ret_run_dir = strdup(run_dir);
    return *ret_run_dir == NULL ? -ENOMEM : 0;
}
