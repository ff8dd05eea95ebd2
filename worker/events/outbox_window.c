#include "worker/events/outbox_window.h"

#include <assert.h>

#define FIRST_RETRY_US   UINT64_C(200000)
#define LONGEST_RETRY_US UINT64_C(5000000)
#define MAX_DOUBLINGS    5

/* Outbox ids come from a sequence: neighbours go far apart by Fibonacci hashing. */
static size_t id_bucket_of(int64_t id)
{
    return (size_t)(((uint64_t)id * UINT64_C(0x9e3779b97f4a7c15)) >> 32) % OUTBOX_WINDOW_BUCKETS;
}

/* Whoever deletes users chooses theirs. */
static size_t user_bucket_of(const struct outbox_window *window, int32_t auth_id)
{
    return (size_t)keyed_hash_of(&window->hash, (uint32_t)auth_id) % OUTBOX_WINDOW_BUCKETS;
}

static struct outbox_entry **id_bucket(struct outbox_window *window, int64_t id)
{
    return &window->ids[id_bucket_of(id)];
}

static struct outbox_entry **user_bucket(struct outbox_window *window, int32_t auth_id)
{
    return &window->users[user_bucket_of(window, auth_id)];
}

static size_t minus(size_t limit, size_t taken)
{
    return taken < limit ? limit - taken : 0;
}

static size_t least(size_t left, size_t right)
{
    return left < right ? left : right;
}

bool outbox_window_is_share_full(const struct outbox_share *share)
{
    return minus(OUTBOX_SHARE_ROWS, share->all.rows) < OUTBOX_WINDOW_ROOM ||
           share->all.bytes >= OUTBOX_SHARE_BYTES;
}

struct outbox_amount outbox_window_room(const struct outbox_window *window)
{
    struct outbox_amount room = {
        .rows = minus(OUTBOX_WINDOW_ROWS, window->count), .bytes = OUTBOX_WINDOW_BYTES};
    for (size_t i = 0; i < OUTBOX_WINDOW_DESTINATIONS; i++)
        room.bytes = minus(room.bytes, least(window->shares[i].all.bytes, OUTBOX_SHARE_BYTES));
    /* All that a read brings may be of one destination. */
    for (size_t i = 0; i < OUTBOX_WINDOW_DESTINATIONS; i++) {
        const struct outbox_share *share = &window->shares[i];
        if (share->is_held)
            continue;
        room.rows = least(room.rows, minus(OUTBOX_SHARE_ROWS, share->all.rows));
        room.bytes = least(room.bytes, minus(OUTBOX_SHARE_BYTES, share->all.bytes));
    }
    if (room.rows < OUTBOX_WINDOW_ROOM || room.bytes == 0)
        return (struct outbox_amount){0};
    return room;
}

bool outbox_window_has_room(const struct outbox_window *window)
{
    return outbox_window_room(window).rows > 0;
}

static struct outbox_share *share_of(struct outbox_window *window, const struct outbox_entry *entry)
{
    return &window->shares[entry->destination];
}

static void add_to(struct outbox_amount *amount, const struct outbox_entry *entry)
{
    amount->rows++;
    amount->bytes += entry->bytes;
}

static void take_from(struct outbox_amount *amount, const struct outbox_entry *entry)
{
    amount->rows--;
    amount->bytes -= entry->bytes;
}

struct outbox_entry *outbox_window_find(const struct outbox_window *window, int64_t id)
{
    struct outbox_entry *entry = window->ids[id_bucket_of(id)];
    while (entry != NULL && entry->id != id)
        entry = entry->id_next;
    return entry;
}

/* Rows come nearly in order: the place is looked for from the end. */
static void link_in_order(struct outbox_window *window, struct outbox_entry *entry)
{
    struct outbox_entry *before = window->last;
    while (before != NULL && before->id > entry->id)
        before = before->previous;
    entry->previous = before;
    entry->next = before == NULL ? window->first : before->next;
    if (entry->next == NULL)
        window->last = entry;
    else
        entry->next->previous = entry;
    if (before == NULL)
        window->first = entry;
    else
        before->next = entry;
}

void outbox_window_add(struct outbox_window *window, struct outbox_entry *entry)
{
    assert(outbox_window_find(window, entry->id) == NULL);
    assert(entry->destination < OUTBOX_WINDOW_DESTINATIONS);
    entry->state = OUTBOX_WAITING;
    entry->failures = 0;
    entry->not_before_us = 0;
    link_in_order(window, entry);
    struct outbox_entry **bucket = id_bucket(window, entry->id);
    entry->id_next = *bucket;
    *bucket = entry;
    entry->user_next = NULL;
    if (entry->has_auth_id) {
        struct outbox_entry **place = user_bucket(window, entry->auth_id);
        while (*place != NULL && (*place)->id < entry->id)
            place = &(*place)->user_next;
        entry->user_next = *place;
        *place = entry;
    }
    window->count++;
    window->bytes += entry->bytes;
    add_to(&share_of(window, entry)->all, entry);
}

