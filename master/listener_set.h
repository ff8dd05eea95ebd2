/* All that the service listens on, and how a reload changes it.
 *
 * A change is prepared beside the set that serves: what is new is bound, so that an address in use
 * is known before anything is given up, and what stays keeps its socket with all that waits in it.
 * Nothing of the set changes before the commit.
 */
#ifndef USERD_MASTER_LISTENER_SET_H
#define USERD_MASTER_LISTENER_SET_H

#include "common/settings.h"
#include "common/settings_complaints.h"
#include "master/listener.h"

struct listener_set {
    struct listener items[SETTINGS_MAX_LISTENERS]; /* owned; in the order of the configuration */
    size_t count;
    uint32_t arrangement; /* goes up when a commit gives a number to another listener */
};

struct listener_change {
    struct listener items[SETTINGS_MAX_LISTENERS]; /* owned; without a socket where one is kept */
    int kept_from[SETTINGS_MAX_LISTENERS];         /* place in the set that serves; -1: new */
    size_t count;
};

/* The first ones: from systemd, or bound. Complaints have file and line. */
MUST_CHECK int listener_set_open(struct listener_set *set, const struct settings *settings,
    const char *file, struct settings_complaints *complaints);
/* Closes all. */
void listener_set_close(struct listener_set *set);

/* A listener is the same one when its name and address are, or, called anew, its address is. One
 * from systemd keeps its socket as long as its name stays, since its address is systemd's. */
MUST_CHECK int listener_set_prepare(const struct listener_set *set, const struct settings *next,
    const char *file, struct settings_complaints *complaints, struct listener_change *ret_change);
/* Puts the change in force and closes what is left over. The change is then empty. */
void listener_set_commit(struct listener_set *set, struct listener_change *change);
/* Closes what was bound for it. An empty change is fine. */
void listener_set_abandon(struct listener_change *change);

#endif
