/* The worker's end of the channel to eventd: the outbox relay speaks through it and the event
 * intake listens to it. At most one eventd at a time; a new channel ends the old one, and with it
 * everything that was in flight there. While there is none it asks for one, ever more slowly:
 * eventd may have died, and then the next one brings it, or one of both sides could not go on with
 * it.
 */
#ifndef USERD_WORKER_EVENTS_EVENT_PEER_H
#define USERD_WORKER_EVENTS_EVENT_PEER_H

#include <systemd/sd-event.h>

#include "common/attributes.h"
#include "common/scoreboard.h"
#include "common/settings.h"
#include "worker/user/user_service.h"

struct event_peer;

struct event_peer_options {
    sd_event *event;
    const struct settings *settings; /* must outlive it */
    const struct scoreboard *scoreboard;
    struct scoreboard_slot *slot;
    uint32_t slot_number;
    struct user_service *user_service;
    struct user_store *user_store;
    int outbox_wake_fd; /* read by the relay; the caller's */
    /* Asks for another channel to eventd: event_peer_connect(), if it comes. */
    void (*ask_for_channel)(void *userdata);
    void *userdata;
};

/* Starts the relay (its own database connection, and over it the outbox's lease). Loop thread, as
 * all below. */
MUST_CHECK int event_peer_new(
    const struct event_peer_options *options, struct event_peer **ret_peer);
struct event_peer *event_peer_free(struct event_peer *peer);

/* Takes *fd: the channel to a (new) eventd. Negative: there was no descriptor left for it. */
void event_peer_connect(struct event_peer *peer, int *fd);
/* The user store's database is (not) reachable: tells eventd, which then sends its batches
 * elsewhere. */
void event_peer_set_available(struct event_peer *peer, bool is_available);
/* Takes no new batch and gives up the outbox's lease; true when nothing is in flight any more. */
void event_peer_drain(struct event_peer *peer);
bool event_peer_is_idle(const struct event_peer *peer);

#endif
