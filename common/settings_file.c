#include "common/settings_file.h"

#include <ctype.h>
#include <errno.h>
#include <libconfig.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/nearest_name.h"
#include "common/settings_environment.h"
#include "common/settings_kafka.h"

#define LISTENERS          "listeners"
#define PATH_SIZE          256
#define NAMES_MAX          128
#define LISTENER_NAME_SIZE 32

static const char *const listener_members[] = {"name", "address", "services"};
static const char *const known_services[] = {"user.User", "user_post.UserPost"};

static const struct {
    const char *name;
    const char *address;
    const char *service;
} default_listeners[] = {
    {"gateway", "[::]:50053", "user.User"},
    {"post", "[::]:50055", "user_post.UserPost"},
};

struct reader {
    const char *path; /* of the file, as the operator named it */
    struct settings *settings;
    struct settings_complaints *complaints;
};

#define COMPLAIN(reader, setting, ...)                                          \
    settings_complaints_add((reader)->complaints, file_of((reader), (setting)), \
        (unsigned int)config_setting_source_line(setting), __VA_ARGS__)

/* An @include'd file is named itself. */
static const char *file_of(const struct reader *reader, const config_setting_t *setting)
{
    const char *file = config_setting_source_file(setting);
    return file == NULL ? reader->path : file;
}

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
    names[count++] = LISTENERS;
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
    const struct reader *reader, const config_setting_t *setting, const char *name)
{
    const char *names[NAMES_MAX];
    static char storage[NAMES_MAX][PATH_SIZE];
    size_t count = collect_names(names, storage);
    int nearest = nearest_name_find(name, names, count);
    if (nearest >= 0)
        COMPLAIN(
            reader, setting, "%s: unknown setting, did you mean \"%s\"?", name, names[nearest]);
    else
        COMPLAIN(reader, setting,
            "%s: unknown setting, expected one of those in the commented userd.conf", name);
}

static void describe_choices(const struct setting_row *row, char *target, size_t size)
{
    size_t used = 0;
    target[0] = '\0';
    for (size_t i = 0; row->choices[i] != NULL && used < size; i++)
        used += (size_t)snprintf(
            target + used, size - used, "%s\"%s\"", i == 0 ? "" : ", ", row->choices[i]);
}

static void read_integer(
    const struct reader *reader, const config_setting_t *setting, const struct setting_row *row)
{
    int type = config_setting_type(setting);
    if (type != CONFIG_TYPE_INT && type != CONFIG_TYPE_INT64) {
        COMPLAIN(reader, setting, "%s: is not a whole number, expected %d to %d", row->name,
            row->minimum, row->maximum);
        return;
    }
    long long value = type == CONFIG_TYPE_INT ? config_setting_get_int(setting)
                                              : config_setting_get_int64(setting);
    if (value < row->minimum || value > row->maximum)
        COMPLAIN(reader, setting, "%s: %lld is out of bounds, expected %d to %d", row->name, value,
            row->minimum, row->maximum);
    else
        *settings_integer(reader->settings, row) = (int)value;
}

static void read_boolean(
    const struct reader *reader, const config_setting_t *setting, const struct setting_row *row)
{
    if (config_setting_type(setting) != CONFIG_TYPE_BOOL)
        COMPLAIN(reader, setting, "%s: is not a boolean, expected true or false", row->name);
    else
        *settings_integer(reader->settings, row) = config_setting_get_bool(setting);
}

static void read_text(
    const struct reader *reader, const config_setting_t *setting, const struct setting_row *row)
{
    const char *text = config_setting_get_string(setting);
    if (text == NULL)
        COMPLAIN(reader, setting, "%s: is not a string, expected text in double quotes", row->name);
    else if (*text == '\0' && *row->default_text != '\0')
        COMPLAIN(reader, setting, "%s: is empty, expected text such as \"%s\"", row->name,
            row->default_text);
    else if (settings_set_text(reader->settings, row, text) < 0)
        COMPLAIN(reader, setting, "%s: out of memory", row->name);
}

static void read_choice(
    const struct reader *reader, const config_setting_t *setting, const struct setting_row *row)
{
    char choices[PATH_SIZE];
    describe_choices(row, choices, sizeof(choices));
    const char *text = config_setting_get_string(setting);
    for (int i = 0; text != NULL && row->choices[i] != NULL; i++) {
        if (strcmp(text, row->choices[i]) == 0) {
            *settings_integer(reader->settings, row) = i;
            return;
        }
    }
    COMPLAIN(reader, setting, "%s: \"%s\" is not known, expected one of %s", row->name,
        text == NULL ? "" : text, choices);
}

static void read_value(
    const struct reader *reader, const config_setting_t *setting, const struct setting_row *row)
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

