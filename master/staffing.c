#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sysexits.h>

#include "common/log.h"
#include "master/staffing_private.h"

#define FIRST_GENERATION    1
#define DRAIN_MARGIN_MS     3000 /* each child has a deadline of its own before that */
#define MICROSECONDS_PER_MS UINT64_C(1000)

static void start_post(struct post *post);

enum lifecycle_action staffing_take(struct staffing *staffing, enum lifecycle_event event)
{
    struct lifecycle_step step = lifecycle_next(staffing->state, event);
    staffing->state = step.next;
    return step.action;
}

void staffing_clear_post(struct post *post)
{
    post->respawn = sd_event_source_disable_unref(post->respawn);
    post->generation = 0;
    post->was_ready = false;
    post->record = (struct respawn_record){0};
}

void staffing_drain_slot(struct staffing *staffing, uint32_t slot)
{
    child_table_drain(staffing->children, slot,
        (unsigned int)staffing->settings.shutdown.drain_timeout_ms,
        staffing->state == LIFECYCLE_DRAINING);
}

bool staffing_is_all_ready(const struct staffing *staffing, uint32_t generation)
{
    for (uint32_t slot = 0; slot < SCOREBOARD_SLOTS; slot++)
        if (staffing->posts[slot].generation == generation && !staffing->posts[slot].was_ready)
            return false;
    return true;
}

