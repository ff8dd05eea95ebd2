#include "common/settings_kafka.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/settings_environment.h"
#include "common/settings_reader.h"

#define FILE_SUFFIX "_file"
#define TEST_PREFIX "test."
#define PEM_BEGIN   "-----BEGIN"

/* What the promises to the platform stand on, and what has a setting of its own. */
static const struct {
    const char *property;
    const char *why;
} refusals[] = {
    {"enable.idempotence", "events would be doubled or change places when a send is repeated"},
    {"acks", "an event counts as published when all replicas that are in sync have it"},
    {"request.required.acks", "an event counts as published when all replicas that are in sync "
                              "have it"},
    {"max.in.flight", "more than one request in flight can end the idempotent producer"},
    {"max.in.flight.requests.per.connection",
        "more than one request in flight can end the idempotent producer"},
    {"message.timeout.ms", "an event has no deadline: it is sent when Kafka is back"},
    {"delivery.timeout.ms", "an event has no deadline: it is sent when Kafka is back"},
    {"message.send.max.retries", "an event is sent again for as long as it takes"},
    {"retries", "an event is sent again for as long as it takes"},
    {"enable.gapless.guarantee", "a lost event is sent again by the outbox"},
    {"transactional.id", "the outbox sends without Kafka's transactions"},
    {"delivery.report.only.error", "a row of the outbox goes when its delivery is reported"},
    {"partitioner", "a user's events must go where the platform's other producers send them"},
    {"partitioner_cb", "a user's events must go where the platform's other producers send them"},
    {"queuing.strategy", "events of one user must not change places"},
    {"enable.auto.commit", "PostgreSQL holds the position; Kafka is told after the effect"},
    {"auto.commit.enable", "PostgreSQL holds the position; Kafka is told after the effect"},
    {"auto.commit.interval.ms", "PostgreSQL holds the position; Kafka is told after the effect"},
    {"enable.auto.offset.store", "PostgreSQL holds the position; Kafka is told after the effect"},
    {"offset.store.method", "PostgreSQL holds the position; Kafka is told after the effect"},
    {"auto.offset.reset", "a position that is gone must be an alarm, never a silent jump"},
    {"isolation.level", "what a transaction took back must not take effect"},
    {"check.crcs", "a damaged record must not take effect"},
    {"partition.assignment.strategy", "members of the legacy service must be able to join"},
    {"group.instance.id", "two generations of userd overlap during a reload"},
    {"group.protocol", "members of the legacy service must be able to join"},
    {"enable.partition.eof", "its events would be taken for records"},
    {"allow.auto.create.topics", "a missing topic is made or waited for on purpose"},
    {"statistics.interval.ms", "userd reads the statistics itself"},
    {"log.queue", "userd takes the log itself"},
    {"enabled_events", "userd takes the events itself"},
    {"plugin.library.paths", "userd loads no foreign code"},
    {"bootstrap.servers", "kafka.bootstrap_servers is the setting for it"},
    {"metadata.broker.list", "kafka.bootstrap_servers is the setting for it"},
    {"client.id", "kafka.client_id is the setting for it"},
    {"group.id", "kafka.group is the setting for it"},
    {"linger.ms", "kafka.linger_ms is the setting for it"},
    {"queue.buffering.max.ms", "kafka.linger_ms is the setting for it"},
    {"session.timeout.ms", "kafka.session_timeout_ms is the setting for it"},
    {"heartbeat.interval.ms", "it is a third of kafka.session_timeout_ms"},
};

const char *settings_kafka_refusal(const char *property)
{
    for (size_t i = 0; i < ARRAY_LENGTH(refusals); i++) {
        if (strcmp(refusals[i].property, property) == 0)
            return refusals[i].why;
    }
    if (strncmp(property, TEST_PREFIX, strlen(TEST_PREFIX)) == 0)
        return "it is for librdkafka's own tests";
    return NULL;
}

void settings_kafka_name(const char *property, char *target, size_t size)
{
    (void)snprintf(target, size, "%s", property);
    for (char *letter = target; *letter != '\0'; letter++) {
        if (*letter == '.')
            *letter = '_';
    }
}

bool settings_kafka_is_secret(const char *property)
{
    static const char *const marks[] = {"password", "secret", "key.pem", "oauthbearer.config"};
    for (size_t i = 0; i < ARRAY_LENGTH(marks); i++) {
        if (strstr(property, marks[i]) != NULL)
            return true;
    }
    return false;
}

struct option_reader {
    const struct settings_reader *all;
    const config_setting_t *setting; /* the option */
};

#define COMPLAIN(reader, ...) SETTINGS_COMPLAIN((reader)->all, (reader)->setting, __VA_ARGS__)

/* The value as librdkafka wants it; false, with a complaint, when it is none. */
static bool format_value(
    const struct option_reader *reader, char *number, size_t size, const char **ret_value)
{
    const config_setting_t *setting = reader->setting;
    *ret_value = number;
    switch (config_setting_type(setting)) {
    case CONFIG_TYPE_STRING:
        *ret_value = config_setting_get_string(setting);
        return true;
    case CONFIG_TYPE_BOOL:
        *ret_value = config_setting_get_bool(setting) ? "true" : "false";
        return true;
    case CONFIG_TYPE_INT:
        (void)snprintf(number, size, "%d", config_setting_get_int(setting));
        return true;
    case CONFIG_TYPE_INT64:
        (void)snprintf(number, size, "%lld", config_setting_get_int64(setting));
        return true;
    default:
        COMPLAIN(reader,
            SETTINGS_KAFKA_OPTIONS ".%s: has no single value, expected text in double quotes, a "
                                   "whole number, true or false",
            config_setting_name(setting));
        return false;
    }
}

