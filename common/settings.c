#include "common/settings.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KIB 1024
#define MIB (1024 * 1024)

#define MASTER SETTING_FOR_MASTER
#define WORKER SETTING_FOR_WORKER
#define EVENTD SETTING_FOR_EVENTD
#define EVERY  (SETTING_FOR_MASTER | SETTING_FOR_WORKER | SETTING_FOR_EVENTD)

#define CHOICES_SIZE   256
#define MEMBER(member) offsetof(struct settings, member)
#define INTEGER(setting, member, audiences, standard, least, most)                   \
    {                                                                                \
        .name = (setting), .type = SETTING_INTEGER, .audience = (audiences),         \
        .offset = MEMBER(member), .default_integer = (standard), .minimum = (least), \
        .maximum = (most)                                                            \
    }
#define BOOLEAN(setting, member, audiences, standard)                                       \
    {                                                                                       \
        .name = (setting), .type = SETTING_BOOLEAN, .audience = (audiences),                \
        .offset = MEMBER(member), .default_integer = (standard), .minimum = 0, .maximum = 1 \
    }
#define STRING(setting, member, audiences, standard)                        \
    {                                                                       \
        .name = (setting), .type = SETTING_STRING, .audience = (audiences), \
        .offset = MEMBER(member), .default_text = (standard)                \
    }
#define SECRET(setting, member, audiences, standard)                            \
    {                                                                           \
        .name = (setting), .type = SETTING_STRING, .audience = (audiences),     \
        .offset = MEMBER(member), .default_text = (standard), .is_secret = true \
    }
#define CHOICE(setting, member, audiences, standard, names)                    \
    {                                                                          \
        .name = (setting), .type = SETTING_CHOICE, .audience = (audiences),    \
        .offset = MEMBER(member), .default_integer = (standard), .minimum = 0, \
        .maximum = (int)ARRAY_LENGTH(names) - 2, .choices = (names)            \
    }

static const char *const core_bridge_names[] = {"auto", "off", NULL};
static const char *const level_names[] = {"error", "warn", "info", "debug", NULL};
static const char *const format_names[] = {"text", "json", NULL};

