#include "worker/events/outbox_relay.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "common/failpoint.h"
#include "common/log.h"
#include "common/monotonic_clock.h"
#include "worker/db/db_connection.h"
#include "worker/events/event_channel.h"
#include "worker/events/outbox_hold.h"
#include "worker/events/outbox_lease.h"
#include "worker/events/outbox_poll.h"
#include "worker/events/outbox_row.h"
#include "worker/events/outbox_window.h"
#include "worker/store/outbox_store.h"

#define OVERDUE_US        UINT64_C(10000)
#define DRAIN_GRACE_US    UINT64_C(1000000)
#define TIMER_ACCURACY_US 500
#define READ_ROWS         1000
#define DELETE_ROWS       5000
#define DELETE_ENOUGH     500            /* rows that are not kept waiting for others */
#define DELETE_PACE_US    UINT64_C(5000) /* between two deletes of fewer */
#define APPLICATION_SIZE  64
#define ERRORS_PER_SECOND 2

/* What the relay asks the database; one of each at a time. */
enum relay_question { QUESTION_READ, QUESTION_DELETE, QUESTION_PARK, QUESTIONS };

struct relay_request {
    struct db_request request;
    struct outbox_relay *relay;
    bool is_asked;
};

struct outbox_relay {
    const struct event_peer_options *options;
    struct event_peer *peer;
    struct db_connection *connection; /* owned; NULL when drained */
    char application[APPLICATION_SIZE];
    struct relay_request questions[QUESTIONS];
    sd_event_source *timer; /* owned */
    sd_event_source *wake;  /* owned: the outbox's eventfd; only the owner of the lease listens */
    struct outbox_lease lease;
    bool is_draining;
    struct outbox_poll poll;
    uint64_t next_delete_us;
    uint64_t drain_deadline_us;
    int32_t asked_rows;              /* of the read in flight */
    int64_t ids[OUTBOX_WINDOW_ROWS]; /* scratch: of a read */
    size_t done_count;               /* rows that wait for the next delete */
    size_t deleted_count;            /* of the delete in flight, in deleted_ids */
    int64_t deleted_ids[DELETE_ROWS];
    int64_t parked_id; /* of the park in flight */
    struct log_limit error_limit;
    struct outbox_hold hold;
    struct outbox_window window;
};

/* Of what we do not publish the lease shows what it has measured. */
static void show_backlog(struct outbox_relay *relay)
{
    if (relay->lease.is_held)
        outbox_row_show_backlog(relay->options->slot, &relay->window, relay->lease.waiting_rows,
            monotonic_clock_turn_us(relay->options->event));
}

/* The lease is ours no longer, or is new: nothing that we knew counts. */
static void forget_everything(struct outbox_relay *relay)
{
    while (relay->window.first != NULL)
        outbox_row_free(&relay->window, relay->window.first);
    outbox_window_begin_epoch(&relay->window);
    outbox_hold_clear(&relay->hold, &relay->window);
    outbox_poll_reset(&relay->poll, monotonic_clock_turn_us(relay->options->event));
    if (relay->wake != NULL)
        (void)sd_event_source_set_enabled(relay->wake, SD_EVENT_OFF);
    atomic_store_explicit(&relay->options->slot->is_relay, 0, memory_order_relaxed);
}

/* ---- to the database ---- */

static bool is_asked(const struct outbox_relay *relay, enum relay_question question)
{
    return relay->questions[question].is_asked;
}

static void note_asked(struct outbox_relay *relay, enum relay_question question, int result)
{
    relay->questions[question].is_asked = result == 0;
    /* -ENOTCONN: on_ready begins anew. Without memory it is tried again. */
    unsigned int suppressed = 0;
    if (result < 0 && result != -ENOTCONN &&
        log_limit_allows(&relay->error_limit, ERRORS_PER_SECOND, &suppressed))
        log_error("relay cannot ask the database question=%d error=%d suppressed=%u", (int)question,
            result, suppressed);
}

/* Each delete is a COMMIT of its own: rows that are done within a few milliseconds share it. */
static void delete_done_rows(struct outbox_relay *relay, uint64_t now)
{
    if (is_asked(relay, QUESTION_DELETE))
        return;
    size_t count = outbox_row_collect_done(&relay->window, relay->deleted_ids, DELETE_ROWS);
    relay->done_count = count;
    bool is_soon = now < relay->next_delete_us && count < DELETE_ENOUGH && !relay->is_draining;
    if (count == 0 || is_soon)
        return;
    relay->done_count = 0;
    relay->deleted_count = count;
    relay->next_delete_us = now + DELETE_PACE_US;
    FAILPOINT("relay.delete.before");
    note_asked(relay, QUESTION_DELETE,
        outbox_store_delete(relay->connection, &relay->questions[QUESTION_DELETE].request,
            relay->lease.fence, relay->deleted_ids, count));
    FAILPOINT("relay.delete.sent");
}

