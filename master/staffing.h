/* Keeps every post filled: one eventd and the configured number of workers, of the configuration in
 * force.
 *
 * Policy over child_table: who is started, started again after a death (respawn_policy), linked,
 * given connections, and replaced in a reload. A reload starts a whole new generation of workers
 * beside the old one; only when all of it is READY, and reaches the database if the old one does,
 * do connections go there and is the old one drained. When one of the new ones dies first, the new
 * ones go and the old ones never notice. eventd is the only one of its kind (two would share
 * Kafka's partitions), so it is replaced in place, after the workers, and only if its program or
 * its part of the configuration is another one. What each event means in each state stands in
 * lifecycle.h.
 */
#ifndef USERD_MASTER_STAFFING_H
#define USERD_MASTER_STAFFING_H

#include <systemd/sd-event.h>

#include "common/settings.h"
#include "master/child_table.h"
#include "master/connection_dispatch.h"
#include "master/lifecycle.h"
#include "master/listener_set.h"

/* A reload is decided by then: eventd's word on it, every new child and its probation have
 * deadlines of their own. */
#define STAFFING_RELOAD_TIMEOUT_MS 90000

struct staffing;

struct staffing_handlers {
    /* Every post has been READY: once after the start. */
    void (*on_complete)(void *userdata);
    /* The reload is over. `failure` NULL: the new configuration is in force. Otherwise why it is
     * not.
     */
    void (*on_reloaded)(const char *failure, void *userdata);
    /* A role cannot be started; nothing is started any more. */
    void (*on_hopeless)(enum child_role role, void *userdata);
    /* After a stop: the last child is gone. */
    void (*on_empty)(void *userdata);
};

struct staffing_options {
    sd_event *event;
    struct scoreboard *scoreboard;
    int scoreboard_fd;
    int outbox_wake_fd;
    struct listener_set *listeners; /* changed when a reload is put in force */
};

/* Takes *settings over on success (it is zeroed). The rest of the options must outlive it. Starts
 * nothing yet. */
MUST_CHECK int staffing_new(const struct staffing_options *options, struct settings *settings,
    const struct staffing_handlers *handlers, void *userdata, struct staffing **ret_staffing);
/* Kills who is left. NULL is fine. Always returns NULL. */
struct staffing *staffing_free(struct staffing *staffing);

void staffing_start(struct staffing *staffing);
struct handover;
/* Puts posts, roles, children and the generation into the hand-over. -EAGAIN: a child has not taken
 * yet what was sent to it. */
MUST_CHECK int staffing_save(const struct staffing *staffing, struct handover *handover);
/* In place of staffing_start(): goes on where the program before was, RUNNING. Takes the children's
 * descriptors. */
MUST_CHECK int staffing_take_over(struct staffing *staffing, const Userd__Handover__State *state);
/* Someone asks for a reload, an upgrade or a stop: what the lifecycle says to it. A stop is carried
 * out here; a reload that may begin is then the caller's to check, and to hand over by
 * staffing_reload() or to call off by asking LIFECYCLE_RELOAD_REFUSED. */
enum lifecycle_action staffing_ask(struct staffing *staffing, enum lifecycle_event event);
/* Begins to replace all by the new configuration: takes *settings and *listeners over on success,
 * and on_reloaded follows, perhaps at once. -ENOSPC: no room for so many workers beside the old
 * ones. */
MUST_CHECK int staffing_reload(
    struct staffing *staffing, struct settings *settings, struct listener_change *listeners);

const struct settings *staffing_settings(const struct staffing *staffing);
/* No child has been silent for so long that it should be gone by now. */
bool staffing_is_answering(const struct staffing *staffing);
uint32_t staffing_generation(const struct staffing *staffing);
enum lifecycle_state staffing_state(const struct staffing *staffing);

#endif