static const struct setting_row table[] = {
    INTEGER("workers", workers, MASTER, 0, 0, SETTINGS_MAX_WORKERS),
    STRING("run_dir", run_dir, MASTER, "/run/userd"),
    CHOICE("core_bridge", core_bridge, WORKER, CORE_BRIDGE_AUTO, core_bridge_names),
    INTEGER("busy_poll_us", busy_poll_us, WORKER, 0, 0, 10000),
    BOOLEAN("reflection", reflection, WORKER, true),

    SECRET("database.url", database.url, WORKER, "postgresql://userd@127.0.0.1/user_db"),
    STRING("database.password_file", database.password_file, MASTER, ""),
    INTEGER("database.connections", database.connections, WORKER, 2, 1, 64),
    INTEGER("database.connect_timeout_ms", database.connect_timeout_ms, WORKER, 5000, 100, 600000),
    INTEGER(
        "database.statement_timeout_ms", database.statement_timeout_ms, WORKER, 5000, 100, 600000),

    STRING("kafka.bootstrap_servers", kafka.bootstrap_servers, EVENTD, "127.0.0.1:9092"),
    STRING("kafka.group", kafka.group, EVENTD, "user_service"),
    STRING("kafka.client_id", kafka.client_id, EVENTD, "userd"),
    STRING("kafka.registration_topic", kafka.registration_topic, EVENTD, "registration"),
    STRING("kafka.admin_delete_topic", kafka.admin_delete_topic, EVENTD, "admin_delete_user"),
    STRING("kafka.delete_topic", kafka.delete_topic, EVENTD, "delete"),
    STRING("kafka.dead_letter_topic", kafka.dead_letter_topic, EVENTD, "user_service.dead_letter"),
    BOOLEAN("kafka.create_topics", kafka.create_topics, EVENTD, true),
    INTEGER("kafka.topic_partitions", kafka.topic_partitions, EVENTD, 3, 1, 1000),
    INTEGER("kafka.topic_replication", kafka.topic_replication, EVENTD, 1, 1, 15),
    INTEGER("kafka.linger_ms", kafka.linger_ms, EVENTD, 1, 0, 1000),
    INTEGER("kafka.session_timeout_ms", kafka.session_timeout_ms, EVENTD, 30000, 3500, 600000),
    INTEGER("kafka.batch_records", kafka.batch_records, EVENTD, 1000, 1, 10000),

    BOOLEAN("events.allow_reregistration", events.allow_reregistration, WORKER, false),

    INTEGER("limits.message_bytes", limits.message_bytes, WORKER, 4 * MIB, KIB, 64 * MIB),
    INTEGER("limits.event_bytes", limits.event_bytes, EVENTD, 64 * KIB, KIB, MIB),
    INTEGER("limits.queued_calls", limits.queued_calls, WORKER, 10000, 1, 1000000),
    INTEGER("limits.held_megabytes", limits.held_megabytes, WORKER, 64, 8, 65536),
    INTEGER("limits.unread_timeout_ms", limits.unread_timeout_ms, WORKER, 15000, 100, 3600000),
    INTEGER("limits.cancels_per_second", limits.cancels_per_second, WORKER, 5000, 0, 10000000),
    INTEGER("limits.one_way_bytes", limits.one_way_bytes, WORKER, 256 * KIB, 0, 1024 * MIB),
    INTEGER("limits.streams_per_connection", limits.streams_per_connection, WORKER, 100, 1, 100000),
    INTEGER("limits.open_requests", limits.open_requests, WORKER, 4000, 64, 1000000),
    INTEGER("limits.request_timeout_ms", limits.request_timeout_ms, WORKER, 30000, 0, 3600000),
    INTEGER("limits.settings_per_second", limits.settings_per_second, WORKER, 100, 0, 1000000),
    INTEGER("limits.connections", limits.connections, MASTER | WORKER, 10000, 1, 1000000),
    INTEGER(
        "limits.connections_per_address", limits.connections_per_address, MASTER, 1000, 1, 1000000),
    INTEGER("limits.connection_rate_per_address", limits.connection_rate_per_address, MASTER, 1000,
        0, 1000000),
    INTEGER("limits.cancel_rate_per_address", limits.cancel_rate_per_address, WORKER, 5000, 0,
        10000000),
    INTEGER("limits.ban_seconds", limits.ban_seconds, MASTER, 1, 0, 3600),
    INTEGER("limits.ban_max_seconds", limits.ban_max_seconds, MASTER, 300, 1, 86400),
    INTEGER("limits.reserved_percent", limits.reserved_percent, MASTER, 10, 0, 90),
    INTEGER("limits.idle_timeout_ms", limits.idle_timeout_ms, WORKER, 3600000, 0, 86400000),
    INTEGER("limits.idle_shortage_timeout_ms", limits.idle_shortage_timeout_ms, WORKER, 30000, 100,
        86400000),
    STRING("limits.exempt_addresses", limits.exempt_addresses, MASTER | WORKER, ""),
    INTEGER("limits.connection_age_ms", limits.connection_age_ms, WORKER, 0, 0, 86400000),
    INTEGER("limits.handshake_timeout_ms", limits.handshake_timeout_ms, WORKER, 10000, 100, 600000),

    INTEGER(
        "shutdown.drain_timeout_ms", shutdown.drain_timeout_ms, MASTER | WORKER, 30000, 0, 3600000),

    INTEGER(
        "supervision.hang_timeout_ms", supervision.hang_timeout_ms, MASTER, 10000, 3000, 3600000),

    CHOICE("log.level", log.level, EVERY, LOG_LEVEL_INFO, level_names),
    CHOICE("log.format", log.format, EVERY, LOG_FORMAT_TEXT, format_names),
};

const struct setting_row *settings_table(size_t *ret_count)
{
    *ret_count = ARRAY_LENGTH(table);
    return table;
}

const struct setting_row *settings_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
        if (strcmp(table[i].name, name) == 0)
            return &table[i];
    }
    return NULL;
}

static char **text_place(struct settings *settings, const struct setting_row *row)
{
    return (char **)(void *)((char *)settings + row->offset);
}

int *settings_integer(struct settings *settings, const struct setting_row *row)
{
    return (int *)(void *)((char *)settings + row->offset);
}

const int *settings_integer_const(const struct settings *settings, const struct setting_row *row)
{
    return (const int *)(const void *)((const char *)settings + row->offset);
}

const char *settings_text(const struct settings *settings, const struct setting_row *row)
{
    return *(char *const *)(const void *)((const char *)settings + row->offset);
}

static void wipe_text(char **text)
{
    if (*text != NULL)
        explicit_bzero(*text, strlen(*text));
    free(*text);
    *text = NULL;
}

int settings_set_text(struct settings *settings, const struct setting_row *row, const char *text)
{
    char *copy = strdup(text);
    if (copy == NULL)
        return -ENOMEM;
    wipe_text(text_place(settings, row));
    *text_place(settings, row) = copy;
    return 0;
}