static void park_done_row(struct outbox_relay *relay)
{
    if (is_asked(relay, QUESTION_PARK))
        return;
    const struct outbox_row *row = outbox_row_to_park(&relay->window);
    if (row == NULL)
        return;
    relay->parked_id = row->entry.id;
    note_asked(relay, QUESTION_PARK,
        outbox_store_park(relay->connection, &relay->questions[QUESTION_PARK].request,
            relay->lease.fence, row->entry.id, row->parked_because));
}

static void read_rows(struct outbox_relay *relay, uint64_t now)
{
    const struct outbox_amount room = outbox_window_room(&relay->window);
    if (is_asked(relay, QUESTION_READ) || room.rows == 0 || !outbox_poll_is_due(&relay->poll, now))
        return;
    int64_t floor = outbox_poll_begin(&relay->poll, now);
    struct outbox_store_query query = {
        .floor = floor,
        .known = relay->ids,
        .known_count = outbox_row_collect_known(&relay->window, floor, relay->ids),
        .held = relay->hold.held,
        .held_count = relay->hold.held_count,
        .max_rows = room.rows > READ_ROWS ? READ_ROWS : (int32_t)room.rows,
        .max_bytes = (int64_t)room.bytes,
        .is_marking = relay->poll.is_marking,
        .fence = relay->lease.fence,
    };
    relay->asked_rows = query.max_rows;
    relay->hold.has_begun = false;
    note_asked(relay, QUESTION_READ,
        outbox_store_read(relay->connection, &relay->questions[QUESTION_READ].request, &query));
    if (!is_asked(relay, QUESTION_READ))
        outbox_poll_abandon(&relay->poll, now);
}

/* Gives up the lease once nothing is on its way, or the grace has passed. */
static void finish_drain(struct outbox_relay *relay, uint64_t now)
{
    bool has_unfinished = relay->window.sent > 0 || is_asked(relay, QUESTION_DELETE) ||
                          is_asked(relay, QUESTION_PARK);
    if (has_unfinished && now < relay->drain_deadline_us)
        return;
    relay->connection = db_connection_free(relay->connection);
    outbox_lease_forget(&relay->lease);
    forget_everything(relay);
}

static void set_timer(struct outbox_relay *relay, uint64_t now)
{
    if (relay->connection == NULL)
        return;
    uint64_t next_us =
        relay->is_draining ? relay->drain_deadline_us : outbox_lease_next_us(&relay->lease);
    if (relay->lease.is_held && !relay->is_draining) {
        uint64_t retry_us = outbox_window_next_retry_us(&relay->window);
        if (outbox_window_has_room(&relay->window) && relay->poll.next_us < next_us)
            next_us = relay->poll.next_us;
        if (retry_us < next_us)
            next_us = retry_us;
        if (relay->done_count > 0 && relay->next_delete_us < next_us)
            next_us = relay->next_delete_us;
        uint64_t hold_us = outbox_hold_next_us(&relay->hold, &relay->window);
        if (hold_us < next_us)
            next_us = hold_us;
    }
    /* What is overdue waits for something else, which comes as an event: no spinning. */
    if (next_us <= now)
        next_us = now + OVERDUE_US;
    (void)sd_event_source_set_time(relay->timer, next_us);
    (void)sd_event_source_set_enabled(relay->timer, SD_EVENT_ONESHOT);
}

/* What a destination does not publish makes room for the others. */
static void update_hold(struct outbox_relay *relay, uint64_t now)
{
    if (outbox_hold_update(&relay->hold, &relay->window, now))
        outbox_poll_reset(&relay->poll, now);
}

static void work_as_owner(struct outbox_relay *relay, uint64_t now)
{
    if (!relay->is_draining)
        outbox_row_send_all(&relay->window, relay->peer, now);
    delete_done_rows(relay, now);
    park_done_row(relay);
    if (outbox_hold_next_us(&relay->hold, &relay->window) <= now)
        update_hold(relay, now);
    if (!relay->is_draining)
        read_rows(relay, now);
}

static void advance(struct outbox_relay *relay)
{
    uint64_t now = monotonic_clock_turn_us(relay->options->event);
    if (outbox_lease_is_overdue(&relay->lease, now)) {
        log_warn("relay cannot renew its lease of the outbox fence=%" PRIi64 ": stops publishing",
            relay->lease.fence);
        db_connection_reset(relay->connection);
    }
    if (relay->connection != NULL && db_connection_is_ready(relay->connection)) {
        if (!relay->is_draining)
            outbox_lease_advance(&relay->lease, relay->connection);
        if (outbox_lease_is_valid(&relay->lease, now))
            work_as_owner(relay, now);
    }
    if (relay->is_draining && relay->connection != NULL)
        finish_drain(relay, now);
    show_backlog(relay);
    set_timer(relay, now);
}

