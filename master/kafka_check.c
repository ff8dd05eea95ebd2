#include "master/kafka_check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/monotonic_clock.h"
#include "common/process_protocol.h"
#include "common/scoreboard.h"
#include "common/settings_kafka.h"
#include "master/child_program.h"
#include "master/errand_child.h"

#define TIMER_ACCURACY_US 10000

struct kafka_check {
    sd_event *event; /* owned */
    const char *file;
    const struct settings *settings;
    kafka_check_done *on_done;
    void *userdata;
    struct errand_child child;             /* owned */
    sd_event_source *limit;                /* owned */
    struct settings_complaints complaints; /* owned */
};

/* `option`: counted from 1; anything else for none in particular. */
static void complain(struct kafka_check *check, uint32_t option, const char *text)
{
    const struct settings *settings = check->settings;
    if (option == 0 || option > settings->kafka_option_count) {
        settings_complaints_add(
            &check->complaints, check->file, 0, SETTINGS_KAFKA_OPTIONS ": %s", text);
        return;
    }
    const struct settings_kafka_option *own = &settings->kafka_options[option - 1];
    char name[SETTINGS_KAFKA_NAME_SIZE];
    settings_kafka_name(own->property, name, sizeof(name));
    settings_complaints_add(&check->complaints, own->file != NULL ? own->file : check->file,
        own->line, SETTINGS_KAFKA_OPTIONS ".%s: %s", name, text);
}

/* The last thing that whoever calls it does: the check may be gone. */
static void conclude(struct kafka_check *check)
{
    errand_child_end(&check->child);
    check->limit = sd_event_source_disable_unref(check->limit);
    check->on_done(&check->complaints, check->userdata);
}

static int on_frame(
    struct ipc_channel *channel, const Userd__Ipc__Frame *frame, int *fd, void *userdata)
{
    (void)channel;
    (void)fd;
    struct kafka_check *check = userdata;
    if (frame->body_case != USERD__IPC__FRAME__BODY_VERDICT)
        return -EPROTO;
    for (size_t i = 0; i < frame->verdict->n_complaints; i++)
        complain(check, frame->verdict->complaints[i]->option, frame->verdict->complaints[i]->text);
    conclude(check);
    return 0;
}

static void on_closed(struct ipc_channel *channel, int error, void *userdata)
{
    (void)channel;
    struct kafka_check *check = userdata;
    complain(check, 0,
        error == -EPROTO ? CHILD_PROGRAM_EVENTD " gave another answer than was asked for, expected "
                                                "the one of this release"
                         : CHILD_PROGRAM_EVENTD " ended before it said whether it takes them, "
                                                "expected it to: the log may say why");
    conclude(check);
}

static int on_limit(sd_event_source *source, uint64_t time_us, void *userdata)
{
    (void)source;
    (void)time_us;
    struct kafka_check *check = userdata;
    complain(check, 0,
        CHILD_PROGRAM_EVENTD " has not said in time whether it takes them, expected it to in some "
                             "seconds");
    conclude(check);
    return 0;
}

int kafka_check_new(sd_event *event, const char *file, const struct settings *settings,
    kafka_check_done *on_done, void *userdata, struct kafka_check **ret_check)
{
    struct kafka_check *check = calloc(1, sizeof(*check));
    if (check == NULL)
        return -ENOMEM;
    *check = (struct kafka_check){
        .event = sd_event_ref(event),
        .file = file,
        .settings = settings,
        .on_done = on_done,
        .userdata = userdata,
        .child = {.scoreboard_fd = -1, .pid_fd = -1},
    };
    *ret_check = check;
    return 0;
}

struct kafka_check *kafka_check_free(struct kafka_check *check)
{
    if (check == NULL)
        return NULL;
    errand_child_end(&check->child);
    check->limit = sd_event_source_disable_unref(check->limit);
    settings_complaints_cleanup(&check->complaints);
    check->event = sd_event_unref(check->event);
    free(check);
    return NULL;
}

void kafka_check_start(struct kafka_check *check)
{
    static const struct ipc_channel_handlers handlers = {
        .on_frame = on_frame, .on_closed = on_closed};
    static const char *const no_words[] = {NULL};
    static const struct errand_child_plan plan = {
        .program = CHILD_PROGRAM_EVENTD,
        .role = PROCESS_ROLE_CHECK,
        .audience = SETTING_FOR_EVENTD,
        .slot = SCOREBOARD_SLOT_EVENTD,
        .words = no_words,
    };
    if (check->settings->kafka_option_count == 0) {
        conclude(check);
        return;
    }
    int result = sd_event_add_time_relative(check->event, &check->limit, CLOCK_MONOTONIC,
        (uint64_t)KAFKA_CHECK_TIMEOUT_MS * MONOTONIC_CLOCK_US_PER_MS, TIMER_ACCURACY_US, on_limit,
        check);
    if (result >= 0)
        result = errand_child_start(
            &check->child, check->event, &plan, check->settings, &handlers, check);
    if (result >= 0)
        return;
    settings_complaints_add(&check->complaints, check->file, 0,
        SETTINGS_KAFKA_OPTIONS ": " CHILD_PROGRAM_EVENTD
                               " cannot be asked whether it takes them: %s",
        strerror(-result));
    conclude(check);
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

static int ask(
    sd_event *event, const char *file, const struct settings *settings, struct answer *answer)
{
    struct kafka_check *check = NULL;
    int result = kafka_check_new(event, file, settings, on_answered, answer, &check);
    if (result < 0)
        return result;
    kafka_check_start(check);
    result = sd_event_loop(event);
    (void)kafka_check_free(check);
    return result;
}

int kafka_check_run(
    const char *file, const struct settings *settings, struct settings_complaints *complaints)
{
    if (settings->kafka_option_count == 0)
        return 0;
    sd_event *event = NULL;
    int result = sd_event_new(&event);
    if (result < 0)
        return result;
    struct answer answer = {.event = event, .complaints = complaints};
    result = ask(event, file, settings, &answer);
    (void)sd_event_unref(event);
    if (result < 0)
        return result;
    return complaints->count > 0 ? -EINVAL : 0;
}
