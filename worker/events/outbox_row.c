#include "worker/events/outbox_row.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/failpoint.h"
#include "common/log.h"
#include "worker/events/event_channel.h"
#include "worker/events/outbox_message.h"

#define BATCH_ROWS        500
#define BATCH_BYTES       ((size_t)1024 * 1024)
#define ERRORS_PER_SECOND 2
#define QUEUED_BYTES_MAX  ((size_t)8 * 1024 * 1024)

struct outbox_row *outbox_row_of(struct outbox_entry *entry)
{
    return CONTAINER_OF(entry, struct outbox_row, entry);
}

static int add_row(
    struct outbox_window *window, const struct outbox_store_row *stored, uint64_t now_us)
{
    struct outbox_row *row = calloc(1, sizeof(*row));
    if (row == NULL)
        return -ENOMEM;
    int result = outbox_message_new(stored, &row->message);
    /* What no program of ours has written is left to people, and holds up nobody. */
    if (result == -EPROTO)
        row->parked_because = strdup("its headers cannot be read");
    if (result < 0 && row->parked_because == NULL) {
        free(row);
        return -ENOMEM;
    }
    /* The database says how old the row is, our clock how long ago it said so: theirs may differ.
     */
    row->created_us = (int64_t)now_us - stored->age_us;
    row->entry.id = stored->id;
    row->entry.auth_id = stored->auth_id;
    row->entry.has_auth_id = stored->has_auth_id;
    row->entry.destination = (unsigned int)stored->destination;
    if (row->entry.destination >= OUTBOX_WINDOW_DESTINATIONS)
        row->entry.destination = 0;
    row->entry.bytes = row->message == NULL ? 0 : outbox_message_size(row->message);
    outbox_window_add(window, &row->entry);
    if (row->parked_because != NULL) {
        row->entry.state = OUTBOX_DONE;
        log_error("outbox row can never be published outbox_id=%" PRIi64 " reason=\"%s\": parked",
            stored->id, row->parked_because);
    }
    return 0;
}

static void note_left(struct log_limit *limit, int64_t id, int error)
{
    unsigned int suppressed = 0;
    if (log_limit_allows(limit, ERRORS_PER_SECOND, &suppressed))
        log_error("outbox row cannot be read outbox_id=%" PRIi64
                  " error=%d suppressed=%u: it and those behind it are read again",
            id, error, suppressed);
}

struct outbox_reading outbox_row_take_all(struct outbox_window *window, const PGresult *result,
    int asked_rows, uint64_t now_us, struct log_limit *limit)
{
    struct outbox_reading reading = {0};
    int rows = outbox_store_snapshot(result, &reading.oldest_running_xid, &reading.own_xid);
    reading.is_full = rows == asked_rows;
    for (int i = 0; i < rows && !reading.is_cut; i++) {
        struct outbox_store_row stored;
        outbox_store_row(result, i, &stored);
        bool is_known = outbox_window_find(window, stored.id) != NULL;
        int error = is_known ? 0 : add_row(window, &stored, now_us);
        if (error < 0) {
            note_left(limit, stored.id, error);
            reading.is_cut = true;
            continue;
        }
        reading.highest = stored.id;
        if (!is_known && reading.fresh++ == 0)
            reading.lowest = stored.id;
    }
    return reading;
}

size_t outbox_row_collect_done(const struct outbox_window *window, int64_t *ret_ids, size_t max)
{
    size_t count = 0;
    struct outbox_entry *entry = window->first;
    for (; entry != NULL && count < max; entry = entry->next) {
        if (entry->state == OUTBOX_DONE && outbox_row_of(entry)->parked_because == NULL)
            ret_ids[count++] = entry->id;
    }
    return count;
}

const struct outbox_row *outbox_row_to_park(const struct outbox_window *window)
{
    for (struct outbox_entry *entry = window->first; entry != NULL; entry = entry->next) {
        const struct outbox_row *row = outbox_row_of(entry);
        if (entry->state == OUTBOX_DONE && row->parked_because != NULL)
            return row;
    }
    return NULL;
}

size_t outbox_row_collect_known(
    const struct outbox_window *window, int64_t floor, int64_t ret_ids[OUTBOX_WINDOW_ROWS])
{
    size_t count = 0;
    const struct outbox_entry *entry = window->last;
    for (; entry != NULL && entry->id > floor && count < OUTBOX_WINDOW_ROWS;
         entry = entry->previous)
        ret_ids[count++] = entry->id;
    return count;
}