/* ---- answers of the database ---- */

/* Makes the session anew: everything is read again. */
static void begin_anew(struct outbox_relay *relay, const char *what, const struct db_answer *answer)
{
    unsigned int suppressed = 0;
    if (log_limit_allows(&relay->error_limit, ERRORS_PER_SECOND, &suppressed))
        log_error("relay is refused by the database what=%s sqlstate=%s message=\"%s\""
                  " suppressed=%u: beginning anew",
            what, answer->sqlstate, answer->message, suppressed);
    db_connection_reset(relay->connection);
}

/* True when the answer may be read. */
static bool take_answer(
    struct outbox_relay *relay, enum relay_question question, const struct db_answer *answer)
{
    static const char *const names[QUESTIONS] = {
        [QUESTION_READ] = "read", [QUESTION_DELETE] = "delete", [QUESTION_PARK] = "park"};
    relay->questions[question].is_asked = false;
    if (answer->outcome == DB_ERROR)
        begin_anew(relay, names[question], answer);
    return answer->outcome == DB_DONE;
}

static struct outbox_relay *relay_of(struct db_request *request)
{
    return CONTAINER_OF(request, struct relay_request, request)->relay;
}

static void on_read(struct db_request *request, const struct db_answer *answer)
{
    struct outbox_relay *relay = relay_of(request);
    if (!take_answer(relay, QUESTION_READ, answer))
        return;
    uint64_t now = monotonic_clock_turn_us(relay->options->event);
    if (relay->hold.has_begun) { /* it may bring rows behind those that were let go meanwhile */
        outbox_poll_abandon(&relay->poll, now);
        advance(relay);
        return;
    }
    const struct outbox_reading reading = outbox_row_take_all(
        &relay->window, answer->results[0], relay->asked_rows, now, &relay->error_limit);
    if (reading.fresh > 0)
        FAILPOINT("relay.selected");
    outbox_poll_finish(&relay->poll, now, &reading);
    advance(relay);
}

static void on_deleted(struct db_request *request, const struct db_answer *answer)
{
    struct outbox_relay *relay = relay_of(request);
    if (!take_answer(relay, QUESTION_DELETE, answer))
        return;
    FAILPOINT("relay.delete.after");
    for (size_t i = 0; i < relay->deleted_count; i++) {
        struct outbox_entry *entry = outbox_window_find(&relay->window, relay->deleted_ids[i]);
        if (entry != NULL)
            outbox_row_free(&relay->window, entry);
    }
    scoreboard_add(&relay->options->slot->outbox_published, relay->deleted_count);
    advance(relay);
}

static void on_parked(struct db_request *request, const struct db_answer *answer)
{
    struct outbox_relay *relay = relay_of(request);
    if (!take_answer(relay, QUESTION_PARK, answer))
        return;
    struct outbox_entry *entry = outbox_window_find(&relay->window, relay->parked_id);
    if (entry != NULL)
        outbox_row_free(&relay->window, entry);
    scoreboard_add(&relay->options->slot->outbox_parked, 1);
    advance(relay);
}

/* ---- what happens ---- */

static bool can_publish(void *userdata)
{
    const struct outbox_relay *relay = userdata;
    const struct scoreboard_slot *eventd =
        &relay->options->scoreboard->slots[SCOREBOARD_SLOT_EVENTD];
    return event_channel_serial(relay->peer) != 0 &&
           atomic_load_explicit(&eventd->kafka_is_connected, memory_order_relaxed) != 0;
}

static void on_lease_gained(void *userdata)
{
    struct outbox_relay *relay = userdata;
    forget_everything(relay);
    (void)sd_event_source_set_enabled(relay->wake, SD_EVENT_ON);
    atomic_store_explicit(&relay->options->slot->is_relay, 1, memory_order_relaxed);
}

/* With the session the advisory lock ends. */
static void on_lease_lost(void *userdata)
{
    struct outbox_relay *relay = userdata;
    db_connection_reset(relay->connection);
}

static void on_lease_refused(const struct db_answer *answer, void *userdata)
{
    begin_anew(userdata, "lease", answer);
}

static void on_lease_answered(void *userdata)
{
    advance(userdata);
}

static void on_ready(void *userdata)
{
    struct outbox_relay *relay = userdata;
    outbox_lease_forget(&relay->lease);
    advance(relay);
}

static void on_lost(void *userdata)
{
    struct outbox_relay *relay = userdata;
    if (relay->lease.is_held)
        log_info("relay has lost its connection rows=%zu", relay->window.count);
    outbox_lease_forget(&relay->lease);
    forget_everything(relay);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    (void)source;
    (void)usec;
    advance(userdata);
    return 0;
}

