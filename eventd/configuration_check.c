#include "eventd/configuration_check.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "eventd/kafka_client.h"
#include "eventd/kafka_options.h"

#define FILE_SUFFIX    ".location"                      /* of a property whose value is a path */
#define COMPLAINTS_MAX (SETTINGS_MAX_KAFKA_OPTIONS + 1) /* one for each, and one for the whole */

struct verdict {
    Userd__Ipc__Verdict body;
    Userd__Ipc__Complaint complaints[COMPLAINTS_MAX];
    Userd__Ipc__Complaint *pointers[COMPLAINTS_MAX];
    bool is_refused[SETTINGS_MAX_KAFKA_OPTIONS];
};

static void verdict_cleanup(struct verdict *verdict)
{
    for (size_t i = 0; i < verdict->body.n_complaints; i++)
        free(verdict->complaints[i].text);
}

/* `option`: 0 for none in particular. */
static void complain(struct verdict *verdict, size_t option, const char *text)
{
    char *copy = strdup(text);
    if (copy == NULL)
        abort(); /* whoever asks takes our end for a refusal */
    size_t index = verdict->body.n_complaints++;
    Userd__Ipc__Complaint *complaint = &verdict->complaints[index];
    userd__ipc__complaint__init(complaint);
    complaint->option = (uint32_t)option;
    complaint->text = copy;
    verdict->pointers[index] = complaint;
}

/* What is for both clients is refused by both. */
static void on_refused(size_t option, const char *reason, void *userdata)
{
    struct verdict *verdict = userdata;
    if (!verdict->is_refused[option])
        complain(verdict, option + 1, reason);
    verdict->is_refused[option] = true;
}

static int try_options(const struct settings *settings, struct verdict *verdict)
{
    static const rd_kafka_type_t types[] = {RD_KAFKA_PRODUCER, RD_KAFKA_CONSUMER};
    int result = 0;
    for (size_t i = 0; i < ARRAY_LENGTH(types) && result != -ENOMEM; i++) {
        rd_kafka_conf_t *configuration = rd_kafka_conf_new();
        int refusal = kafka_options_set(settings, types[i], configuration, on_refused, verdict);
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
    const struct settings *settings, struct verdict *verdict, const char *reason)
{
    char text[KAFKA_CLIENT_REASON_SIZE];
    size_t named = find_named(settings, reason);
    if (describe_file(settings, named, text, sizeof(text)))
        complain(verdict, named, text);
    else
        complain(verdict, named, holds_secret(settings, reason) ? "librdkafka refuses it" : reason);
}

static void judge(struct settings *settings, struct verdict *verdict)
{
    char reason[KAFKA_CLIENT_REASON_SIZE];
    int result = try_options(settings, verdict);
    if (result == 0)
        result = settings_set_text(settings, settings_find("kafka.bootstrap_servers"), "");
    if (result == -ENOMEM)
        complain(verdict, 0, "out of memory");
    else if (result == 0 && kafka_client_try(settings, reason) < 0)
        complain_of_clients(settings, verdict, reason);
}

int configuration_check(struct process_link *link)
{
    struct verdict verdict CLEANUP(verdict_cleanup) = {0};
    userd__ipc__verdict__init(&verdict.body);
    verdict.body.complaints = verdict.pointers;
    judge(&link->settings, &verdict);
    Userd__Ipc__Frame frame;
    userd__ipc__frame__init(&frame);
    frame.body_case = USERD__IPC__FRAME__BODY_VERDICT;
    frame.verdict = &verdict.body;
    int result = process_link_send(link, &frame);
    if (result < 0) {
        log_error("verdict not sent error=\"%s\"", strerror(-result));
        return EXIT_FAILURE;
    }
    return process_link_run(link);
}
