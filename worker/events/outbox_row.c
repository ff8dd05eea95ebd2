#include "worker/events/outbox_row.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/failpoint.h"
#include "common/log.h"
#include "worker/events/event_channel.h"
#include "worker/events/outbox_message.h"

#define BATCH_ROWS       500
#define BATCH_BYTES      ((size_t)1024 * 1024)
#define QUEUED_BYTES_MAX ((size_t)8 * 1024 * 1024)

struct outbox_row *outbox_row_of(struct outbox_entry *entry)
{
    return CONTAINER_OF(entry, struct outbox_row, entry);
}

int outbox_row_add(
    struct outbox_window *window, const struct outbox_store_row *stored, uint64_t now_us)
{
    struct outbox_row *row = calloc(1, sizeof(*row));
    if (row == NULL)
        return -ENOMEM;
    int result = outbox_message_new(stored, &row->message);
    if (result < 0) {
        free(row);
        return result;
    }
    /* The database says how old the row is, our clock how long ago it said so: theirs may differ.
     */
    row->created_us = (int64_t)now_us - stored->age_us;
    row->entry.id = stored->id;
    row->entry.auth_id = stored->auth_id;
    row->entry.has_auth_id = stored->has_auth_id;
    row->entry.destination = (unsigned int)row->message->destination;
    if (row->entry.destination >= OUTBOX_WINDOW_DESTINATIONS)
        row->entry.destination = 0;
    row->entry.bytes = outbox_message_size(row->message);
    outbox_window_add(window, &row->entry);
    return 0;
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

void outbox_row_show_backlog(
    struct scoreboard_slot *slot, const struct outbox_window *window, uint64_t now_us)
{
    atomic_store_explicit(&slot->outbox_backlog, window->count, memory_order_relaxed);
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
