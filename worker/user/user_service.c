#include "worker/user/user_service.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "common/log.h"
#include "worker/user/username_rules.h"

struct user_service {
    struct user_store *store; /* the caller's */
};

int user_service_new(struct user_store *store, struct user_service **ret_service)
{
    struct user_service *service = calloc(1, sizeof(*service));
    if (!service)
        return -ENOMEM;
    service->store = store;
    *ret_service = service;
    return 0;
}

struct user_service *user_service_free(struct user_service *service)
{
    free(service);
    return NULL;
}

void user_service_find_name(struct user_service *service, struct user_name_question *question)
{
    question->question.is_single = true;
    user_store_ask(service->store, &question->question, USER_QUESTION_NAMES);
}

void user_service_find_names(struct user_service *service, struct user_names_question *question)
{
    question->question.is_single = false;
    question->question.cost = (uint32_t)question->auth_id_count;
    if (question->auth_id_count > USER_NAMES_MAX)
        question->question.on_done(&question->question, USER_TOO_MANY);
    else if (question->auth_id_count == 0)
        question->question.on_done(&question->question, USER_DONE);
    else
        user_store_ask(service->store, &question->question, USER_QUESTION_NAMES);
}

/* ---- id by name ---- */

static void on_found(struct user_question *question, enum user_outcome outcome)
{
    struct user_id_question *id_question = (struct user_id_question *)(void *)question;
    char *canonical = TAKE_PTR(id_question->canonical);
    question->on_done = id_question->on_found;
    question->on_done(question, outcome); /* the question may be gone after this */
    free(canonical);
}

void user_service_find_id(struct user_service *service, struct user_id_question *question)
{
    struct username_forms forms = {0};
    char message[USERNAME_MESSAGE_SIZE];
    if (!username_rules_is_text(question->username, question->username_length)) {
        /* No user can have such a name, and PostgreSQL would refuse the whole batch for it. */
        question->question.on_done(&question->question, USER_NOT_FOUND);
        return;
    }
    int error =
        username_rules_apply(question->username, question->username_length, &forms, message);
    if (error == -ENOMEM) {
        question->question.on_done(&question->question, USER_OVERLOADED);
        return;
    }
    /* A name that breaks the rules may still be someone's, by event or from the legacy service. */
    question->canonical = TAKE_PTR(forms.canonical);
    question->canonical_length = forms.canonical_length;
    username_forms_cleanup(&forms);
    question->on_found = question->question.on_done;
    question->question.on_done = on_found;
    user_store_ask(service->store, &question->question, USER_QUESTION_ID);
}

/* ---- rename ---- */

static void on_renamed(struct user_question *question, enum user_outcome outcome)
{
    struct user_rename *rename = (struct user_rename *)(void *)question;
    struct username_forms forms = {.stored = rename->stored, .canonical = rename->canonical};
    question->on_done = rename->on_renamed;
    question->on_done(question, outcome); /* the question may be gone after this */
    username_forms_cleanup(&forms);
}

void user_service_rename(struct user_service *service, struct user_rename *rename)
{
    static_assert(USER_MESSAGE_SIZE >= USERNAME_MESSAGE_SIZE, "a message of the rules fits");
    struct username_forms forms = {0};
    rename->is_text = true;
    int error =
        username_rules_apply(rename->username, rename->username_length, &forms, rename->message);
    if (error == -ENOMEM) {
        rename->question.on_done(&rename->question, USER_OVERLOADED);
        return;
    }
    /* Whether the user is there, and has this name already, is for the database to say. */
    if (error < 0) {
        rename->question.message = rename->message;
        rename->is_text = username_rules_is_text(rename->username, rename->username_length);
    }
    rename->stored = forms.stored;
    rename->stored_length = forms.stored_length;
    rename->canonical = forms.canonical;
    rename->canonical_length = forms.canonical_length;
    rename->on_renamed = rename->question.on_done;
    rename->question.on_done = on_renamed;
    user_store_ask(service->store, &rename->question, USER_QUESTION_RENAME);
}

void user_service_delete(struct user_service *service, struct user_delete *delete_request)
{
    user_store_ask(service->store, &delete_request->question, USER_QUESTION_DELETE);
}

/* ---- consumed events ---- */

static void free_canonical_forms(struct user_event_batch *batch)
{
    for (size_t i = 0; i < batch->event_count; i++) {
        free(batch->events[i].canonical);
        batch->events[i].canonical = NULL;
        batch->events[i].canonical_length = 0;
    }
}

static void on_applied(struct user_event_batch *batch, enum user_apply_outcome outcome)
{
    free_canonical_forms(batch);
    if (outcome == USER_APPLY_DONE && batch->ret_without_claim > 0)
        log_info("users registered without claim topic=%s partition=%d position=%lld count=%zu",
            batch->topic, batch->partition, (long long)batch->position, batch->ret_without_claim);
    batch->on_applied = batch->on_service_applied;
    batch->on_applied(batch, outcome);
}

void user_service_apply_events(struct user_service *service, struct user_event_batch *batch)
{
    batch->on_service_applied = batch->on_applied;
    batch->on_applied = on_applied;
    for (size_t i = 0; i < batch->event_count; i++) {
        struct user_event *event = &batch->events[i];
        event->canonical = NULL;
        event->canonical_length = 0;
    }
    for (size_t i = 0; i < batch->event_count && batch->kind == USER_EVENT_REGISTRATION; i++) {
        struct user_event *event = &batch->events[i];
        struct username_forms forms = {0};
        char message[USERNAME_MESSAGE_SIZE];
        int error = username_rules_apply(event->username, event->username_length, &forms, message);
        if (error == -ENOMEM) {
            on_applied(batch, USER_APPLY_UNAVAILABLE);
            return;
        }
        event->canonical = TAKE_PTR(forms.canonical);
        event->canonical_length = forms.canonical_length;
        username_forms_cleanup(&forms);
    }
    user_store_apply_events(service->store, batch);
}
