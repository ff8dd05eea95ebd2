/* When the relay reads the outbox again, and from which id on. Pure logic.
 *
 * A read that brought all that it asked for is followed by another at once. Otherwise a read begins
 * no sooner than 5 ms after the one before it began: what is committed in the meantime shares it,
 * and a lone row after a quiet time is read at once. Without rows reads slow down from 20 ms to 1
 * s.
 *
 * They begin at a floor, so that they do not wade through dead rows. The order of a user's events
 * stands on what a floor leaves out: a row below it that becomes visible later would be published
 * behind a younger one. So an id that was read becomes the mark together with a transaction id that
 * this very read was given: whoever had drawn a lower outbox id by then has a lower transaction id.
 * The floor moves to the mark when a later snapshot shows that all transactions below that number
 * have ended, and that read has brought whatever they left. pg_snapshot_xmax() cannot stand for the
 * number: it is one above the highest transaction that has ended, and others from there on may be
 * running. Time alone proves nothing either: a process may be stopped, and a COMMIT may wait for
 * its disk. A read is given a transaction id only when it marks, at most once a second, and never
 * while nothing is written.
 *
 * A writer that draws its id before it has a transaction id is not seen by that: userd's own
 * statements lock the user's row first. For others the floor keeps a distance of one to two
 * seconds, and a rescan from the beginning every few seconds finds what is left; rescans follow
 * each other for as long as they find rows below the floor.
 */
#ifndef USERD_WORKER_EVENTS_OUTBOX_POLL_H
#define USERD_WORKER_EVENTS_OUTBOX_POLL_H

#include <stdbool.h>
#include <stdint.h>

#define OUTBOX_POLL_PACE_US     UINT64_C(5000)
#define OUTBOX_POLL_SHORTEST_US UINT64_C(20000)
#define OUTBOX_POLL_LONGEST_US  UINT64_C(1000000)
#define OUTBOX_POLL_FLOOR_US    UINT64_C(1000000)
#define OUTBOX_POLL_RESCAN_US   UINT64_C(5000000)
#define OUTBOX_POLL_RETRY_US    UINT64_C(100000) /* after a shortage of memory */

struct outbox_poll {
    int64_t floor;
    int64_t mark;      /* above the floor: where it moves next */
    uint64_t mark_xid; /* whoever may bring a row below the mark has a transaction id below this */
    int64_t highest;   /* id that was read */
    bool is_marking;   /* the read that is under way must bring a transaction id of its own */
    uint64_t next_floor_us;
    uint64_t next_rescan_us;
    uint64_t begun_us; /* the last read */
    uint64_t next_us;  /* UINT64_MAX: one is under way, and nothing was written since it began */
    uint64_t interval_us;
};

/* A new session: nothing is known, the first read is due at once. */
void outbox_poll_reset(struct outbox_poll *poll, uint64_t now_us);
/* Someone has written a row. */
void outbox_poll_wake(struct outbox_poll *poll);
bool outbox_poll_is_due(const struct outbox_poll *poll, uint64_t now_us);
/* A read begins: returns the id that it must read above. */
int64_t outbox_poll_begin(struct outbox_poll *poll, uint64_t now_us);
/* It could not be sent: another is due in a while. */
void outbox_poll_abandon(struct outbox_poll *poll, uint64_t now_us);
/* What it brought. */
struct outbox_reading {
    uint64_t fresh;  /* rows that were not known */
    int64_t lowest;  /* id of the fresh ones */
    int64_t highest; /* id of all rows; 0: there were none */
    bool is_full;    /* as many as it asked for: there may be more */
    bool is_cut;     /* rows were left out for lack of memory: `highest` is that of the others */
    uint64_t oldest_running_xid; /* pg_snapshot_xmin() of its snapshot */
    uint64_t own_xid;            /* its own transaction id, given after the snapshot; 0: none */
};
void outbox_poll_finish(
    struct outbox_poll *poll, uint64_t now_us, const struct outbox_reading *reading);

#endif
