/* The skeleton of every child: from exec to the first READY, and the way out.
 *
 *   struct process_link link = {0};
 *   process_link_open(&link, PROCESS_ROLE_EVENTD, &handlers, userdata)   reads Start, sets up log,
 * loop, signals
 *   ... build the process on link.event ...
 *   process_link_ready(&link)
 *   process_link_run(&link)      until process_link_exit(), the end of the control channel, or a
 * fatal signal process_link_close(&link)
 *
 * SIGINT, SIGHUP and SIGUSR2 are ignored (the master coordinates), SIGTERM means drain, SIGABRT,
 * SIGQUIT and faults write stacks and end the process (crash_report.h), SIGPIPE is ignored; all are
 * blocked in threads started later. A child is exec'd with the first ones ignored and SIGTERM
 * blocked, so that none of them finds it undecided. Each second the loop writes slot->heartbeat_us:
 * a loop that hangs is seen by the master. When the master's channel ends the loop ends at once: a
 * child never outlives its master.
 */
#ifndef USERD_COMMON_PROCESS_LINK_H
#define USERD_COMMON_PROCESS_LINK_H

#include "common/ipc_channel.h"
#include "common/scoreboard.h"
#include "common/settings.h"

struct process_link;

struct process_link_handlers {
    /* Workers: an accepted connection of listener number `listener`. Take *fd or it is closed;
     * IPC_FD_CUT_OFF: there was no descriptor left for it. The master waits for
     * process_link_answer_connection() with its `number`. */
    void (*on_connection)(
        struct process_link *link, uint32_t listener, uint64_t number, int *fd, void *userdata);
    /* A channel to the process in `slot` (eventd is SCOREBOARD_SLOT_EVENTD). Take *fd or it is
     * closed; IPC_FD_CUT_OFF: there was no descriptor left for it. */
    void (*on_peer_link)(struct process_link *link, uint32_t slot, int *fd, void *userdata);
    /* Workers: `address` (address_key.h) is banned for so long. */
    void (*on_address_ban)(
        struct process_link *link, uint64_t address, unsigned int duration_ms, void *userdata);
    /* Finish what is in flight within `timeout_ms`, then call process_link_exit(). Called at most
     * once. link->is_stop says whether the whole service stops. */
    void (*on_drain)(struct process_link *link, unsigned int timeout_ms, void *userdata);
    /* After on_drain(): the whole service stops now, which it did not then. At most once. May be
     * NULL. */
    void (*on_stop)(struct process_link *link, void *userdata);
};

struct process_link {
    sd_event *event;               /* owned */
    struct settings settings;      /* owned: this role's part */
    struct scoreboard *scoreboard; /* mapped */
    struct scoreboard_slot *slot;  /* ours */
    uint32_t slot_number;
    uint32_t generation;
    int outbox_wake_fd; /* workers: inherited eventfd; -1 otherwise. Owned */
    bool is_stop;       /* while draining: no other process takes over from this one */
    /* private */
    struct ipc_channel *control; /* owned */
    const struct process_link_handlers *handlers;
    void *userdata;
    sd_event_source *heartbeat;   /* owned */
    sd_event_source *early_drain; /* owned: a drain that came before process_link_run() */
    unsigned int drain_timeout_ms;
    uint32_t master_protocol;  /* PROCESS_PROTOCOL_* */
    uint64_t peer_link_number; /* of the last one that came */
    bool is_draining;
    bool has_begun_drain; /* on_drain() was called */
    bool is_running;
};

/* Reads the Start frame (deadline 10 s), fills in everything above. Negative errno, logged, when
 * this process was not started by a master; -ECANCELED: SIGTERM came first. `handlers` members may
 * be NULL where the role has no use for them. */
MUST_CHECK int process_link_open(struct process_link *link, const char *role,
    const struct process_link_handlers *handlers, void *userdata);
/* To the master. As ipc_channel_send(). */
MUST_CHECK int process_link_send(struct process_link *link, const Userd__Ipc__Frame *frame);
MUST_CHECK int process_link_ready(struct process_link *link);
/* The connection is ours now; returned, it is another worker's, and what we have of it is closed
 * without a byte read (a master that knows no returning but while draining is told that it has
 * ended). As ipc_channel_send(). */
MUST_CHECK int process_link_answer_connection(
    struct process_link *link, uint64_t number, bool is_returned);
/* Asks for a new channel to the process in `slot`: on_peer_link() comes if that one is ready, or
 * when it is. -EOPNOTSUPP: this master knows no such request. Else as ipc_channel_send(). */
MUST_CHECK int process_link_ask_for_peer(struct process_link *link, uint32_t slot);
/* A connection from `address` (address_key.h) was reset for what its client did; `reason` is a
 * word. -EOPNOTSUPP: this master has no use for it. Else as ipc_channel_send(). */
MUST_CHECK int process_link_report_offence(
    struct process_link *link, uint64_t address, const char *reason);
/* Runs the loop; returns the exit status for main(). */
int process_link_run(struct process_link *link);
void process_link_exit(struct process_link *link, int status);
void process_link_close(struct process_link *link);

#endif
