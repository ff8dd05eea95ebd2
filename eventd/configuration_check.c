#include "eventd/configuration_check.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/process_verdict.h"
#include "common/settings_kafka.h"
#include "eventd/cluster_check.h"
#include "eventd/kafka_client.h"
#include "eventd/kafka_options.h"

#define FILE_SUFFIX ".location" /* of a property whose value is a path */

struct check {
    struct process_verdict verdict;
    bool is_refused[SETTINGS_MAX_KAFKA_OPTIONS];
};

/* What is for both clients is refused by both. */
static void on_refused(size_t option, const char *reason, void *userdata)
{
    struct check *check = userdata;
    if (!check->is_refused[option])
        process_verdict_complain(&check->verdict, option + 1, "%s", reason);
    check->is_refused[option] = true;
}

static int try_options(const struct settings *settings, struct check *check)
{
    static const rd_kafka_type_t types[] = {RD_KAFKA_PRODUCER, RD_KAFKA_CONSUMER};
    int result = 0;
    for (size_t i = 0; i < ARRAY_LENGTH(types) && result != -ENOMEM; i++) {
        rd_kafka_conf_t *configuration = rd_kafka_conf_new();
        int refusal = kafka_options_set(settings, types[i], configuration, on_refused, check);
        result = refusal < 0 ? refusal : result;
        rd_kafka_conf_destroy(configuration);
    }
    return result;
}

static bool holds_secret(const struct settings *settings, const char *reason)
{
    for (size_t i = 0; i < settings->kafka_option_count; i++) {
        const struct settings_kafka_option *option = &settings->kafka_options[i];
        if (option->is_secret && *option->value != '\0' && strstr(reason, option->value) != NULL)
            return true;
    }
    return false;
}

/* librdkafka names the property that it speaks of; of two the longer name. 0: none of ours. */
static size_t find_named(const struct settings *settings, const char *reason)
{
    size_t found = 0;
    size_t found_length = 0;
    for (size_t i = 0; i < settings->kafka_option_count; i++) {
        const char *property = settings->kafka_options[i].property;
        if (strlen(property) <= found_length || strstr(reason, property) == NULL)
            continue;
        found = i + 1;
        found_length = strlen(property);
    }
    return found;
}

/* librdkafka's words about a file do not say what is the matter with it. False: it can be read. */
static bool describe_file(const struct settings *settings, size_t named, char *text, size_t size)
{
    if (named == 0)
        return false;
    const struct settings_kafka_option *option = &settings->kafka_options[named - 1];
    const char *end = strrchr(option->property, '.');
    if (option->is_secret || end == NULL || strcmp(end, FILE_SUFFIX) != 0 ||
        access(option->value, R_OK) == 0)
        return false;
    (void)snprintf(text, size, "cannot read %s: %s, expected a file that userd may read",
        option->value, strerror(errno));
    return true;
}

static void complain_of_clients(
    const struct settings *settings, struct check *check, const char *reason)
{
    char text[KAFKA_CLIENT_REASON_SIZE];
    size_t named = find_named(settings, reason);
    if (describe_file(settings, named, text, sizeof(text)))
        reason = text;
    else if (holds_secret(settings, reason))
        reason = "librdkafka refuses it";
    if (named > 0)
        process_verdict_complain(&check->verdict, named, "%s", reason);
    else
        process_verdict_complain(&check->verdict, 0, SETTINGS_KAFKA_OPTIONS ": %s", reason);
}

static void judge(struct settings *settings, struct check *check)
{
    char reason[KAFKA_CLIENT_REASON_SIZE];
    char *servers = strdup(settings->kafka.bootstrap_servers);
    int result = servers == NULL ? -ENOMEM : try_options(settings, check);
    const struct setting_row *row = settings_find("kafka.bootstrap_servers");
    if (result == 0)
        result = settings_set_text(settings, row, "");
    if (result == 0 && kafka_client_try(settings, reason) < 0)
        complain_of_clients(settings, check, reason);
    if (result == 0)
        result = settings_set_text(settings, row, servers);
    if (result == -ENOMEM)
        process_verdict_complain(&check->verdict, 0, SETTINGS_KAFKA_OPTIONS ": out of memory");
    free(servers);
}

int configuration_check(struct process_link *link, bool connects)
{
    struct check check = {0};
    judge(&link->settings, &check);
    if (connects && check.verdict.complaint_count == 0)
        cluster_check(&link->settings, &check.verdict);
    int status = process_verdict_send(&check.verdict, link);
    process_verdict_cleanup(&check.verdict);
    return status;
}