/* ---- listeners ---- */

static bool is_listener_name(const char *name)
{
    size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-");
    return length > 0 && length < LISTENER_NAME_SIZE && name[length] == '\0';
}

/* "host:port", "[v6]:port" or "unix:/path": the master finds out whether it can be bound. */
static bool is_address(const char *address)
{
    if (strncmp(address, "unix:", strlen("unix:")) == 0)
        return address[strlen("unix:")] == '/';
    const char *colon = strrchr(address, ':');
    if (colon == NULL || colon == address)
        return false;
    char *end = NULL;
    long port = strtol(colon + 1, &end, 10);
    if (!isdigit((unsigned char)colon[1]) || *end != '\0' || port > UINT16_MAX)
        return false;
    bool has_brackets = *address == '[' && colon[-1] == ']';
    return has_brackets || memchr(address, ':', (size_t)(colon - address)) == NULL;
}

static const char *member_text(
    const struct reader *reader, const config_setting_t *group, const char *member)
{
    const config_setting_t *setting = config_setting_get_member(group, member);
    const char *text = setting == NULL ? NULL : config_setting_get_string(setting);
    if (setting == NULL)
        COMPLAIN(reader, group,
            "listeners: %s is missing, expected { name = ...; address = ...; services = [ ... ]; }",
            member);
    else if (text == NULL)
        COMPLAIN(reader, setting, "listeners: %s is not a string, expected text in double quotes",
            member);
    return text;
}

static void read_services(
    const struct reader *reader, const config_setting_t *group, struct settings_listener *listener)
{
    const config_setting_t *services = config_setting_get_member(group, "services");
    if (services == NULL || !config_setting_is_aggregate(services) ||
        config_setting_length(services) == 0) {
        COMPLAIN(reader, services == NULL ? group : services,
            "listeners: services of \"%s\" are missing, expected a list such as [ \"user.User\" ]",
            listener->name);
        return;
    }
    for (int i = 0; i < config_setting_length(services); i++) {
        const char *service = config_setting_get_string_elem(services, i);
        bool is_known = false;
        for (size_t j = 0; service != NULL && j < ARRAY_LENGTH(known_services); j++)
            is_known = is_known || strcmp(service, known_services[j]) == 0;
        if (!is_known)
            COMPLAIN(reader, services,
                "listeners: service \"%s\" is not known, expected \"%s\" or \"%s\"",
                service == NULL ? "" : service, known_services[0], known_services[1]);
        else if (settings_listener_add_service(listener, service) < 0)
            COMPLAIN(reader, services, "listeners: out of memory");
    }
}

static void check_listener_members(const struct reader *reader, const config_setting_t *group)
{
    for (int i = 0; i < config_setting_length(group); i++) {
        const config_setting_t *member = config_setting_get_elem(group, (unsigned int)i);
        const char *name = config_setting_name(member);
        if (strcmp(name, "name") == 0 || strcmp(name, "address") == 0 ||
            strcmp(name, "services") == 0)
            continue;
        int nearest = nearest_name_find(name, listener_members, ARRAY_LENGTH(listener_members));
        COMPLAIN(reader, member, "listeners: unknown member \"%s\", %s \"%s\"%s", name,
            nearest < 0 ? "expected name, address or" : "did you mean",
            nearest < 0 ? "services" : listener_members[nearest], nearest < 0 ? "" : "?");
    }
}

static void read_listener(const struct reader *reader, const config_setting_t *group)
{
    if (!config_setting_is_group(group)) {
        COMPLAIN(reader, group,
            "listeners: is not a group, expected { name = ...; address = ...; services = [ ... ]; "
            "}");
        return;
    }
    check_listener_members(reader, group);
    const char *name = member_text(reader, group, "name");
    const char *address = member_text(reader, group, "address");
    if (name == NULL || address == NULL)
        return;
    if (!is_listener_name(name))
        COMPLAIN(reader, group,
            "listeners: name \"%s\" is not usable, expected 1 to 31 of a-z, 0-9, _ and -", name);
    if (!is_address(address))
        COMPLAIN(reader, group,
            "listeners: address \"%s\" is not usable, expected \"[::]:50053\", \"127.0.0.1:50053\" "
            "or "
            "\"unix:/path\"",
            address);
    for (size_t i = 0; i < reader->settings->listener_count; i++) {
        if (strcmp(reader->settings->listeners[i].name, name) == 0)
            COMPLAIN(reader, group,
                "listeners: name \"%s\" is used twice, expected a name of its own (first on line "
                "%u)",
                name, reader->settings->listeners[i].line);
    }
    struct settings_listener *listener = NULL;
    int result = settings_add_listener(reader->settings, name, address, &listener);
    if (result < 0) {
        COMPLAIN(reader, group, "listeners: %s, expected at most %d",
            result == -ENOSPC ? "too many" : "out of memory", SETTINGS_MAX_LISTENERS);
        return;
    }
    listener->line = (unsigned int)config_setting_source_line(group);
    read_services(reader, group, listener);
}

