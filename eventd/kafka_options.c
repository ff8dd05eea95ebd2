#include "eventd/kafka_options.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/nearest_name.h"
#include "common/settings_kafka.h"

#define PROPERTIES_MAX 512
#define NAME_SIZE      128

/* librdkafka's own table of its properties: "NAME | C/P | ...", a line each. */
struct property_table {
    char *text; /* owned; cut up into the names */
    size_t count;
    const char *names[PROPERTIES_MAX];
    char clients[PROPERTIES_MAX]; /* 'P' producer, 'C' consumer, '*' both */
};

static void property_table_cleanup(struct property_table *table)
{
    free(table->text);
}

/* False when the line is none of a property. */
static bool read_line(char *line, const char **ret_name, char *ret_client)
{
    size_t length = strcspn(line, " |\n");
    char *bar = strchr(line, '|');
    if (length == 0 || bar == NULL ||
        strspn(line, "abcdefghijklmnopqrstuvwxyz0123456789._") < length)
        return false;
    const char *client = bar + 1 + strspn(bar + 1, " ");
    if (strchr("CP*", *client) == NULL || *client == '\0')
        return false;
    *ret_client = *client;
    line[length] = '\0';
    *ret_name = line;
    return true;
}

static int read_table(struct property_table *ret_table)
{
    size_t size = 0;
    FILE *stream = open_memstream(&ret_table->text, &size);
    if (stream == NULL)
        return -ENOMEM;
    rd_kafka_conf_properties_show(stream);
    if (fclose(stream) != 0)
        return -ENOMEM;
    char *rest = NULL;
    for (char *line = strtok_r(ret_table->text, "\n", &rest);
         line != NULL && ret_table->count < PROPERTIES_MAX; line = strtok_r(NULL, "\n", &rest)) {
        if (read_line(
                line, &ret_table->names[ret_table->count], &ret_table->clients[ret_table->count]))
            ret_table->count++;
    }
    return 0;
}

/* A property of the topic as well as of the client stands in the table twice. */
static bool is_for(
    const struct property_table *table, const char *property, rd_kafka_type_t type, bool *ret_known)
{
    char other = type == RD_KAFKA_PRODUCER ? 'C' : 'P';
    bool is_wanted = false;
    *ret_known = false;
    for (size_t i = 0; i < table->count; i++) {
        if (strcmp(table->names[i], property) != 0)
            continue;
        *ret_known = true;
        is_wanted = is_wanted || table->clients[i] != other;
    }
    return is_wanted;
}

/* The name as it stands in the file. */
static const char *file_name(const char *property, char *target, size_t size)
{
    (void)snprintf(target, size, "%s", property);
    for (char *letter = target; *letter != '\0'; letter++) {
        if (*letter == '.')
            *letter = '_';
    }
    return target;
}

static int refuse_unknown(
    const struct property_table *table, const struct settings_kafka_option *option)
{
    char name[NAME_SIZE];
    char near_name[NAME_SIZE] = "none";
    int nearest = nearest_name_find(option->property, table->names, table->count);
    if (nearest >= 0)
        (void)file_name(table->names[nearest], near_name, sizeof(near_name));
    log_error("configuration refused setting=" SETTINGS_KAFKA_OPTIONS
              ".%s line=%u reason=\"librdkafka %s has no such property\" nearest=%s",
        file_name(option->property, name, sizeof(name)), option->line, rd_kafka_version_str(),
        near_name);
    return -EINVAL;
}

static int set_option(rd_kafka_conf_t *configuration, const struct settings_kafka_option *option)
{
    char reason[256] = "";
    char name[NAME_SIZE];
    if (rd_kafka_conf_set(configuration, option->property, option->value, reason, sizeof(reason)) ==
        RD_KAFKA_CONF_OK)
        return 0;
    /* librdkafka's reason may quote the value. */
    log_error("configuration refused setting=" SETTINGS_KAFKA_OPTIONS ".%s line=%u reason=\"%s\"",
        file_name(option->property, name, sizeof(name)), option->line,
        option->is_secret ? "librdkafka does not take the value" : reason);
    return -EINVAL;
}

int kafka_options_apply(
    const struct settings *settings, rd_kafka_type_t type, rd_kafka_conf_t *configuration)
{
    if (settings->kafka_option_count == 0)
        return 0;
    struct property_table table CLEANUP(property_table_cleanup) = {0};
    int result = read_table(&table);
    for (size_t i = 0; result == 0 && i < settings->kafka_option_count; i++) {
        const struct settings_kafka_option *option = &settings->kafka_options[i];
        bool is_known = false;
        bool is_wanted = is_for(&table, option->property, type, &is_known);
        if (!is_known)
            result = refuse_unknown(&table, option);
        else if (is_wanted)
            result = set_option(configuration, option);
    }
    return result;
}
