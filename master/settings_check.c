#include "master/settings_check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/database_url.h"
#include "common/monotonic_clock.h"
#include "common/process_protocol.h"
#include "common/process_verdict.h"
#include "common/scoreboard.h"
#include "common/settings_kafka.h"
#include "master/child_program.h"
#include "master/errand_child.h"

#define TIMER_ACCURACY_US 10000

enum part { PART_DATABASE, PART_KAFKA, PARTS };

static const struct {
    const char *subject; /* of complaints about the child itself */
    struct errand_child_plan plan;
} parts[PARTS] = {
    [PART_DATABASE] = {"database.url", {CHILD_PROGRAM_WORKER, PROCESS_ROLE_CHECK,
                                           SETTING_FOR_WORKER, SCOREBOARD_SLOT_EVENTD + 1, NULL}},
    [PART_KAFKA] = {SETTINGS_KAFKA_OPTIONS, {CHILD_PROGRAM_EVENTD, PROCESS_ROLE_CHECK,
                                                SETTING_FOR_EVENTD, SCOREBOARD_SLOT_EVENTD, NULL}},
};

/* One child that is asked. */
struct question {
    struct settings_check *check;
    enum part part;
    struct errand_child child; /* owned */
    bool is_open;              /* no answer yet */
};

struct settings_check {
    sd_event *event; /* owned */
    const char *file;
    const struct settings *settings;
    bool connects;
    settings_check_done *on_done;
    void *userdata;
    struct question questions[PARTS];
    sd_event_source *limit;                /* owned */
    struct settings_complaints complaints; /* owned */
    struct settings_complaints findings;   /* owned */
};

/* `option` of kafka.options: counted from 1; anything else for none in particular. */
static void complain_of_kafka(struct settings_check *check, uint32_t option, const char *text)
{
    const struct settings *settings = check->settings;
    if (option == 0 || option > settings->kafka_option_count) {
        settings_complaints_add(&check->complaints, check->file, 0, "%s", text);
        return;
    }
    const struct settings_kafka_option *own = &settings->kafka_options[option - 1];
    char name[SETTINGS_KAFKA_NAME_SIZE];
    settings_kafka_name(own->property, name, sizeof(name));
    settings_complaints_add(&check->complaints, own->file != NULL ? own->file : check->file,
        own->line, SETTINGS_KAFKA_OPTIONS ".%s: %s", name, text);
}

static void complain(struct question *question, uint32_t option, const char *text)
{
    struct settings_check *check = question->check;
    const char *place = check->settings->database.url_place;
    if (check->connects) /* what was tried is said by name; the place would be of little help */
        settings_complaints_add(&check->complaints, NULL, 0, "%s", text);
    else if (question->part == PART_KAFKA)
        complain_of_kafka(check, option, text);
    else
        settings_complaints_add(
            &check->complaints, place != NULL ? place : check->file, 0, "%s", text);
}

/* About the child itself. */
static void complain_of_child(struct question *question, const char *text)
{
    settings_complaints_add(&question->check->complaints, question->check->file, 0, "%s: %s %s",
        parts[question->part].subject, parts[question->part].plan.program, text);
}

/* The last thing that whoever calls it does: the check may be gone. */
static void conclude(struct question *question)
{
    struct settings_check *check = question->check;
    errand_child_end(&question->child);
    question->is_open = false;
    for (size_t i = 0; i < PARTS; i++)
        if (check->questions[i].is_open)
            return;
    check->limit = sd_event_source_disable_unref(check->limit);
    check->on_done(&check->complaints, check->userdata);
}

static int on_frame(
    struct ipc_channel *channel, const Userd__Ipc__Frame *frame, int *fd, void *userdata)
{
    (void)channel;
    (void)fd;
    struct question *question = userdata;
    if (frame->body_case != USERD__IPC__FRAME__BODY_VERDICT)
        return -EPROTO;
    const Userd__Ipc__Verdict *verdict = frame->verdict;
    for (size_t i = 0; i < verdict->n_complaints; i++)
        complain(question, verdict->complaints[i]->option, verdict->complaints[i]->text);
    for (size_t i = 0; i < verdict->n_findings; i++)
        settings_complaints_add(&question->check->findings, NULL, 0, "%s", verdict->findings[i]);
    conclude(question);
    return 0;
}

static void on_closed(struct ipc_channel *channel, int error, void *userdata)
{
    (void)channel;
    struct question *question = userdata;
    complain_of_child(
        question, error == -EPROTO
                      ? "gave another answer than was asked for, expected the one of this release"
                      : "ended before it said whether it takes them, expected it to: the log may "
                        "say why");
    conclude(question);
}

