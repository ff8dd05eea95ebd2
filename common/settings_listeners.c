#include "common/settings_listeners.h"

#include <errno.h>
#include <string.h>

#include "common/listener_address.h"
#include "common/nearest_name.h"

#define LISTENER_NAME_SIZE 32

static const char *const listener_members[] = {"name", "address", "services"};
static const char *const known_services[] = {"user.User", "user_post.UserPost"};

static const struct {
    const char *name;
    const char *address;
    const char *service;
} standard_listeners[] = {
    {"gateway", "[::]:50053", "user.User"},
    {"post", "[::]:50055", "user_post.UserPost"},
};

static bool is_listener_name(const char *name)
{
    size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-");
    return length > 0 && length < LISTENER_NAME_SIZE && name[length] == '\0';
}

static const char *member_text(
    const struct settings_reader *reader, const config_setting_t *group, const char *member)
{
    const config_setting_t *setting = config_setting_get_member(group, member);
    const char *text = setting == NULL ? NULL : config_setting_get_string(setting);
    if (setting == NULL)
        SETTINGS_COMPLAIN(reader, group,
            "listeners: %s is missing, expected { name = ...; address = ...; services = [ ... ]; }",
            member);
    else if (text == NULL)
        SETTINGS_COMPLAIN(reader, setting,
            "listeners: %s is not a string, expected text in double quotes", member);
    return text;
}

static void read_services(const struct settings_reader *reader, const config_setting_t *group,
    struct settings_listener *listener)
{
    const config_setting_t *services = config_setting_get_member(group, "services");
    if (services == NULL || !config_setting_is_aggregate(services) ||
        config_setting_length(services) == 0) {
        SETTINGS_COMPLAIN(reader, services == NULL ? group : services,
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
            SETTINGS_COMPLAIN(reader, services,
                "listeners: service \"%s\" is not known, expected \"%s\" or \"%s\"",
                service == NULL ? "" : service, known_services[0], known_services[1]);
        else if (settings_listener_add_service(listener, service) < 0)
            SETTINGS_COMPLAIN(reader, services, "listeners: out of memory");
    }
}

static void check_listener_members(
    const struct settings_reader *reader, const config_setting_t *group)
{
    for (int i = 0; i < config_setting_length(group); i++) {
        const config_setting_t *member = config_setting_get_elem(group, (unsigned int)i);
        const char *name = config_setting_name(member);
        if (strcmp(name, "name") == 0 || strcmp(name, "address") == 0 ||
            strcmp(name, "services") == 0)
            continue;
        int nearest = nearest_name_find(name, listener_members, ARRAY_LENGTH(listener_members));
        SETTINGS_COMPLAIN(reader, member, "listeners: unknown member \"%s\", %s \"%s\"%s", name,
            nearest < 0 ? "expected name, address or" : "did you mean",
            nearest < 0 ? "services" : listener_members[nearest], nearest < 0 ? "" : "?");
    }
}

static void read_listener(const struct settings_reader *reader, const config_setting_t *group)
{
    if (!config_setting_is_group(group)) {
        SETTINGS_COMPLAIN(reader, group,
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
        SETTINGS_COMPLAIN(reader, group,
            "listeners: name \"%s\" is not usable, expected 1 to 31 of a-z, 0-9, _ and -", name);
    struct listener_address parsed;
    const char *expected = NULL;
    if (listener_address_parse(address, &parsed, &expected) < 0)
        SETTINGS_COMPLAIN(reader, group, "listeners: address \"%s\" is not usable, expected %s",
            address, expected);
    for (size_t i = 0; i < reader->settings->listener_count; i++) {
        if (strcmp(reader->settings->listeners[i].name, name) == 0)
            SETTINGS_COMPLAIN(reader, group,
                "listeners: name \"%s\" is used twice, expected a name of its own (first on line "
                "%u)",
                name, reader->settings->listeners[i].line);
    }
    struct settings_listener *listener = NULL;
    int result = settings_add_listener(reader->settings, name, address, &listener);
    if (result < 0) {
        SETTINGS_COMPLAIN(reader, group, "listeners: %s, expected at most %d",
            result == -ENOSPC ? "too many" : "out of memory", SETTINGS_MAX_LISTENERS);
        return;
    }
    struct settings_place place = settings_reader_place(reader, group);
    listener->line = place.line;
    listener->file = strdup(place.file);
    if (listener->file == NULL)
        SETTINGS_COMPLAIN(reader, group, "listeners: out of memory");
    read_services(reader, group, listener);
}

void settings_listeners_read(const struct settings_reader *reader, const config_setting_t *setting)
{
    if (!config_setting_is_list(setting) || config_setting_length(setting) == 0) {
        SETTINGS_COMPLAIN(reader, setting,
            "listeners: is not a list of listeners, expected ( { ... }, { ... } )");
        return;
    }
    for (int i = 0; i < config_setting_length(setting); i++)
        read_listener(reader, config_setting_get_elem(setting, (unsigned int)i));
}

void settings_listeners_add_standard(const struct settings_reader *reader)
{
    for (size_t i = 0; i < ARRAY_LENGTH(standard_listeners); i++) {
        struct settings_listener *listener = NULL;
        int result = settings_add_listener(
            reader->settings, standard_listeners[i].name, standard_listeners[i].address, &listener);
        if (result == 0)
            result = settings_listener_add_service(listener, standard_listeners[i].service);
        if (result < 0)
            settings_complaints_add(
                reader->complaints, reader->source->files[0].path, 0, "listeners: out of memory");
    }
}
