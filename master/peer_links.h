/* Joins workers and eventd: a channel of their own between each READY worker and the READY eventd.
 *
 * The master makes the pair, sends one end to each and keeps neither: it never sees what they say.
 * A replaced process gets new links, for each link is made when the later one of the two becomes
 * READY.
 */
#ifndef USERD_MASTER_PEER_LINKS_H
#define USERD_MASTER_PEER_LINKS_H

#include "master/child_table.h"

/* The process in `slot` has just become READY: links it with its counterparts. Failures are logged;
 * the one whose end could not be delivered is killed, since half a link would stay silent for ever.
 */
void peer_links_on_ready(struct child_table *children, uint32_t slot);

#endif
