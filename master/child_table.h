/* The children: who is in which slot of the scoreboard, in which state, and the control channel to
 * each.
 *
 * Mechanism only. It starts, drains, kills and reaps when told so, and reports READY and the end of
 * each child; what to do about either is staffing's business. A child that misses a deadline
 * (READY after its start, leaving after Drain or after its channel has ended) is killed here.
 */
#ifndef USERD_MASTER_CHILD_TABLE_H
#define USERD_MASTER_CHILD_TABLE_H

#include <stdbool.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "common/ipc_channel.h"
#include "common/scoreboard.h"
#include "common/settings.h"

#include "handover.pb-c.h"

enum child_role { CHILD_EVENTD, CHILD_WORKER, CHILD_ROLE_COUNT };

/* How a child ended. */
struct child_end {
    pid_t pid;
    uint32_t generation;
    int exit_status;       /* -1: by a signal */
    int64_t ready_life_us; /* RESPAWN_LIFE_NEVER_READY: it never was */
    bool was_asked;        /* it had been told to drain */
};

struct child_table_handlers {
    void (*on_ready)(uint32_t slot, void *userdata);
    /* What else it says. -EPROTO ends its channel: it had no business to say that. */
    int (*on_frame)(uint32_t slot, const Userd__Ipc__Frame *frame, void *userdata);
    /* The slot is empty again: the handler may start a new child in it. */
    void (*on_gone)(uint32_t slot, const struct child_end *end, void *userdata);
};

struct child_table_options {
    sd_event *event;
    struct scoreboard *scoreboard; /* must outlive the table, as the descriptors must */
    int scoreboard_fd;
    int outbox_wake_fd; /* inherited by every worker */
};

struct child_table;

/* Takes over SIGCHLD, which must be blocked; reaps every child of this process, its own or not (pid
 * 1 has those). */
MUST_CHECK int child_table_new(const struct child_table_options *options,
    const struct child_table_handlers *handlers, void *userdata, struct child_table **ret_table);
/* Living children are killed and waited for. NULL is fine. Always returns NULL. */
struct child_table *child_table_free(struct child_table *table);

/* Starts the slot's role with its part of `settings`. The slot must be empty. Failures are logged.
 */
MUST_CHECK int child_table_start(
    struct child_table *table, uint32_t slot, uint32_t generation, const struct settings *settings);
/* Tells a child to finish within `timeout_ms`; a second later it is killed. `is_stop`: no other
 * child takes over. An empty slot is fine, so is a second Drain: it changes nothing, unless it is
 * the first with `is_stop`, which is passed on with the time that is left. One that is still
 * starting has nothing to finish and is told all the same. */
void child_table_drain(
    struct child_table *table, uint32_t slot, unsigned int timeout_ms, bool is_stop);
void child_table_kill(struct child_table *table, uint32_t slot);
/* SIGABRT: it writes its stacks and ends, where it still can. */
void child_table_abort(struct child_table *table, uint32_t slot);
/* To a READY child. -ENOTCONN when it is not, else as ipc_channel_send(). */
MUST_CHECK int child_table_send(
    struct child_table *table, uint32_t slot, const Userd__Ipc__Frame *frame, int fd);

enum child_role child_table_role(uint32_t slot);
const char *child_table_role_name(enum child_role role);
enum process_state child_table_state(const struct child_table *table, uint32_t slot);
uint32_t child_table_generation(const struct child_table *table, uint32_t slot);
size_t child_table_queued_bytes(const struct child_table *table, uint32_t slot);
/* What a table in the next program needs to go on with the child. False: the slot is empty. */
bool child_table_save(
    const struct child_table *table, uint32_t slot, Userd__Handover__Child *ret_saved);
/* Goes on with a child of the program before; its descriptor is taken, also on failure. */
MUST_CHECK int child_table_adopt(struct child_table *table, const Userd__Handover__Child *saved);
/* False when its program was replaced on disk since it was started. */
bool child_table_runs_present_program(const struct child_table *table, uint32_t slot);
/* False when eventd was started before the files that kafka.options name became what they are:
 * `files` is of kafka_files_fingerprint(). */
bool child_table_has_read(const struct child_table *table, uint32_t slot, uint64_t files);
size_t child_table_living(const struct child_table *table);

#endif