static void give_up(struct staffing *staffing, enum child_role role, enum lifecycle_event event)
{
    if (staffing_take(staffing, event) == LIFECYCLE_GIVE_UP)
        staffing->handlers->on_hopeless(role, staffing->userdata);
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

void staffing_respawn_in(struct post *post, uint64_t delay_us)
{
    struct staffing *staffing = post->staffing;
    post->respawn = sd_event_source_disable_unref(post->respawn);
    int result = sd_event_add_time_relative(staffing->options.event, &post->respawn,
        CLOCK_MONOTONIC, delay_us, STAFFING_TIMER_ACCURACY_US, on_respawn, post);
    if (result >= 0)
        return;
    /* without memory for a timer there is none for a child */
    log_error("respawn timer failed slot=%u error=\"%s\"", post->slot, strerror(-result));
    give_up(staffing, child_table_role(post->slot), LIFECYCLE_ROLE_HOPELESS);
}

static void handle_death(struct post *post, int64_t ready_life_us)
{
    struct staffing *staffing = post->staffing;
    enum child_role role = child_table_role(post->slot);
    uint32_t random = UINT32_MAX / 2; /* no jitter, should there be no random number */
    (void)!getrandom(&random, sizeof(random), GRND_NONBLOCK);
    struct respawn_decision decision =
        respawn_policy_on_death(&post->record, &staffing->roles[role], ready_life_us, random);
    if (decision.gives_up) {
        log_error("giving up role=%s deaths=%u reason=\"it was never ready\"",
            child_table_role_name(role), RESPAWN_GIVE_UP_DEATHS);
        give_up(staffing, role, LIFECYCLE_ROLE_HOPELESS);
        return;
    }
    log_info("child will be started again role=%s slot=%u delay_ms=%u failures=%u",
        child_table_role_name(role), post->slot, decision.delay_ms, post->record.failures);
    staffing_respawn_in(post, decision.delay_ms * MICROSECONDS_PER_MS);
}

static void start_post(struct post *post)
{
    struct staffing *staffing = post->staffing;
    const struct settings *settings = staffing_is_next(staffing, post->generation)
                                          ? &staffing->next_settings
                                          : &staffing->settings;
    int result = child_table_start(staffing->children, post->slot, post->generation, settings);
    if (result < 0)
        handle_death(post, RESPAWN_LIFE_NEVER_READY);
}

/* --- what the children do --- */

static void on_ready(uint32_t slot, void *userdata)
{
    struct staffing *staffing = userdata;
    struct post *post = &staffing->posts[slot];
    respawn_policy_on_ready(&staffing->roles[child_table_role(slot)]);
    post->was_ready = true;
    peer_links_on_ready(&staffing->links, staffing->children, slot);
    if (staffing_is_next(staffing, post->generation)) {
        staffing_reload_on_ready(staffing);
        return;
    }
    if (staffing->dispatch != NULL)
        connection_dispatch_refresh(staffing->dispatch);
    if (staffing_is_all_ready(staffing, staffing->generation) &&
        staffing_take(staffing, LIFECYCLE_GENERATION_READY) == LIFECYCLE_SAY_SERVING)
        staffing->handlers->on_complete(staffing->userdata);
}

/* What the end of a child of the generation in force means. */
static enum lifecycle_event classify(const struct child_end *end)
{
    if (end->was_asked)
        return LIFECYCLE_CHILD_LEFT;
    return end->exit_status == EX_CONFIG ? LIFECYCLE_CHILD_REFUSED : LIFECYCLE_CHILD_DIED;
}

static void fill_again(struct post *post, const struct child_end *end)
{
    struct staffing *staffing = post->staffing;
    enum child_role role = child_table_role(post->slot);
    enum lifecycle_action action = staffing_take(staffing, classify(end));
    if (action == LIFECYCLE_RESPAWN) {
        handle_death(post, end->ready_life_us);
    } else if (action == LIFECYCLE_FILL) {
        start_post(post);
    } else if (action == LIFECYCLE_GIVE_UP) {
        log_error("giving up role=%s reason=\"it refuses its configuration\"",
            child_table_role_name(role));
        staffing->handlers->on_hopeless(role, staffing->userdata);
    }
}

static void end_if_empty(struct staffing *staffing)
{
    if (child_table_living(staffing->children) == 0 &&
        staffing_take(staffing, LIFECYCLE_LAST_GONE) == LIFECYCLE_END)
        staffing->handlers->on_empty(staffing->userdata);
}

static void on_gone(uint32_t slot, const struct child_end *end, void *userdata)
{
    struct staffing *staffing = userdata;
    struct post *post = &staffing->posts[slot];
    if (staffing->dispatch != NULL)
        connection_dispatch_forget_slot(staffing->dispatch, slot);
    if (staffing_is_next(staffing, post->generation))
        staffing_reload_fail_by_end(staffing, slot, end);
    else if (post->generation != 0)
        fill_again(post, end);
    end_if_empty(staffing);
}

static void tell_ban(struct staffing *staffing, uint64_t address, unsigned int seconds)
{
    Userd__Ipc__AddressBan ban = USERD__IPC__ADDRESS_BAN__INIT;
    ban.address = address;
    ban.duration_ms = seconds * 1000;
    Userd__Ipc__Frame frame = USERD__IPC__FRAME__INIT;
    frame.body_case = USERD__IPC__FRAME__BODY_ADDRESS_BAN;
    frame.address_ban = &ban;
    for (uint32_t slot = SCOREBOARD_SLOT_EVENTD + 1; slot < SCOREBOARD_SLOTS; slot++) {
        int result = child_table_send(staffing->children, slot, &frame, -1);
        if (result < 0 && result != -ENOTCONN)
            log_debug("ban not passed on slot=%u error=\"%s\"", slot, strerror(-result));
    }
}

static void take_offence(struct staffing *staffing, const Userd__Ipc__Offence *offence)
{
    if (staffing->dispatch == NULL)
        return;
    unsigned int seconds =
        connection_dispatch_ban(staffing->dispatch, offence->address, offence->reason);
    if (seconds > 0)
        tell_ban(staffing, offence->address, seconds);
}

/* Once no more are passed it does not matter what becomes of connections on their way: stopping. */
static int on_frame(uint32_t slot, const Userd__Ipc__Frame *frame, void *userdata)
{
    struct staffing *staffing = userdata;
    switch ((int)frame->body_case) {
    case USERD__IPC__FRAME__BODY_CONNECTION_ANSWER:
        if (staffing->dispatch != NULL)
            connection_dispatch_settle(staffing->dispatch, slot, frame->connection_answer->number,
                frame->connection_answer->is_returned);
        return 0;
    case USERD__IPC__FRAME__BODY_PEER_REQUEST:
        if (frame->peer_request->slot == SCOREBOARD_SLOT_EVENTD)
            peer_links_on_request(
                &staffing->links, staffing->children, slot, frame->peer_request->number);
        return 0;
    case USERD__IPC__FRAME__BODY_OFFENCE:
        take_offence(staffing, frame->offence);
        return 0;
    default:
        return -EPROTO;
    }
}

static const struct child_table_handlers child_handlers = {
    .on_ready = on_ready,
    .on_frame = on_frame,
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
    };
    result = connection_dispatch_new(&dispatch_options, settings, &staffing->dispatch);
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
    staffing->options = *options;
    staffing->handlers = handlers;
    staffing->userdata = userdata;
    staffing->generation = FIRST_GENERATION;
    staffing->state = LIFECYCLE_STARTING;
    for (uint32_t slot = 0; slot < SCOREBOARD_SLOTS; slot++)
        staffing->posts[slot] = (struct post){.staffing = staffing, .slot = slot};
    int result = open_parts(staffing, options, settings);
    if (result < 0) {
        (void)staffing_free(staffing);
        return result;
    }
    staffing->settings = *settings;
    *settings = (struct settings){0};
    /* nobody is there to take a connection yet: accepting pauses by itself */
    result = connection_dispatch_resume(staffing->dispatch, staffing->generation);
    if (result < 0) {
        (void)staffing_free(staffing);
        return result;
    }
    *ret_staffing = staffing;
    return 0;
}