static int on_limit(sd_event_source *source, uint64_t time_us, void *userdata)
{
    (void)source;
    (void)time_us;
    struct settings_check *check = userdata;
    struct question *last = NULL;
    for (size_t i = 0; i < PARTS; i++) {
        if (!check->questions[i].is_open)
            continue;
        complain_of_child(&check->questions[i],
            "has not said in time whether it takes them, expected it to in some seconds");
        if (last != NULL)
            conclude(last);
        last = &check->questions[i];
    }
    if (last != NULL)
        conclude(last);
    return 0;
}

int settings_check_new(sd_event *event, const char *file, const struct settings *settings,
    settings_check_done *on_done, void *userdata, struct settings_check **ret_check)
{
    struct settings_check *check = calloc(1, sizeof(*check));
    if (check == NULL)
        return -ENOMEM;
    check->event = sd_event_ref(event);
    check->file = file;
    check->settings = settings;
    check->on_done = on_done;
    check->userdata = userdata;
    for (size_t i = 0; i < PARTS; i++)
        check->questions[i] = (struct question){
            .check = check,
            .part = (enum part)i,
            .child = {.scoreboard_fd = -1, .pid_fd = -1},
        };
    *ret_check = check;
    return 0;
}

struct settings_check *settings_check_free(struct settings_check *check)
{
    if (check == NULL)
        return NULL;
    for (size_t i = 0; i < PARTS; i++)
        errand_child_end(&check->questions[i].child);
    check->limit = sd_event_source_disable_unref(check->limit);
    settings_complaints_cleanup(&check->complaints);
    settings_complaints_cleanup(&check->findings);
    check->event = sd_event_unref(check->event);
    free(check);
    return NULL;
}

static int start(struct question *question)
{
    static const struct ipc_channel_handlers handlers = {
        .on_frame = on_frame, .on_closed = on_closed};
    static const char *const no_words[] = {NULL};
    static const char *const connect_words[] = {PROCESS_VERDICT_CONNECT, NULL};
    const struct settings_check *check = question->check;
    struct errand_child_plan plan = parts[question->part].plan;
    plan.words = check->connects ? connect_words : no_words;
    return errand_child_start(
        &question->child, check->event, &plan, check->settings, &handlers, question);
}

static bool is_wanted(const struct settings_check *check, enum part part)
{
    return check->connects ||
           (part == PART_KAFKA ? check->settings->kafka_option_count > 0
                               : database_url_has_parameters(check->settings->database.url));
}

void settings_check_start(struct settings_check *check)
{
    unsigned int timeout_ms =
        check->connects ? SETTINGS_CHECK_CONNECT_TIMEOUT_MS : SETTINGS_CHECK_TIMEOUT_MS;
    int limit = sd_event_add_time_relative(check->event, &check->limit, CLOCK_MONOTONIC,
        (uint64_t)timeout_ms * MONOTONIC_CLOCK_US_PER_MS, TIMER_ACCURACY_US, on_limit, check);
    /* open until all are started: the first answer must not be taken for the last */
    struct question *failed = NULL;
    bool is_any_open = false;
    for (size_t i = 0; i < PARTS; i++) {
        struct question *question = &check->questions[i];
        if (!is_wanted(check, question->part))
            continue;
        int result = limit < 0 ? limit : start(question);
        question->is_open = result >= 0;
        is_any_open = is_any_open || question->is_open;
        if (result < 0) {
            complain_of_child(question, "cannot be asked whether it takes them");
            failed = question;
        }
    }
    if (!is_any_open)
        conclude(failed != NULL ? failed : &check->questions[PART_DATABASE]);
}

/* ---- for a program without a loop ---- */

struct answer {
    sd_event *event;
    struct settings_complaints *complaints;
};

static void on_answered(const struct settings_complaints *complaints, void *userdata)
{
    struct answer *answer = userdata;
    settings_complaints_append(answer->complaints, complaints);
    (void)sd_event_exit(answer->event, 0);
}

int settings_check_run(const char *file, const struct settings *settings, bool connects,
    struct settings_complaints *complaints, struct settings_complaints *findings)
{
    sd_event *event = NULL;
    int result = sd_event_new(&event);
    if (result < 0)
        return result;
    struct answer answer = {.event = event, .complaints = complaints};
    struct settings_check *check = NULL;
    result = settings_check_new(event, file, settings, on_answered, &answer, &check);
    if (result == 0) {
        check->connects = connects;
        settings_check_start(check);
        result = sd_event_loop(event);
        if (findings != NULL)
            settings_complaints_append(findings, &check->findings);
        (void)settings_check_free(check);
    }
    (void)sd_event_unref(event);
    if (result < 0)
        return result;
    return complaints->count > 0 ? -EINVAL : 0;
}