/* It is on its way no more, or leaves. */
static void end_sending(struct outbox_window *window, const struct outbox_entry *entry)
{
    window->sent--;
    if (entry->failures == 0)
        take_from(&share_of(window, entry)->sent, entry);
}

void outbox_window_remove(struct outbox_window *window, struct outbox_entry *entry)
{
    if (entry->previous == NULL)
        window->first = entry->next;
    else
        entry->previous->next = entry->next;
    if (entry->next == NULL)
        window->last = entry->previous;
    else
        entry->next->previous = entry->previous;
    struct outbox_entry **place = id_bucket(window, entry->id);
    while (*place != entry)
        place = &(*place)->id_next;
    *place = entry->id_next;
    if (entry->has_auth_id) {
        place = user_bucket(window, entry->auth_id);
        while (*place != entry)
            place = &(*place)->user_next;
        *place = entry->user_next;
    }
    if (entry->state == OUTBOX_SENT)
        end_sending(window, entry);
    if (entry->failures > 0 && entry->state != OUTBOX_DONE)
        take_from(&share_of(window, entry)->failing, entry);
    take_from(&share_of(window, entry)->all, entry);
    window->count--;
    window->bytes -= entry->bytes;
}

/* No earlier row of the same user is still to be delivered. */
static bool is_first_of_user(const struct outbox_window *window, const struct outbox_entry *entry)
{
    if (!entry->has_auth_id)
        return true;
    const struct outbox_entry *other = window->users[user_bucket_of(window, entry->auth_id)];
    for (; other != entry; other = other->user_next) {
        if (other->auth_id == entry->auth_id && other->state != OUTBOX_DONE)
            return false;
    }
    return true;
}

struct outbox_entry *outbox_window_next_sendable(
    const struct outbox_window *window, const struct outbox_entry *after, uint64_t now_us)
{
    struct outbox_entry *entry = after == NULL ? window->first : after->next;
    for (; entry != NULL; entry = entry->next) {
        if (entry->state == OUTBOX_WAITING && entry->not_before_us <= now_us &&
            is_first_of_user(window, entry))
            return entry;
    }
    return NULL;
}

void outbox_window_mark_sent(struct outbox_window *window, struct outbox_entry *entry)
{
    assert(entry->state == OUTBOX_WAITING);
    entry->state = OUTBOX_SENT;
    window->sent++;
    if (entry->failures == 0)
        add_to(&share_of(window, entry)->sent, entry);
}

static struct outbox_entry *find_sent(struct outbox_window *window, uint64_t epoch, int64_t id)
{
    if (epoch != window->epoch)
        return NULL;
    struct outbox_entry *entry = outbox_window_find(window, id);
    return entry != NULL && entry->state == OUTBOX_SENT ? entry : NULL;
}

struct outbox_entry *outbox_window_mark_done(
    struct outbox_window *window, uint64_t epoch, int64_t id)
{
    struct outbox_entry *entry = find_sent(window, epoch, id);
    if (entry == NULL)
        return NULL;
    end_sending(window, entry);
    entry->state = OUTBOX_DONE;
    share_of(window, entry)->answers++;
    if (entry->failures > 0)
        take_from(&share_of(window, entry)->failing, entry);
    return entry;
}

struct outbox_entry *outbox_window_mark_failed(
    struct outbox_window *window, uint64_t epoch, int64_t id, uint64_t now_us)
{
    struct outbox_entry *entry = find_sent(window, epoch, id);
    if (entry == NULL)
        return NULL;
    unsigned int doublings = entry->failures > MAX_DOUBLINGS ? MAX_DOUBLINGS : entry->failures;
    uint64_t delay_us = FIRST_RETRY_US << doublings;
    entry->not_before_us = now_us + (delay_us > LONGEST_RETRY_US ? LONGEST_RETRY_US : delay_us);
    end_sending(window, entry);
    entry->state = OUTBOX_WAITING;
    share_of(window, entry)->answers++;
    if (entry->failures++ == 0)
        add_to(&share_of(window, entry)->failing, entry);
    return entry;
}

void outbox_window_begin_epoch(struct outbox_window *window)
{
    window->epoch++;
    for (struct outbox_entry *entry = window->first; entry != NULL; entry = entry->next) {
        if (entry->state == OUTBOX_SENT)
            entry->state = OUTBOX_WAITING;
    }
    window->sent = 0;
    for (size_t i = 0; i < OUTBOX_WINDOW_DESTINATIONS; i++) {
        window->shares[i].sent = (struct outbox_amount){0};
        window->shares[i].answers++;
    }
}

uint64_t outbox_window_next_retry_us(const struct outbox_window *window)
{
    uint64_t earliest = UINT64_MAX;
    for (const struct outbox_entry *entry = window->first; entry != NULL; entry = entry->next) {
        if (entry->state == OUTBOX_WAITING && entry->failures > 0 &&
            entry->not_before_us < earliest)
            earliest = entry->not_before_us;
    }
    return earliest;
}
