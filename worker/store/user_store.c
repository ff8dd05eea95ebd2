#include "worker/store/user_store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "common/log.h"
#include "common/monotonic_clock.h"
#include "worker/store/user_store_private.h"

/* How late the answer to a question that waits behind a slow database may come after its deadline.
 */
#define SWEEP_INTERVAL_US 20000
#define SWEEP_ACCURACY_US 5000

int64_t user_store_now_us(void)
{
    return (int64_t)monotonic_clock_us();
}

bool user_store_is_conflict(const char *sqlstate)
{
    return strcmp(sqlstate, "40001") == 0 || strcmp(sqlstate, "40P01") == 0;
}

bool user_store_is_passing(const char *sqlstate)
{
    /* Connection trouble, insufficient resources, operator intervention (statement_timeout too),
     * and what a new session will not know any more: a stale plan, a lost statement, a server that
     * became read-only, an open transaction block. */
    static const char *const prefixes[] = {"08", "53", "57", "0A000", "26000", "25006", "25P02"};
    for (size_t i = 0; i < ARRAY_LENGTH(prefixes); i++)
        if (strncmp(sqlstate, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    return false;
}

void user_store_wake_relay(const struct user_store *store)
{
    if (store->options.outbox_wake_fd >= 0)
        (void)eventfd_write(store->options.outbox_wake_fd, 1);
}

static bool has_waiting(const struct user_store *store)
{
    for (size_t i = 0; i < USER_QUESTION_KINDS; i++)
        if (!question_queue_is_empty(&store->queues[i]))
            return true;
    return false;
}

static bool is_write_kind(enum user_question_kind kind)
{
    return kind == USER_QUESTION_RENAME || kind == USER_QUESTION_DELETE;
}

/* Sends one batch of a kind if there is anything to send and room for it. */
static bool dispatch_kind(struct user_store *store, enum user_question_kind kind)
{
    if (is_write_kind(kind) && store_lanes_refuses_writes(store->lanes)) {
        question_queue_answer_all(&store->queues[kind], USER_STANDBY_AWAY);
        return false;
    }
    if (question_queue_is_empty(&store->queues[kind]) || store->is_one_in_flight[kind] ||
        !store_lanes_has_room(
            store->lanes, is_write_kind(kind), kind == USER_QUESTION_NAMES_OF_MANY))
        return false;
    return user_batch_start(store, kind);
}

static void arm_sweep(struct user_store *store)
{
    int enabled = SD_EVENT_OFF;
    if (!has_waiting(store) || sd_event_source_get_enabled(store->sweep_timer, &enabled) > 0)
        return;
    int error = sd_event_source_set_time_relative(store->sweep_timer, SWEEP_INTERVAL_US);
    if (error >= 0)
        error = sd_event_source_set_enabled(store->sweep_timer, SD_EVENT_ONESHOT);
    if (error < 0)
        log_error("sweep timer cannot be set error=%d", error);
}

void user_store_dispatch(struct user_store *store)
{
    if (!store_lanes_is_available(store->lanes)) {
        for (size_t i = 0; i < USER_QUESTION_KINDS; i++)
            question_queue_answer_all(&store->queues[i], USER_UNAVAILABLE);
        return;
    }
    /* Kinds take turns, one batch each, as long as any can go. */
    unsigned int idle_kinds = 0;
    while (idle_kinds < USER_QUESTION_KINDS) {
        enum user_question_kind kind = (enum user_question_kind)store->next_kind;
        store->next_kind = (store->next_kind + 1) % USER_QUESTION_KINDS;
        idle_kinds = dispatch_kind(store, kind) ? 0 : idle_kinds + 1;
    }
    arm_sweep(store);
}

static int on_wake(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct user_store *store = userdata;
    (void)source;
    (void)fd;
    (void)revents;
    question_intake_take(&store->intake, store->queues);
    user_store_dispatch(store);
    return 0;
}

static int on_sweep(sd_event_source *source, uint64_t time_us, void *userdata)
{
    struct user_store *store = userdata;
    (void)source;
    (void)time_us;
    int64_t now_us = user_store_now_us();
    for (size_t i = 0; i < USER_QUESTION_KINDS; i++)
        question_queue_sweep(&store->queues[i], now_us);
    arm_sweep(store);
    return 0;
}

static void on_trouble(const char *reason, void *userdata)
{
    struct user_store *store = userdata;
    if (store->options.slot && !store_lanes_is_available(store->lanes))
        scoreboard_absence_set(&store->options.slot->absence, reason);
}

static void note_availability(struct scoreboard_slot *slot, bool is_available)
{
    atomic_store_explicit(&slot->is_database_ready, is_available, memory_order_relaxed);
    if (is_available)
        scoreboard_absence_end(&slot->absence);
    else
        scoreboard_absence_set(&slot->absence, "the connection was lost");
}

static void on_availability(bool is_available, void *userdata)
{
    struct user_store *store = userdata;
    atomic_store_explicit(&store->intake.is_open, is_available, memory_order_relaxed);
    if (store->options.slot)
        note_availability(store->options.slot, is_available);
    if (!is_available)
        user_store_dispatch(store); /* answers what waits */
    if (store->options.on_availability)
        store->options.on_availability(is_available, store->options.userdata);
}

static void on_room(void *userdata)
{
    struct user_store *store = userdata;
    user_store_dispatch(store); /* first: the database works while the answers leave */
    store->options.on_answered(store->options.userdata);
}

void user_store_ask(
    struct user_store *store, struct user_question *question, enum user_question_kind kind)
{
    enum user_outcome outcome;
    bool is_large = kind == USER_QUESTION_NAMES && question->cost > USER_BATCH_IDS;
    question->kind = is_large ? USER_QUESTION_NAMES_OF_MANY : kind;
    if (!question_intake_put(&store->intake, question, &outcome))
        question->on_done(question, outcome);
}

bool user_store_is_idle(const struct user_store *store)
{
    return atomic_load_explicit(&store->intake.waiting, memory_order_relaxed) == 0 &&
           store->batches_in_flight == 0 && store->others_in_flight == 0;
}

static int start(struct user_store *store)
{
    const struct db_statement *const statements[USER_STORE_STATEMENTS] = {
        user_read_names.statement,
        user_read_id.statement,
        user_write_rename.statement,
        user_write_delete.statement,
        &event_store_new_registrations,
        &event_store_registrations,
        &event_store_deletions,
        &position_store_find,
        &position_store_other_clusters,
        &reconcile_store_find,
        &reconcile_store_apply,
        &position_store_identity,
    };
    memcpy((void *)store->statements, (const void *)statements, sizeof(statements));
    const struct store_lanes_options lanes_options = {
        .event = store->event,
        .settings = store->options.settings,
        .slot_number = store->options.slot_number,
        .statements = store->statements,
        .on_availability = on_availability,
        .on_trouble = on_trouble,
        .on_room = on_room,
        .userdata = store,
    };
    if (store->options.slot)
        scoreboard_absence_set(&store->options.slot->absence, "not connected yet");
    int error = sd_event_add_io(store->event, &store->wake_source, store->intake.wake_fd,
        EPOLLIN | EPOLLET, on_wake, store); /* each write is an edge: nobody needs to read it */
    if (error < 0)
        return error;
    error = sd_event_add_time_relative(
        store->event, &store->sweep_timer, CLOCK_MONOTONIC, 0, SWEEP_ACCURACY_US, on_sweep, store);
    if (error < 0)
        return error;
    error = sd_event_source_set_enabled(store->sweep_timer, SD_EVENT_OFF);
    if (error < 0)
        return error;
    return store_lanes_new(&lanes_options, &store->lanes);
}

int user_store_new(const struct user_store_options *options, struct user_store **ret_store)
{
    /* aligned_alloc: the intake's counters keep a cache line to themselves. */
    struct user_store *store = aligned_alloc(_Alignof(struct user_store), sizeof(*store));
    if (!store)
        return -ENOMEM;
    memset(store, 0, sizeof(*store));
    store->options = *options;
    store->intake.wake_fd = -1;
    store->event = sd_event_ref(options->event);
    for (size_t i = 0; i < USER_QUESTION_KINDS; i++)
        store->queues[i].intake = &store->intake;
    int error = keyed_hash_init(&store->hash) ? 0 : -EIO;
    if (error >= 0)
        error =
            question_intake_init(&store->intake, (size_t)options->settings->limits.queued_calls);
    if (error >= 0)
        error = start(store);
    if (error < 0) {
        user_store_free(store);
        return error;
    }
    *ret_store = store;
    return 0;
}

struct user_store *user_store_free(struct user_store *store)
{
    if (!store)
        return NULL;
    atomic_store(&store->intake.is_open, false);
    store->lanes = store_lanes_free(store->lanes);
    question_intake_take(&store->intake, store->queues);
    for (size_t i = 0; i < USER_QUESTION_KINDS; i++) {
        question_queue_answer_all(&store->queues[i], USER_UNAVAILABLE);
        question_queue_cleanup(&store->queues[i]);
    }
    while (store->free_batches) {
        struct user_batch *batch = store->free_batches;
        store->free_batches = batch->next_free;
        user_batch_free(batch);
    }
    sd_event_source_disable_unref(store->wake_source);
    sd_event_source_disable_unref(store->sweep_timer);
    question_intake_cleanup(&store->intake);
    db_parameters_cleanup(&store->parameters);
    sd_event_unref(store->event);
    free(store);
    return NULL;
}