static void add_option(
    const struct option_reader *reader, const char *property, const char *value, bool is_secret)
{
    const char *name = config_setting_name(reader->setting);
    struct settings *settings = reader->all->settings;
    for (size_t i = 0; i < settings->kafka_option_count; i++) {
        if (strcmp(settings->kafka_options[i].property, property) != 0)
            continue;
        COMPLAIN(reader,
            SETTINGS_KAFKA_OPTIONS ".%s: sets %s again, expected it once (first on line %u)", name,
            property, settings->kafka_options[i].line);
        return;
    }
    struct settings_place place = settings_reader_place(reader->all, reader->setting);
    int result =
        settings_add_kafka_option(settings, property, value, is_secret, place.file, place.line);
    if (result < 0)
        COMPLAIN(reader, SETTINGS_KAFKA_OPTIONS ".%s: %s, expected at most %d", name,
            result == -ENOSPC ? "one option too many" : "out of memory",
            SETTINGS_MAX_KAFKA_OPTIONS);
}

/* The credential of sasl.password is "kafka-sasl-password". */
static void name_credential(const char *property, char *target, size_t size)
{
    (void)snprintf(target, size, "kafka-%s", property);
    for (char *letter = target; *letter != '\0'; letter++) {
        if (*letter == '.')
            *letter = '-';
    }
}

static void read_secret(const struct option_reader *reader, const char *property)
{
    const char *name = config_setting_name(reader->setting);
    const char *path = config_setting_get_string(reader->setting);
    if (path == NULL) {
        COMPLAIN(reader, SETTINGS_KAFKA_OPTIONS ".%s: is not a string, expected the path of a file",
            name);
        return;
    }
    char credential[SETTINGS_KAFKA_NAME_SIZE + 8];
    name_credential(property, credential, sizeof(credential));
    struct secret_file file CLEANUP(secret_file_cleanup) = {0};
    int result = secret_file_read(credential, path, &file);
    if (result < 0) {
        COMPLAIN(reader,
            SETTINGS_KAFKA_OPTIONS ".%s: cannot read %s: %s, expected a file, or the systemd "
                                   "credential \"%s\", with the value in it",
            name, file.place == NULL ? "it" : file.place, secret_file_reason(result), credential);
        settings_complaints_note_missing(reader->all->complaints, result);
        return;
    }
    /* A password is a line, a key in PEM form has many. */
    if (strncmp(file.secret, PEM_BEGIN, strlen(PEM_BEGIN)) != 0)
        file.secret[strcspn(file.secret, "\r\n")] = '\0';
    add_option(reader, property, file.secret, true);
    char setting[SETTINGS_KAFKA_NAME_SIZE + 32];
    (void)snprintf(setting, sizeof(setting), SETTINGS_KAFKA_OPTIONS ".%s", name);
    struct settings_place place = settings_reader_place(reader->all, reader->setting);
    settings_environment_warn_of_secret(reader->all, &place, setting, &file);
}

/* A secret in the configuration itself. */
static void warn_of_readable_secret(const struct option_reader *reader)
{
    if (!settings_source_is_world_readable(
            reader->all->source, config_setting_source_line(reader->setting)))
        return;
    struct settings_place place = settings_reader_place(reader->all, reader->setting);
    settings_complaints_add(reader->all->warnings, place.file, place.line,
        SETTINGS_KAFKA_OPTIONS ".%s: is a secret, and everybody can read the file, expected mode "
                               "0640 or less",
        config_setting_name(reader->setting));
}

static void read_option(const struct option_reader *reader)
{
    const char *name = config_setting_name(reader->setting);
    char property[SETTINGS_KAFKA_NAME_SIZE];
    size_t length = strlen(name);
    size_t suffix = strlen(FILE_SUFFIX);
    if (length >= sizeof(property)) {
        COMPLAIN(reader, SETTINGS_KAFKA_OPTIONS ".%s: is too long to be a property", name);
        return;
    }
    bool is_file = length > suffix && strcmp(name + length - suffix, FILE_SUFFIX) == 0;
    (void)snprintf(
        property, sizeof(property), "%.*s", (int)(is_file ? length - suffix : length), name);
    for (char *letter = property; *letter != '\0'; letter++) {
        if (*letter == '_')
            *letter = '.';
    }
    const char *why = settings_kafka_refusal(property);
    if (why != NULL) {
        COMPLAIN(reader, SETTINGS_KAFKA_OPTIONS ".%s: is not to be set: %s", name, why);
        return;
    }
    if (is_file) {
        read_secret(reader, property);
        return;
    }
    char number[24];
    const char *value = NULL;
    if (!format_value(reader, number, sizeof(number), &value))
        return;
    bool is_secret = settings_kafka_is_secret(property);
    add_option(reader, property, value, is_secret);
    if (is_secret)
        warn_of_readable_secret(reader);
}

void settings_kafka_read(const struct settings_reader *all, const config_setting_t *group)
{
    struct option_reader reader = {.all = all, .setting = group};
    if (!config_setting_is_group(group)) {
        COMPLAIN(&reader, SETTINGS_KAFKA_OPTIONS ": is not a group, expected options = { "
                                                 "security_protocol = \"SASL_SSL\"; };");
        return;
    }
    for (int i = 0; i < config_setting_length(group); i++) {
        reader.setting = config_setting_get_elem(group, (unsigned int)i);
        read_option(&reader);
    }
}