struct staffing *staffing_free(struct staffing *staffing)
{
    if (staffing == NULL)
        return NULL;
    for (uint32_t slot = 0; slot < SCOREBOARD_SLOTS; slot++)
        staffing_clear_post(&staffing->posts[slot]);
    staffing->drain_limit = sd_event_source_disable_unref(staffing->drain_limit);
    staffing->liveness = liveness_free(staffing->liveness);
    staffing->dispatch = connection_dispatch_free(staffing->dispatch);
    staffing->children = child_table_free(staffing->children);
    staffing_reload_forget(staffing);
    settings_cleanup(&staffing->settings);
    free(staffing);
    return NULL;
}

void staffing_start(struct staffing *staffing)
{
    unsigned int workers = settings_worker_count(&staffing->settings);
    assert(workers <= SETTINGS_MAX_WORKERS);
    for (uint32_t slot = 0; slot <= workers; slot++)
        staffing->posts[slot].generation = staffing->generation;
    for (uint32_t slot = 0; slot <= workers; slot++)
        start_post(&staffing->posts[slot]);
}

static void kill_all(struct staffing *staffing)
{
    for (uint32_t slot = 0; slot < SCOREBOARD_SLOTS; slot++)
        child_table_kill(staffing->children, slot);
}

static int on_drain_limit(sd_event_source *source, uint64_t time_us, void *userdata)
{
    (void)source;
    (void)time_us;
    struct staffing *staffing = userdata;
    if (staffing_take(staffing, LIFECYCLE_TIME_OVER) == LIFECYCLE_KILL_ALL)
        kill_all(staffing);
    return 0;
}

static void begin_stop(struct staffing *staffing)
{
    staffing_reload_forget(staffing);
    staffing->dispatch = connection_dispatch_free(staffing->dispatch);
    for (uint32_t slot = 0; slot < SCOREBOARD_SLOTS; slot++) {
        staffing_clear_post(&staffing->posts[slot]);
        staffing_drain_slot(staffing, slot);
    }
    unsigned int limit_ms =
        (unsigned int)staffing->settings.shutdown.drain_timeout_ms + DRAIN_MARGIN_MS;
    int result =
        sd_event_add_time_relative(staffing->options.event, &staffing->drain_limit, CLOCK_MONOTONIC,
            limit_ms * MICROSECONDS_PER_MS, STAFFING_TIMER_ACCURACY_US, on_drain_limit, staffing);
    if (result < 0) /* every child has its own */
        log_warn("drain limit failed error=\"%s\"", strerror(-result));
    end_if_empty(staffing);
}

enum lifecycle_action staffing_ask(struct staffing *staffing, enum lifecycle_event event)
{
    enum lifecycle_action action = staffing_take(staffing, event);
    if (action == LIFECYCLE_BEGIN_STOP)
        begin_stop(staffing);
    else if (action == LIFECYCLE_KILL_ALL)
        kill_all(staffing);
    return action;
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

enum lifecycle_state staffing_state(const struct staffing *staffing)
{
    return staffing->state;
}