static int on_wake(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    (void)source;
    (void)events;
    struct outbox_relay *relay = userdata;
    eventfd_t count = 0;
    (void)eventfd_read(fd, &count);
    outbox_poll_wake(&relay->poll);
    advance(relay);
    return 0;
}

void outbox_relay_on_channel(struct outbox_relay *relay)
{
    outbox_window_begin_epoch(&relay->window);
    advance(relay);
}

void outbox_relay_on_result(struct outbox_relay *relay, const Userd__Ipc__PublishResult *result)
{
    uint64_t now = monotonic_clock_turn_us(relay->options->event);
    FAILPOINT("relay.reported");
    for (size_t i = 0; i < result->n_delivered_ids; i++) {
        struct outbox_entry *entry =
            outbox_window_mark_done(&relay->window, result->epoch, result->delivered_ids[i]);
        if (entry != NULL)
            outbox_row_note_delivered(relay->options->slot, entry, now);
    }
    for (size_t i = 0; i < result->n_failures; i++)
        outbox_row_note_failed(&relay->window, result->epoch, result->failures[i], now);
    if (result->n_failures > 0 || relay->hold.held_count > 0)
        update_hold(relay, now);
    advance(relay);
}

void outbox_relay_drain(struct outbox_relay *relay)
{
    if (relay->is_draining)
        return;
    relay->is_draining = true;
    relay->drain_deadline_us = monotonic_clock_turn_us(relay->options->event) + DRAIN_GRACE_US;
    advance(relay);
}

bool outbox_relay_is_idle(const struct outbox_relay *relay)
{
    return relay->is_draining && relay->connection == NULL;
}

struct outbox_relay *outbox_relay_free(struct outbox_relay *relay)
{
    if (relay == NULL)
        return NULL;
    relay->connection = db_connection_free(relay->connection);
    outbox_lease_forget(&relay->lease);
    forget_everything(relay);
    (void)sd_event_source_disable_unref(relay->timer);
    (void)sd_event_source_disable_unref(relay->wake);
    free(relay);
    return NULL;
}

static int open_sources(struct outbox_relay *relay)
{
    static const struct db_connection_handlers handlers = {
        .on_ready = on_ready, .on_lost = on_lost};
    const struct event_peer_options *options = relay->options;
    int result = sd_event_add_time_relative(
        options->event, &relay->timer, CLOCK_MONOTONIC, 0, TIMER_ACCURACY_US, on_timer, relay);
    if (result >= 0)
        result = sd_event_add_io(
            options->event, &relay->wake, options->outbox_wake_fd, EPOLLIN, on_wake, relay);
    if (result >= 0)
        result = sd_event_source_set_enabled(relay->wake, SD_EVENT_OFF);
    if (result < 0)
        return result;
    (void)snprintf(relay->application, sizeof(relay->application), "userd worker-%u relay",
        options->slot_number);
    outbox_lease_init(&relay->lease, &(const struct outbox_lease_options){
                                         .event = options->event,
                                         .scoreboard = options->scoreboard,
                                         .slot = options->slot,
                                         .slot_number = options->slot_number,
                                         .owner = relay->application,
                                         .can_publish = can_publish,
                                         .on_gained = on_lease_gained,
                                         .on_lost = on_lease_lost,
                                         .on_refused = on_lease_refused,
                                         .on_answered = on_lease_answered,
                                         .userdata = relay,
                                     });
    struct db_options database = {
        .url = options->settings->database.url,
        .application = relay->application,
        .connect_timeout_ms = options->settings->database.connect_timeout_ms,
        .statement_timeout_ms = options->settings->database.statement_timeout_ms,
    };
    return db_connection_new(
        options->event, &database, outbox_store_statements, &handlers, relay, &relay->connection);
}

int outbox_relay_new(const struct event_peer_options *options, struct event_peer *peer,
    struct outbox_relay **ret_relay)
{
    static void (*const on_answers[QUESTIONS])(struct db_request *, const struct db_answer *) = {
        [QUESTION_READ] = on_read,
        [QUESTION_DELETE] = on_deleted,
        [QUESTION_PARK] = on_parked,
    };
    struct outbox_relay *relay = calloc(1, sizeof(*relay));
    if (relay == NULL)
        return -ENOMEM;
    relay->options = options;
    relay->peer = peer;
    for (size_t i = 0; i < QUESTIONS; i++) {
        relay->questions[i].relay = relay;
        relay->questions[i].request.on_answer = on_answers[i];
    }
    int result = keyed_hash_init(&relay->window.hash) ? open_sources(relay) : -EIO;
    if (result < 0) {
        (void)outbox_relay_free(relay);
        return result;
    }
    *ret_relay = relay;
    return 0;
}
