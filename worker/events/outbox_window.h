/* The outbox rows that the relay knows: which may be sent, which are on their way, which are done.
 * Pure logic.
 *
 * Rows of one user are never on their way twice: a row may be sent when every earlier row of the
 * same user that is known has been delivered. Rows about nobody are free. Everything that was on
 * its way when an epoch ended counts as not sent. Bounded in rows and bytes; the relay reads no
 * more while it is full.
 */
#ifndef USERD_WORKER_EVENTS_OUTBOX_WINDOW_H
#define USERD_WORKER_EVENTS_OUTBOX_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OUTBOX_WINDOW_ROWS    5000
#define OUTBOX_WINDOW_ROOM    500 /* rows that a read is worth its while for */
#define OUTBOX_WINDOW_BYTES   ((size_t)8 * 1024 * 1024)
#define OUTBOX_WINDOW_BUCKETS 8192

enum outbox_state {
    OUTBOX_WAITING,
    OUTBOX_SENT,
    OUTBOX_DONE, /* delivered, or never to be: leaves when the database has taken it */
};

/* Embedded in the relay's own row; the relay owns the memory. */
struct outbox_entry {
    int64_t id;
    int32_t auth_id;
    bool has_auth_id;
    size_t bytes;
    enum outbox_state state;
    unsigned int failures;
    uint64_t not_before_us;
    /* private */
    struct outbox_entry *previous;
    struct outbox_entry *next;      /* all, in the order of ids */
    struct outbox_entry *id_next;   /* of one bucket of ids */
    struct outbox_entry *user_next; /* of one bucket of users, in the order of ids */
};

struct outbox_window {
    uint64_t epoch;
    size_t count;
    size_t bytes;
    size_t sent;
    struct outbox_entry *first;
    struct outbox_entry *last;
    struct outbox_entry *ids[OUTBOX_WINDOW_BUCKETS];
    struct outbox_entry *users[OUTBOX_WINDOW_BUCKETS];
};

/* `window` starts zeroed. Any row may be added while this is true, however large it is. */
bool outbox_window_has_room(const struct outbox_window *window);
struct outbox_entry *outbox_window_find(const struct outbox_window *window, int64_t id);
void outbox_window_add(struct outbox_window *window, struct outbox_entry *entry);
void outbox_window_remove(struct outbox_window *window, struct outbox_entry *entry);

/* The first sendable row behind `after` (NULL: of all). */
struct outbox_entry *outbox_window_next_sendable(
    const struct outbox_window *window, const struct outbox_entry *after, uint64_t now_us);
void outbox_window_mark_sent(struct outbox_window *window, struct outbox_entry *entry);
/* The answers; NULL when it answers nothing that is on its way in this epoch. */
struct outbox_entry *outbox_window_mark_done(
    struct outbox_window *window, uint64_t epoch, int64_t id);
struct outbox_entry *outbox_window_mark_failed(
    struct outbox_window *window, uint64_t epoch, int64_t id, uint64_t now_us);
/* The channel ended: what was sent is to be sent again. */
void outbox_window_begin_epoch(struct outbox_window *window);
/* When a row that failed may be sent again; UINT64_MAX: none waits. */
uint64_t outbox_window_next_retry_us(const struct outbox_window *window);

#endif