int settings_init(struct settings *settings)
{
    memset(settings, 0, sizeof(*settings));
    for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
        if (table[i].type != SETTING_STRING) {
            *settings_integer(settings, &table[i]) = table[i].default_integer;
            continue;
        }
        if (settings_set_text(settings, &table[i], table[i].default_text) < 0) {
            settings_cleanup(settings);
            return -ENOMEM;
        }
    }
    return 0;
}

static void cleanup_listener(struct settings_listener *listener)
{
    for (size_t i = 0; i < listener->service_count; i++)
        free(listener->services[i]);
    free(listener->services);
    free(listener->name);
    free(listener->address);
    free(listener->file);
}

static void cleanup_kafka_option(struct settings_kafka_option *option)
{
    wipe_text(&option->value);
    free(option->property);
    free(option->file);
}

void settings_cleanup(struct settings *settings)
{
    for (size_t i = 0; i < ARRAY_LENGTH(table); i++) {
        if (table[i].type == SETTING_STRING)
            wipe_text(text_place(settings, &table[i]));
    }
    free(settings->database.url_place);
    for (size_t i = 0; i < settings->listener_count; i++)
        cleanup_listener(&settings->listeners[i]);
    for (size_t i = 0; i < settings->kafka_option_count; i++)
        cleanup_kafka_option(&settings->kafka_options[i]);
    memset(settings, 0, sizeof(*settings));
}

int settings_add_listener(struct settings *settings, const char *name, const char *address,
    struct settings_listener **ret_listener)
{
    if (settings->listener_count >= SETTINGS_MAX_LISTENERS)
        return -ENOSPC;
    struct settings_listener listener = {.name = strdup(name), .address = strdup(address)};
    if (listener.name == NULL || listener.address == NULL) {
        cleanup_listener(&listener);
        return -ENOMEM;
    }
    *ret_listener = &settings->listeners[settings->listener_count++];
    **ret_listener = listener;
    return 0;
}

int settings_listener_add_service(struct settings_listener *listener, const char *service)
{
    char **services =
        reallocarray(listener->services, listener->service_count + 1, sizeof(*services));
    if (services == NULL)
        return -ENOMEM;
    listener->services = services;
    services[listener->service_count] = strdup(service);
    if (services[listener->service_count] == NULL)
        return -ENOMEM;
    listener->service_count++;
    return 0;
}

int settings_add_kafka_option(struct settings *settings, const char *property, const char *value,
    bool is_secret, const char *file, unsigned int line)
{
    if (settings->kafka_option_count >= SETTINGS_MAX_KAFKA_OPTIONS)
        return -ENOSPC;
    struct settings_kafka_option option = {
        .property = strdup(property),
        .value = strdup(value),
        .is_secret = is_secret,
        .file = file == NULL ? NULL : strdup(file),
        .line = line,
    };
    if (option.property == NULL || option.value == NULL || (file != NULL && option.file == NULL)) {
        cleanup_kafka_option(&option);
        return -ENOMEM;
    }
    settings->kafka_options[settings->kafka_option_count++] = option;
    return 0;
}

unsigned int settings_worker_count(const struct settings *settings)
{
    if (settings->workers > 0)
        return (unsigned int)settings->workers;
    cpu_set_t cores;
    int count = sched_getaffinity(0, sizeof(cores), &cores) == 0 ? CPU_COUNT(&cores) : 1;
    return count > SETTINGS_MAX_WORKERS ? SETTINGS_MAX_WORKERS : (unsigned int)count;
}

static void describe_choices(const struct setting_row *row, char *target, size_t size)
{
    size_t used = 0;
    target[0] = '\0';
    for (size_t i = 0; row->choices[i] != NULL && used < size; i++)
        used += (size_t)snprintf(
            target + used, size - used, "%s\"%s\"", i == 0 ? "" : ", ", row->choices[i]);
}

bool settings_set_choice(struct settings *settings, const struct setting_row *row, const char *name,
    char *ret_reason, size_t reason_size)
{
    for (int i = 0; name != NULL && row->choices[i] != NULL; i++) {
        if (strcmp(name, row->choices[i]) == 0) {
            *settings_integer(settings, row) = i;
            return true;
        }
    }
    char choices[CHOICES_SIZE];
    describe_choices(row, choices, sizeof(choices));
    (void)snprintf(ret_reason, reason_size, "\"%s\" is not known, expected one of %s",
        name == NULL ? "" : name, choices);
    return false;
}
