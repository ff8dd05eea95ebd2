/* Joins workers and eventd: a channel of their own between each READY worker and the READY eventd.
 *
 * The master makes the pair, sends one end to each and keeps neither: it never sees what they say.
 * A replaced process gets new links, for each link is made when the later one of the two becomes
 * READY. One that has ended while both live is made again when the worker asks for it.
 */
#ifndef USERD_MASTER_PEER_LINKS_H
#define USERD_MASTER_PEER_LINKS_H

#include "master/child_table.h"

/* Starts zeroed. Numbers tell a request for the link after the last from one that has crossed it on
 * the way. They begin anew in a master that has replaced itself: then a worker may get a link too
 * many, which ends the one before. */
struct peer_links {
    uint64_t last_number;
    uint64_t numbers[SCOREBOARD_SLOTS]; /* of the last link of each worker */
};

/* The process in `slot` has just become READY: links it with its counterparts. Failures are logged;
 * the one whose end could not be delivered is killed, since half a link would stay silent for ever.
 */
void peer_links_on_ready(struct peer_links *links, struct child_table *children, uint32_t slot);
/* The worker in `slot` has lost its link, the last that came to it having been `number`. A failure
 * is logged: the worker asks again. */
void peer_links_on_request(
    struct peer_links *links, struct child_table *children, uint32_t slot, uint64_t number);

#endif