static void read_listeners(const struct reader *reader, const config_setting_t *setting)
{
    if (!config_setting_is_list(setting) || config_setting_length(setting) == 0) {
        COMPLAIN(reader, setting,
            "listeners: is not a list of listeners, expected ( { ... }, { ... } )");
        return;
    }
    for (int i = 0; i < config_setting_length(setting); i++)
        read_listener(reader, config_setting_get_elem(setting, (unsigned int)i));
}

/* ---- the whole file ---- */

static void read_group(const struct reader *reader, const config_setting_t *group);

static void read_setting(const struct reader *reader, const config_setting_t *setting)
{
    char name[PATH_SIZE];
    full_name(setting, name, sizeof(name));
    const struct setting_row *row = settings_find(name);
    if (row != NULL)
        read_value(reader, setting, row);
    else if (strcmp(name, LISTENERS) == 0)
        read_listeners(reader, setting);
    else if (strcmp(name, SETTINGS_KAFKA_OPTIONS) == 0)
        settings_kafka_read(
            reader->settings, setting, file_of(reader, setting), reader->complaints);
    else if (is_group_name(name) && config_setting_is_group(setting))
        read_group(reader, setting);
    else if (is_group_name(name))
        COMPLAIN(reader, setting, "%s: is not a group, expected %s = { ... };", name, name);
    else
        complain_unknown(reader, setting, name);
}

static void read_group(const struct reader *reader, const config_setting_t *group)
{
    for (int i = 0; i < config_setting_length(group); i++)
        read_setting(reader, config_setting_get_elem(group, (unsigned int)i));
}

static void add_default_listeners(const struct reader *reader)
{
    for (size_t i = 0; i < ARRAY_LENGTH(default_listeners); i++) {
        struct settings_listener *listener = NULL;
        int result = settings_add_listener(
            reader->settings, default_listeners[i].name, default_listeners[i].address, &listener);
        if (result == 0)
            result = settings_listener_add_service(listener, default_listeners[i].service);
        if (result < 0)
            settings_complaints_add(
                reader->complaints, reader->path, 0, "listeners: out of memory");
    }
}

static unsigned int line_of(const config_t *config, const char *name)
{
    const config_setting_t *setting = config_lookup(config, name);
    return setting == NULL ? 0 : (unsigned int)config_setting_source_line(setting);
}

static void complete(const struct reader *reader, const config_t *config)
{
    struct settings *settings = reader->settings;
    if (config_lookup(config, LISTENERS) == NULL)
        add_default_listeners(reader);
    if (*settings->run_dir != '/')
        settings_complaints_add(reader->complaints, reader->path, line_of(config, "run_dir"),
            "run_dir: \"%s\" is not absolute, expected a path that begins with /",
            settings->run_dir);
    settings_environment_apply(settings, reader->complaints);
    settings_environment_complete_url(settings, reader->path, line_of(config, "database.url"),
        line_of(config, "database.password_file"), reader->complaints);
}

static int parse(const char *path, config_t *config, struct settings_complaints *complaints)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        int error = errno;
        settings_complaints_add(complaints, path, 0,
            "cannot be opened: %s, expected a configuration file", strerror(error));
        return -error;
    }
    int is_parsed = config_read(config, file);
    (void)fclose(file);
    if (is_parsed)
        return 0;
    const char *where = config_error_file(config);
    settings_complaints_add(complaints, where == NULL ? path : where,
        (unsigned int)config_error_line(config), "%s, expected settings such as: workers = 2;",
        config_error_text(config) == NULL ? "cannot be read" : config_error_text(config));
    return -EINVAL;
}

int settings_file_read(
    const char *path, struct settings *ret_settings, struct settings_complaints *complaints)
{
    struct settings settings CLEANUP(settings_cleanup) = {0};
    int result = settings_init(&settings);
    if (result < 0)
        return result;
    config_t config CLEANUP(config_destroy);
    config_init(&config);
    result = parse(path, &config, complaints);
    if (result < 0)
        return result;
    struct reader reader = {.path = path, .settings = &settings, .complaints = complaints};
    read_group(&reader, config_root_setting(&config));
    complete(&reader, &config);
    if (complaints->count > 0)
        return -EINVAL;
    *ret_settings = settings;
    memset(&settings, 0, sizeof(settings));
    return 0;
}
