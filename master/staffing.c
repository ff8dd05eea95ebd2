#include "master/staffing.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sysexits.h>

#include "common/log.h"
#include "master/liveness.h"
#include "master/peer_links.h"
#include "master/respawn_policy.h"

#define FIRST_GENERATION  1
#define TIMER_ACCURACY_US 10000
#define REASON_SIZE       160

enum staffing_phase { STAFFING_STARTING, STAFFING_SERVING, STAFFING_RELOADING, STAFFING_STOPPING };

/* One for each slot. An empty post with a generation is waiting to be started again. */
struct post {
    struct staffing *staffing;
    uint32_t slot;
    uint32_t generation; /* 0: nobody is wanted here */
    bool was_ready;      /* since it was first wanted in this generation */
    struct respawn_record record;
    sd_event_source *respawn; /* owned */
};

struct staffing {
    sd_event *event;
    const struct staffing_handlers *handlers;
    void *userdata;
    struct child_table *children;         /* owned */
    struct connection_dispatch *dispatch; /* owned */
    struct liveness *liveness;            /* owned */
    enum staffing_phase phase;
    struct settings settings; /* owned; in force */
    uint32_t generation;
    struct settings next_settings; /* owned; while RELOADING */
    struct respawn_role roles[CHILD_ROLE_COUNT];
    struct post posts[SCOREBOARD_SLOTS];
};

static void start_post(struct post *post);

static bool is_next(const struct staffing *staffing, uint32_t generation)
{
    return staffing->phase == STAFFING_RELOADING && generation == staffing->generation + 1;
}

static void clear_post(struct post *post)
{
    post->respawn = sd_event_source_disable_unref(post->respawn);
    post->generation = 0;
    post->was_ready = false;
    post->record = (struct respawn_record){0};
}

static void drain_slot(struct staffing *staffing, uint32_t slot)
{
    child_table_drain(
        staffing->children, slot, (unsigned int)staffing->settings.shutdown.drain_timeout_ms);
}

/* --- deaths --- */

static int on_respawn(sd_event_source *source, uint64_t time_us, void *userdata)
{
    (void)source;
    (void)time_us;
    struct post *post = userdata;
    post->respawn = sd_event_source_disable_unref(post->respawn);
    start_post(post);
    return 0;
}

static void respawn_later(struct post *post, unsigned int delay_ms)
{
    struct staffing *staffing = post->staffing;
    post->respawn = sd_event_source_disable_unref(post->respawn);
    int result = sd_event_add_time_relative(staffing->event, &post->respawn, CLOCK_MONOTONIC,
        (uint64_t)delay_ms * 1000, TIMER_ACCURACY_US, on_respawn, post);
    enum child_role role = child_table_role(post->slot);
    if (result < 0) { /* without memory for a timer there is none for a child */
        log_error("respawn timer failed slot=%u error=\"%s\"", post->slot, strerror(-result));
        staffing->handlers->on_hopeless(role, staffing->userdata);
        return;
    }
    log_info("child will be started again role=%s slot=%u delay_ms=%u failures=%u",
        child_table_role_name(role), post->slot, delay_ms, post->record.failures);
}

static void handle_death(struct post *post, int64_t ready_life_us)
{
    struct staffing *staffing = post->staffing;
    enum child_role role = child_table_role(post->slot);
    uint32_t random = UINT32_MAX / 2; /* no jitter, should there be no random number */
    (void)!getrandom(&random, sizeof(random), GRND_NONBLOCK);
    struct respawn_decision decision =
        respawn_policy_on_death(&post->record, &staffing->roles[role], ready_life_us, random);
    if (!decision.gives_up) {
        respawn_later(post, decision.delay_ms);
        return;
    }
    log_error("giving up role=%s deaths=%u reason=\"it was never ready\"",
        child_table_role_name(role), RESPAWN_GIVE_UP_DEATHS);
    staffing->handlers->on_hopeless(role, staffing->userdata);
}

static void start_post(struct post *post)
{
    struct staffing *staffing = post->staffing;
    const struct settings *settings =
        is_next(staffing, post->generation) ? &staffing->next_settings : &staffing->settings;
    int result = child_table_start(staffing->children, post->slot, post->generation, settings);
    if (result < 0)
        handle_death(post, RESPAWN_LIFE_NEVER_READY);
}

/* --- reload --- */

static bool is_all_ready(const struct staffing *staffing, uint32_t generation)
{
    for (uint32_t slot = 0; slot < SCOREBOARD_SLOTS; slot++)
        if (staffing->posts[slot].generation == generation && !staffing->posts[slot].was_ready)
            return false;
    return true;
}

static void replace_eventd(struct staffing *staffing)
{
    struct post *post = &staffing->posts[SCOREBOARD_SLOT_EVENTD];
    post->generation = staffing->generation;
    drain_slot(
        staffing, post->slot); /* its end starts the new one; a waiting respawn is the new one */
}

