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
#define REASON_SIZE    400

/* librdkafka's own table of its properties: "NAME | C/P | RANGE | ...", a line each. */
struct property_table {
    char *text; /* owned; cut up into the names */
    size_t count;
    const char *names[PROPERTIES_MAX];
    const char *ranges[PROPERTIES_MAX]; /* "1 .. 1000", "none, gzip"; empty: any text */
    char clients[PROPERTIES_MAX];       /* 'P' producer, 'C' consumer, '*' both */
};

static void property_table_cleanup(struct property_table *table)
{
    free(table->text);
}

/* The text between a bar and the next one; cuts the line off behind it. */
static const char *read_column(char *bar)
{
    if (bar == NULL)
        return "";
    char *text = bar + 1 + strspn(bar + 1, " ");
    char *end = text + strcspn(text, "|\n");
    while (end > text && end[-1] == ' ')
        end--;
    *end = '\0';
    return text;
}

/* Adds nothing when the line is none of a property. */
static void read_line(char *line, struct property_table *table)
{
    size_t length = strcspn(line, " |\n");
    char *bar = strchr(line, '|');
    if (length == 0 || bar == NULL ||
        strspn(line, "abcdefghijklmnopqrstuvwxyz0123456789._") < length)
        return;
    const char *client = bar + 1 + strspn(bar + 1, " ");
    if (strchr("CP*", *client) == NULL || *client == '\0')
        return;
    table->clients[table->count] = *client;
    table->ranges[table->count] = read_column(strchr(bar + 1, '|'));
    line[length] = '\0';
    table->names[table->count] = line;
    table->count++;
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
         line != NULL && ret_table->count < PROPERTIES_MAX; line = strtok_r(NULL, "\n", &rest))
        read_line(line, ret_table);
    return 0;
}

/* A property of the topic as well as of the client stands in the table twice. *ret_range NULL: not
 * at all. */
static bool is_for(const struct property_table *table, const char *property, rd_kafka_type_t type,
    const char **ret_range)
{
    char other = type == RD_KAFKA_PRODUCER ? 'C' : 'P';
    bool is_wanted = false;
    *ret_range = NULL;
    for (size_t i = 0; i < table->count; i++) {
        if (strcmp(table->names[i], property) != 0)
            continue;
        *ret_range = table->ranges[i];
        is_wanted = is_wanted || table->clients[i] != other;
    }
    return is_wanted;
}

static void describe_unknown(
    const struct property_table *table, const char *property, char ret_reason[REASON_SIZE])
{
    char near_name[SETTINGS_KAFKA_NAME_SIZE];
    int nearest = nearest_name_find(property, table->names, table->count);
    if (nearest < 0) {
        (void)snprintf(ret_reason, REASON_SIZE,
            "librdkafka %s has no such property, expected one of its CONFIGURATION.md",
            rd_kafka_version_str());
        return;
    }
    settings_kafka_name(table->names[nearest], near_name, sizeof(near_name));
    (void)snprintf(ret_reason, REASON_SIZE, "librdkafka %s has no such property, did you mean %s?",
        rd_kafka_version_str(), near_name);
}

static int set_option(rd_kafka_conf_t *configuration, const struct settings_kafka_option *option,
    const char *range, char ret_reason[REASON_SIZE])
{
    char said[256] = "";
    if (rd_kafka_conf_set(configuration, option->property, option->value, said, sizeof(said)) ==
        RD_KAFKA_CONF_OK)
        return 0;
    said[strcspn(said, "\n")] = '\0';
    /* librdkafka's reason may quote the value. */
    (void)snprintf(ret_reason, REASON_SIZE, "%s%s%.120s",
        option->is_secret ? "librdkafka does not take the value" : said,
        *range != '\0' ? ", expected " : "", range);
    return -EINVAL;
}

int kafka_options_set(const struct settings *settings, rd_kafka_type_t type,
    rd_kafka_conf_t *configuration, kafka_options_refused *on_refused, void *userdata)
{
    if (settings->kafka_option_count == 0)
        return 0;
    struct property_table table CLEANUP(property_table_cleanup) = {0};
    int result = read_table(&table);
    if (result < 0)
        return result;
    for (size_t i = 0; i < settings->kafka_option_count; i++) {
        const struct settings_kafka_option *option = &settings->kafka_options[i];
        const char *range = NULL;
        char reason[REASON_SIZE];
        bool is_wanted = is_for(&table, option->property, type, &range);
        if (range == NULL)
            describe_unknown(&table, option->property, reason);
        else if (!is_wanted || set_option(configuration, option, range, reason) == 0)
            continue;
        on_refused(i, reason, userdata);
        result = -EINVAL;
    }
    return result;
}

static void log_refusal(size_t index, const char *reason, void *userdata)
{
    const struct settings *settings = userdata;
    const struct settings_kafka_option *option = &settings->kafka_options[index];
    char name[SETTINGS_KAFKA_NAME_SIZE];
    settings_kafka_name(option->property, name, sizeof(name));
    log_error("configuration refused setting=" SETTINGS_KAFKA_OPTIONS ".%s line=%u reason=\"%s\"",
        name, option->line, reason);
}

int kafka_options_apply(
    const struct settings *settings, rd_kafka_type_t type, rd_kafka_conf_t *configuration)
{
    return kafka_options_set(settings, type, configuration, log_refusal, borrow_const(settings));
}
