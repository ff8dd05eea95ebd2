/* The outbox rows that the relay knows: which may be sent, which are on their way, which are done.
 * Pure logic.
 *
 * Rows of one user are never on their way twice: a row may be sent when every earlier row of the
 * same user that is known has been delivered. Rows about nobody are free. Everything that was on
 * its way when an epoch ended counts as not sent. Bounded in rows and bytes, for all destinations
 * together and for each: a destination whose rows are never acknowledged leaves room for the rows
 * of the others. The relay reads no more while there is no room.
 */
#ifndef USERD_WORKER_EVENTS_OUTBOX_WINDOW_H
#define USERD_WORKER_EVENTS_OUTBOX_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/keyed_hash.h"

#define OUTBOX_WINDOW_ROWS    6000
#define OUTBOX_WINDOW_ROOM    500 /* rows that a read is worth its while for */
#define OUTBOX_WINDOW_BYTES   ((size_t)8 * 1024 * 1024)
#define OUTBOX_WINDOW_BUCKETS 8192

/* Of one destination. A row of any size is taken while there is room: it counts for no more than
 * this when room for others is looked for. */
#define OUTBOX_SHARE_ROWS          5000
#define OUTBOX_SHARE_BYTES         ((size_t)6 * 1024 * 1024)
#define OUTBOX_WINDOW_DESTINATIONS 3 /* as enum Destination of proto/ipc.proto; 0 is none */

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
    unsigned int destination; /* below OUTBOX_WINDOW_DESTINATIONS */
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

struct outbox_amount {
    size_t rows;
    size_t bytes;
};

/* What one destination has of the window. */
struct outbox_share {
    struct outbox_amount all;
    struct outbox_amount sent;    /* on their way for the first time */
    struct outbox_amount failing; /* have failed before, and are not done */
    uint64_t answers;             /* about its rows, counted; the end of an epoch is one */
    bool is_held;                 /* nothing of it is read (outbox_hold) */
};

struct outbox_window {
    struct keyed_hash hash; /* of users; the caller's to initialise */
    uint64_t epoch;
    size_t count;
    size_t bytes;
    size_t sent;
    struct outbox_share shares[OUTBOX_WINDOW_DESTINATIONS];
    struct outbox_entry *first;
    struct outbox_entry *last;
    struct outbox_entry *ids[OUTBOX_WINDOW_BUCKETS];
    struct outbox_entry *users[OUTBOX_WINDOW_BUCKETS];
};

/* `window` starts zeroed. How much a read may bring; rows 0: there is no room for one that is worth
 * its while. A row that is larger than the bytes may be added all the same, if it is the only one.
 */
struct outbox_amount outbox_window_room(const struct outbox_window *window);
bool outbox_window_has_room(const struct outbox_window *window);
/* What is not held has as much of the destination as it may. */
bool outbox_window_is_share_full(const struct outbox_share *share);
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