/* All workers of the new generation are READY: from here on it is the one in force. */
static void commit_reload(struct staffing *staffing)
{
    uint32_t old_generation = staffing->generation;
    staffing->generation = old_generation + 1;
    settings_cleanup(&staffing->settings);
    staffing->settings = staffing->next_settings;
    staffing->next_settings = (struct settings){0};
    staffing->phase = STAFFING_SERVING;
    int result = connection_dispatch_set_limits(staffing->dispatch,
        (unsigned int)staffing->settings.limits.connections,
        (unsigned int)staffing->settings.limits.connections_per_address);
    if (result < 0)
        log_warn("limits not raised in full error=\"%s\"", strerror(-result));
    liveness_set_timeout(
        staffing->liveness, (unsigned int)staffing->settings.supervision.hang_timeout_ms);
    connection_dispatch_set_generation(staffing->dispatch, staffing->generation);
    for (uint32_t slot = SCOREBOARD_SLOT_EVENTD + 1; slot < SCOREBOARD_SLOTS; slot++) {
        if (staffing->posts[slot].generation != old_generation)
            continue;
        clear_post(&staffing->posts[slot]);
        drain_slot(staffing, slot);
    }
    replace_eventd(staffing);
    staffing->handlers->on_reloaded(NULL, staffing->userdata);
}

static void abort_reload(struct staffing *staffing, uint32_t slot, const char *reason)
{
    log_error(
        "reload failed, the old configuration stays in force slot=%u reason=\"%s\"", slot, reason);
    uint32_t next_generation = staffing->generation + 1;
    staffing->phase = STAFFING_SERVING;
    for (uint32_t i = 0; i < SCOREBOARD_SLOTS; i++) {
        if (staffing->posts[i].generation != next_generation)
            continue;
        clear_post(&staffing->posts[i]);
        child_table_kill(staffing->children, i); /* nobody was connected to it yet */
    }
    settings_cleanup(&staffing->next_settings);
    staffing->next_settings = (struct settings){0};
    staffing->handlers->on_reloaded(reason, staffing->userdata);
}

static void abort_reload_for_death(
    struct staffing *staffing, uint32_t slot, const struct child_end *end)
{
    char reason[REASON_SIZE];
    if (end->exit_status >= 0)
        (void)snprintf(reason, sizeof(reason),
            "a new worker ended before it was ready, pid %d with status %d: the log says why",
            (int)end->pid, end->exit_status);
    else
        (void)snprintf(reason, sizeof(reason),
            "a new worker was killed before it was ready, pid %d: the log says why", (int)end->pid);
    abort_reload(staffing, slot, reason);
}

/* --- what the children do --- */

static void on_ready(uint32_t slot, void *userdata)
{
    struct staffing *staffing = userdata;
    struct post *post = &staffing->posts[slot];
    respawn_policy_on_ready(&staffing->roles[child_table_role(slot)]);
    post->was_ready = true;
    peer_links_on_ready(staffing->children, slot);
    if (is_next(staffing, post->generation)) {
        if (is_all_ready(staffing, post->generation))
            commit_reload(staffing);
        return;
    }
    connection_dispatch_refresh(staffing->dispatch);
    if (staffing->phase == STAFFING_STARTING && is_all_ready(staffing, staffing->generation)) {
        staffing->phase = STAFFING_SERVING;
        staffing->handlers->on_complete(staffing->userdata);
    }
}

static void on_gone(uint32_t slot, const struct child_end *end, void *userdata)
{
    struct staffing *staffing = userdata;
    struct post *post = &staffing->posts[slot];
    if (staffing->dispatch != NULL)
        connection_dispatch_forget_slot(staffing->dispatch, slot);
    if (staffing->phase == STAFFING_STOPPING) {
        if (child_table_living(staffing->children) == 0)
            staffing->handlers->on_empty(staffing->userdata);
        return;
    }
    if (post->generation == 0)
        return;
    if (is_next(staffing, post->generation)) {
        abort_reload_for_death(staffing, slot, end);
    } else if (end->was_asked) {
        start_post(post);
    } else if (end->exit_status == EX_CONFIG && staffing->phase == STAFFING_STARTING) {
        log_error("giving up role=%s reason=\"it refuses its configuration\"",
            child_table_role_name(child_table_role(slot)));
        staffing->handlers->on_hopeless(child_table_role(slot), staffing->userdata);
    } else {
        handle_death(post, end->ready_life_us);
    }
}

static const struct child_table_handlers child_handlers = {
    .on_ready = on_ready,
    .on_gone = on_gone,
};

/* --- the way in --- */

static int open_parts(struct staffing *staffing, const struct staffing_options *options,
    const struct settings *settings)
{
    const struct child_table_options child_options = {
        .event = options->event,
        .scoreboard = options->scoreboard,
        .scoreboard_fd = options->scoreboard_fd,
        .outbox_wake_fd = options->outbox_wake_fd,
    };
    int result = child_table_new(&child_options, &child_handlers, staffing, &staffing->children);
    if (result < 0)
        return result;
    const struct connection_dispatch_options dispatch_options = {
        .event = options->event,
        .children = staffing->children,
        .scoreboard = options->scoreboard,
        .listeners = options->listeners,
        .listener_count = options->listener_count,
        .connections_max = (unsigned int)settings->limits.connections,
        .connections_per_address_max = (unsigned int)settings->limits.connections_per_address,
    };
    result = connection_dispatch_new(&dispatch_options, &staffing->dispatch);
    if (result < 0)
        return result;
    return liveness_new(options->event, staffing->children, options->scoreboard,
        (unsigned int)settings->supervision.hang_timeout_ms, &staffing->liveness);
}

