/* When the relay reads the outbox again, and from which id on. Pure logic.
 *
 * Reads follow each other at once while rows come, and otherwise at 20 ms to 1 s. They begin at a
 * floor that follows the highest id read at a distance of one to two seconds, so that they do not
 * wade through dead rows, and a transaction that drew its id before others and commits after them
 * is still found; one that takes longer is found by a rescan from the beginning every few seconds.
 * Such a transaction may have more rows than one read brings: rescans follow each other for as long
 * as they find rows below the floor.
 */
#ifndef USERD_WORKER_EVENTS_OUTBOX_POLL_H
#define USERD_WORKER_EVENTS_OUTBOX_POLL_H

#include <stdbool.h>
#include <stdint.h>

#define OUTBOX_POLL_SHORTEST_US UINT64_C(20000)
#define OUTBOX_POLL_LONGEST_US  UINT64_C(1000000)
#define OUTBOX_POLL_FLOOR_US    UINT64_C(1000000)
#define OUTBOX_POLL_RESCAN_US   UINT64_C(5000000)

struct outbox_poll {
    int64_t floor;
    int64_t mark;    /* the floor of the next step */
    int64_t highest; /* id that was read */
    uint64_t next_floor_us;
    uint64_t next_rescan_us;
    uint64_t next_us;
    uint64_t interval_us;
};

/* A new session: nothing is known, the first read is due at once. */
void outbox_poll_reset(struct outbox_poll *poll, uint64_t now_us);
/* Someone has written a row. */
void outbox_poll_wake(struct outbox_poll *poll);
bool outbox_poll_is_due(const struct outbox_poll *poll, uint64_t now_us);
/* A read begins: returns the id that it must read above. */
int64_t outbox_poll_begin(struct outbox_poll *poll, uint64_t now_us);
/* It brought `fresh` rows that were not known, the first of them `lowest`; the highest id of all
 * rows was `highest`. */
void outbox_poll_finish(
    struct outbox_poll *poll, uint64_t now_us, uint64_t fresh, int64_t lowest, int64_t highest);

#endif
