#include "master/command_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "common/database_url.h"
#include "common/printable.h"
#include "common/settings.h"
#include "common/settings_kafka.h"
#include "master/command_options.h"
#include "master/settings_check.h"

#define DATABASE_URL_SETTING "database.url"
#define REDACTED             "***"
#define KAFKA_GROUP          "kafka"

/* A libconfig string: its escapes are those of C that are written here. */
static void print_string(const char *text)
{
    (void)putchar('"');
    while (*text != '\0') {
        size_t length = printable_length(text);
        if (length == 0)
            (void)printf("\\x%02x", (unsigned int)(unsigned char)*text);
        else if (*text == '"' || *text == '\\')
            (void)printf("\\%c", *text);
        else
            (void)printf("%.*s", (int)length, text);
        text += length > 0 ? length : 1;
    }
    (void)putchar('"');
}

static void print_secret(const struct setting_row *row, const char *text)
{
    char *redacted = NULL;
    if (strcmp(row->name, DATABASE_URL_SETTING) == 0)
        redacted = database_url_redact(text);
    print_string(redacted != NULL ? redacted : REDACTED);
    free(redacted);
}

static void print_text(const struct settings *settings, const struct setting_row *row)
{
    const char *text = settings_text(settings, row);
    if (text == NULL)
        text = "";
    if (row->is_secret)
        print_secret(row, text);
    else
        print_string(text);
}

static void print_value(struct settings *settings, const struct setting_row *row)
{
    switch (row->type) {
    case SETTING_INTEGER:
        (void)printf("%d", *settings_integer(settings, row));
        break;
    case SETTING_BOOLEAN:
        (void)printf("%s", *settings_integer(settings, row) != 0 ? "true" : "false");
        break;
    case SETTING_STRING:
        print_text(settings, row);
        break;
    case SETTING_CHOICE:
        print_string(row->choices[*settings_integer(settings, row)]);
        break;
    }
}

static void print_listeners(const struct settings *settings)
{
    (void)printf("listeners = (");
    for (size_t i = 0; i < settings->listener_count; i++) {
        const struct settings_listener *listener = &settings->listeners[i];
        (void)printf("%s\n  { name = ", i == 0 ? "" : ",");
        print_string(listener->name);
        (void)printf("; address = ");
        print_string(listener->address);
        (void)printf("; services = [ ");
        for (size_t j = 0; j < listener->service_count; j++) {
            (void)printf("%s", j == 0 ? "" : ", ");
            print_string(listener->services[j]);
        }
        (void)printf(" ]; }");
    }
    (void)printf("\n);\n");
}

/* As they stand in the file, where names hold no dots. */
static void print_kafka_options(const struct settings *settings)
{
    (void)printf("  options = {%s", settings->kafka_option_count > 0 ? "\n" : " ");
    for (size_t i = 0; i < settings->kafka_option_count; i++) {
        const struct settings_kafka_option *option = &settings->kafka_options[i];
        char name[SETTINGS_KAFKA_NAME_SIZE];
        settings_kafka_name(option->property, name, sizeof(name));
        (void)printf("    %s = ", name);
        print_string(option->is_secret ? REDACTED : option->value);
        (void)printf(";\n");
    }
    (void)printf("%s};\n", settings->kafka_option_count > 0 ? "  " : "");
}

static size_t group_length(const struct setting_row *row)
{
    const char *dot = strchr(row->name, '.');
    return dot == NULL ? 0 : (size_t)(dot - row->name);
}

static bool is_same_group(const struct setting_row *left, const struct setting_row *right)
{
    size_t length = group_length(left);
    return length == group_length(right) && strncmp(left->name, right->name, length) == 0;
}

static bool is_first_of_group(const struct setting_row *table, size_t index)
{
    for (size_t i = 0; i < index; i++)
        if (is_same_group(&table[i], &table[index]))
            return false;
    return true;
}

static void print_group(
    struct settings *settings, const struct setting_row *table, size_t count, size_t first)
{
    size_t length = group_length(&table[first]);
    const char *indent = length > 0 ? "  " : "";
    if (length > 0)
        (void)printf("%.*s = {\n", (int)length, table[first].name);
    for (size_t i = first; i < count; i++) {
        if (!is_same_group(&table[i], &table[first]))
            continue;
        (void)printf("%s%s = ", indent, table[i].name + (length > 0 ? length + 1 : 0));
        print_value(settings, &table[i]);
        (void)printf(";\n");
    }
    if (length == strlen(KAFKA_GROUP) && strncmp(table[first].name, KAFKA_GROUP, length) == 0)
        print_kafka_options(settings);
    if (length > 0)
        (void)printf("};\n");
}

static void print_settings(struct settings *settings)
{
    size_t count = 0;
    const struct setting_row *table = settings_table(&count);
    for (size_t i = 0; i < count; i++)
        if (is_first_of_group(table, i))
            print_group(settings, table, count, i);
    print_listeners(settings);
}

/* Each finding a line on standard output, each complaint one on standard error. */
static int try_connections(const char *file, const struct settings *settings)
{
    struct settings_complaints complaints = {0};
    struct settings_complaints findings = {0};
    int result = settings_check_run(file, settings, true, &complaints, &findings);
    if (findings.text != NULL)
        (void)printf("%s\n", findings.text);
    if (result < 0) {
        (void)fflush(stdout);
        (void)fprintf(
            stderr, "%s\n", complaints.text != NULL ? complaints.text : strerror(-result));
    }
    settings_complaints_cleanup(&complaints);
    settings_complaints_cleanup(&findings);
    return result < 0 ? EX_UNAVAILABLE : EX_OK;
}

int command_check(int argc, char **argv)
{
    struct command_options options;
    int status = command_options_parse(argc, argv, COMMAND_CHECK_USAGE, &options);
    if (status != EX_OK)
        return status;
    if (options.has_migrate || options.has_all || options.has_json || options.word_count > 0)
        return command_options_refuse(COMMAND_CHECK_USAGE, "check takes the file and nothing else");

    struct settings settings;
    status = command_options_read_settings(options.file, &settings);
    if (status != EX_OK)
        return status;
    status = command_options_check_children(options.file, &settings);
    if (status == EX_OK && options.has_connect)
        status = try_connections(options.file, &settings);
    else if (status == EX_OK)
        print_settings(&settings);
    settings_cleanup(&settings);
    if (status != EX_OK)
        return status;
    return fflush(stdout) == 0 && !ferror(stdout) ? EX_OK : EX_IOERR;
}