int staffing_new(const struct staffing_options *options, struct settings *settings,
    const struct staffing_handlers *handlers, void *userdata, struct staffing **ret_staffing)
{
    struct staffing *staffing = calloc(1, sizeof(*staffing));
    if (staffing == NULL)
        return -ENOMEM;
    staffing->event = options->event;
    staffing->handlers = handlers;
    staffing->userdata = userdata;
    staffing->generation = FIRST_GENERATION;
    for (uint32_t slot = 0; slot < SCOREBOARD_SLOTS; slot++)
        staffing->posts[slot] = (struct post){.staffing = staffing, .slot = slot};
    int result = open_parts(staffing, options, settings);
    if (result < 0) {
        (void)staffing_free(staffing);
        return result;
    }
    staffing->settings = *settings;
    *settings = (struct settings){0};
    *ret_staffing = staffing;
    return 0;
}

struct staffing *staffing_free(struct staffing *staffing)
{
    if (staffing == NULL)
        return NULL;
    for (uint32_t slot = 0; slot < SCOREBOARD_SLOTS; slot++)
        clear_post(&staffing->posts[slot]);
    staffing->liveness = liveness_free(staffing->liveness);
    staffing->dispatch = connection_dispatch_free(staffing->dispatch);
    staffing->children = child_table_free(staffing->children);
    settings_cleanup(&staffing->settings);
    settings_cleanup(&staffing->next_settings);
    free(staffing);
    return NULL;
}

void staffing_start(struct staffing *staffing)
{
    unsigned int workers = settings_worker_count(&staffing->settings);
    assert(workers <= SETTINGS_MAX_WORKERS);
    for (uint32_t slot = 0; slot <= workers; slot++)
        staffing->posts[slot].generation = staffing->generation;
    connection_dispatch_set_generation(staffing->dispatch, staffing->generation);
    for (uint32_t slot = 0; slot <= workers; slot++)
        start_post(&staffing->posts[slot]);
}

/* A slot is free when nobody lives in it and nobody is wanted there. -1: none. */
static int find_free_slot(const struct staffing *staffing)
{
    for (uint32_t slot = SCOREBOARD_SLOT_EVENTD + 1; slot < SCOREBOARD_SLOTS; slot++)
        if (staffing->posts[slot].generation == 0 &&
            child_table_state(staffing->children, slot) == PROCESS_ABSENT)
            return (int)slot;
    return -1;
}

int staffing_reload(struct staffing *staffing, struct settings *settings)
{
    if (staffing->phase != STAFFING_SERVING)
        return -EBUSY;
    uint32_t next_generation = staffing->generation + 1;
    unsigned int workers = settings_worker_count(settings);
    uint32_t slots[SETTINGS_MAX_WORKERS];
    for (unsigned int i = 0; i < workers; i++) {
        int slot = find_free_slot(staffing);
        if (slot < 0) {
            while (i-- > 0)
                clear_post(&staffing->posts[slots[i]]);
            return -ENOSPC;
        }
        slots[i] = (uint32_t)slot;
        staffing->posts[slot].generation = next_generation;
    }
    staffing->phase = STAFFING_RELOADING;
    staffing->next_settings = *settings;
    *settings = (struct settings){0};
    for (unsigned int i = 0; i < workers && staffing->phase == STAFFING_RELOADING; i++) {
        int result = child_table_start(
            staffing->children, slots[i], next_generation, &staffing->next_settings);
        if (result < 0)
            abort_reload(staffing, slots[i], "the new worker's program cannot be run");
    }
    return 0;
}

void staffing_stop(struct staffing *staffing)
{
    staffing->phase = STAFFING_STOPPING;
    staffing->dispatch = connection_dispatch_free(staffing->dispatch);
    for (uint32_t slot = 0; slot < SCOREBOARD_SLOTS; slot++) {
        clear_post(&staffing->posts[slot]);
        drain_slot(staffing, slot);
    }
    if (child_table_living(staffing->children) == 0)
        staffing->handlers->on_empty(staffing->userdata);
}

void staffing_kill(struct staffing *staffing)
{
    for (uint32_t slot = 0; slot < SCOREBOARD_SLOTS; slot++)
        child_table_kill(staffing->children, slot);
}

const struct settings *staffing_settings(const struct staffing *staffing)
{
    return &staffing->settings;
}

bool staffing_is_answering(const struct staffing *staffing)
{
    return liveness_is_answering(staffing->liveness);
}

uint32_t staffing_generation(const struct staffing *staffing)
{
    return staffing->generation;
}

bool staffing_is_settled(const struct staffing *staffing)
{
    return staffing->phase == STAFFING_SERVING;
}