static uint64_t age_of(struct outbox_entry *entry, uint64_t now_us)
{
    int64_t age_us = (int64_t)now_us - outbox_row_of(entry)->created_us;
    return age_us > 0 ? (uint64_t)age_us : 0;
}

void outbox_row_note_delivered(
    struct scoreboard_slot *slot, struct outbox_entry *entry, uint64_t now_us)
{
    uint64_t age_us = age_of(entry, now_us);
    scoreboard_add(&slot->publish_latency[latency_histogram_bucket(age_us)], 1);
    scoreboard_add(&slot->publish_latency_sum_us, age_us);
}

void outbox_row_note_failed(struct outbox_window *window, uint64_t epoch,
    const Userd__Ipc__PublishFailure *failure, uint64_t now_us)
{
    char *reason = failure->is_permanent ? strdup(failure->reason) : NULL;
    if (reason == NULL) {
        (void)outbox_window_mark_failed(window, epoch, failure->id, now_us);
        return;
    }
    struct outbox_entry *entry = outbox_window_mark_done(window, epoch, failure->id);
    if (entry == NULL) {
        free(reason);
        return;
    }
    outbox_row_of(entry)->parked_because = reason;
    log_error("outbox row can never be published outbox_id=%" PRIi64 " reason=%s: parked",
        failure->id, failure->reason);
}

void outbox_row_show_backlog(struct scoreboard_slot *slot, const struct outbox_window *window,
    uint64_t waiting_rows, uint64_t now_us)
{
    uint64_t count = window->count;
    if (!outbox_window_has_room(window) && waiting_rows > count)
        count = waiting_rows;
    atomic_store_explicit(&slot->outbox_backlog, count, memory_order_relaxed);
    atomic_store_explicit(&slot->outbox_held, window->count, memory_order_relaxed);
    atomic_store_explicit(&slot->outbox_oldest_us,
        window->first == NULL ? 0 : age_of(window->first, now_us), memory_order_relaxed);
}

void outbox_row_free(struct outbox_window *window, struct outbox_entry *entry)
{
    struct outbox_row *row = outbox_row_of(entry);
    outbox_window_remove(window, entry);
    row->message = outbox_message_free(row->message);
    free(row->parked_because);
    free(row);
}

/* Sends one frame's worth of rows; the number of rows. */
static size_t send_batch(
    struct outbox_window *window, struct event_peer *peer, uint64_t serial, uint64_t now_us)
{
    Userd__Ipc__OutboxRow *rows[BATCH_ROWS];
    size_t count = 0;
    size_t bytes = 0;
    struct outbox_entry *entry = outbox_window_next_sendable(window, NULL, now_us);
    while (entry != NULL && count < BATCH_ROWS && bytes < BATCH_BYTES) {
        rows[count++] = outbox_row_of(entry)->message;
        bytes += entry->bytes;
        outbox_window_mark_sent(window, entry);
        entry = outbox_window_next_sendable(window, entry, now_us);
    }
    if (count == 0)
        return 0;
    Userd__Ipc__PublishBatch batch = USERD__IPC__PUBLISH_BATCH__INIT;
    batch.epoch = window->epoch;
    batch.n_rows = count;
    batch.rows = rows;
    Userd__Ipc__Frame frame = USERD__IPC__FRAME__INIT;
    frame.body_case = USERD__IPC__FRAME__BODY_PUBLISH_BATCH;
    frame.publish_batch = &batch;
    if (event_channel_send(peer, serial, &frame) == 0) {
        FAILPOINT("relay.sent");
        return count;
    }
    /* The channel's end follows, and with it a new epoch. */
    for (size_t i = 0; i < count; i++)
        (void)outbox_window_mark_failed(window, window->epoch, rows[i]->id, now_us);
    return 0;
}

void outbox_row_send_all(struct outbox_window *window, struct event_peer *peer, uint64_t now_us)
{
    uint64_t serial = event_channel_serial(peer);
    while (serial != 0 && event_channel_queued_bytes(peer) < QUEUED_BYTES_MAX) {
        if (send_batch(window, peer, serial, now_us) == 0)
            return;
    }
}
