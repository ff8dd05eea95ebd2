/* Accepts connections and passes each to the READY worker with the fewest of that listener. Never
 * reads a byte of one.
 *
 * A worker says of each that it has taken it. When it returns it, or dies without a word, the
 * connection goes to another worker, and the client notices nothing: nobody has read of it yet.
 * When no worker has room for it, it is closed.
 *
 * While no worker can take one nothing is accepted: the kernel's backlog holds them. Over a limit a
 * connection is closed at once. When descriptors run out a reserve is given up for a moment to
 * accept and close, so that clients see an answer and the loop does not spin.
 */
#ifndef USERD_MASTER_CONNECTION_DISPATCH_H
#define USERD_MASTER_CONNECTION_DISPATCH_H

#include <systemd/sd-event.h>

#include "common/scoreboard.h"
#include "master/child_table.h"
#include "master/listener_set.h"

struct connection_dispatch;

struct connection_dispatch_options {
    sd_event *event;
    struct child_table *children;
    struct scoreboard *scoreboard;
    const struct listener_set *listeners; /* all must outlive the dispatch */
};

/* Accepts nothing before connection_dispatch_resume(). The limits are those of `settings`. */
MUST_CHECK int connection_dispatch_new(const struct connection_dispatch_options *options,
    const struct settings *settings, struct connection_dispatch **ret_dispatch);
/* Stops accepting; the listeners stay the caller's. NULL is fine. Always returns NULL. */
struct connection_dispatch *connection_dispatch_free(struct connection_dispatch *dispatch);

/* Living connections over a lowered limit stay. -ENOMEM: both hold, but connections over the former
 * limit are not counted by address. */
MUST_CHECK int connection_dispatch_set_limits(
    struct connection_dispatch *dispatch, const struct settings *settings);
/* Lets go of the listeners, so that they can change; their backlogs hold who comes meanwhile. */
void connection_dispatch_pause(struct connection_dispatch *dispatch);
/* Accepts from the listeners as they are now; only workers of this generation get connections. */
MUST_CHECK int connection_dispatch_resume(
    struct connection_dispatch *dispatch, uint32_t generation);
/* Something has changed that may let a worker take connections: looks again. */
void connection_dispatch_refresh(struct connection_dispatch *dispatch);
/* The worker in `slot` has answered for connection `number`: it has taken it, or returns it. */
void connection_dispatch_settle(
    struct connection_dispatch *dispatch, uint32_t slot, uint64_t number, bool is_returned);
/* A worker has reset a connection from this address (common/address_key.h). Returns for how many
 * seconds it is banned from now on, which the workers are to be told; 0: no new ban begins. */
unsigned int connection_dispatch_ban(
    struct connection_dispatch *dispatch, uint64_t address, const char *reason);
/* The process in `slot` is gone, and its connections with it, but for those that it had not taken:
 * these go to others. */
void connection_dispatch_forget_slot(struct connection_dispatch *dispatch, uint32_t slot);
/* Those that no worker has taken yet: for the hand-over. */
struct passed_connections *connection_dispatch_passed(const struct connection_dispatch *dispatch);

#endif
