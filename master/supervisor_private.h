/* What supervisor.c and supervisor_*.c share; no one else includes it. */
#ifndef USERD_MASTER_SUPERVISOR_PRIVATE_H
#define USERD_MASTER_SUPERVISOR_PRIVATE_H

#include <systemd/sd-event.h>

#include "master/admin_socket.h"
#include "master/listener_set.h"
#include "master/run_directory.h"
#include "master/service_notice.h"
#include "master/settings_check.h"
#include "master/staffing.h"
#include "master/supervisor.h"

#include "handover.pb-c.h"

struct supervisor {
    const char *file;
    struct settings settings; /* owned until staffing takes them over */
    struct run_directory run_directory;
    struct listener_set listeners;          /* owned */
    struct scoreboard *scoreboard;          /* owned */
    int scoreboard_fd;                      /* owned */
    int outbox_wake_fd;                     /* owned */
    sd_event *event;                        /* owned */
    struct staffing *staffing;              /* owned */
    struct service_notice *notice;          /* owned */
    struct admin_socket *admin;             /* owned */
    sd_event_source *upgrade;               /* owned; off unless one is asked for */
    sd_event_source *reload;                /* owned; off unless one is owed */
    struct supervisor_migration *migration; /* owned: until the schema is up; NULL: not asked for */
    int exit_status;                        /* after a stop */
    uint64_t started_at_us;                 /* CLOCK_REALTIME */
    struct settings_complaints reload_warnings; /* owned: of the reload that is under way */
    struct settings next_settings;              /* owned: while eventd is asked about them */
    struct settings_check *settings_check;      /* owned: likewise */
    bool is_upgrading; /* the reload that is under way makes an upgrade whole */
    /* Asked for by signal while the service was on its way to RUNNING: done when it is there. */
    bool owes_reload;
    bool owes_upgrade;
};

/* ---- supervisor_requests.c: what signals and commands ask for ---- */

extern const struct admin_socket_handlers supervisor_admin_handlers;

/* Before anything else, so that no signal is lost. */
MUST_CHECK int supervisor_requests_block_signals(void);
/* The service has come to RUNNING: what was asked for meanwhile is begun, in a turn of its own. */
void supervisor_requests_take_up(struct supervisor *supervisor);
MUST_CHECK int supervisor_requests_take_signals(struct supervisor *supervisor);

/* The new program is in place: the reload that makes the upgrade whole. */
void supervisor_requests_finish_upgrade(struct supervisor *supervisor);

/* As SIGTERM does. */
void supervisor_requests_stop(struct supervisor *supervisor);

/* ---- supervisor_migration.c ---- */

/* Once staffing is there. A failure that does not pass stops the service, with the child's status.
 */
MUST_CHECK int supervisor_migration_begin(struct supervisor *supervisor);
/* What is not committed is rolled back. None under way is fine. */
void supervisor_migration_end(struct supervisor *supervisor);

/* ---- supervisor_reload.c ---- */

/* NULL: it is under way or decided already, and who waits at the admin socket gets the answer.
 * Otherwise why there is none now: logged, and for the caller to say. */
const char *supervisor_reload(struct supervisor *supervisor);
/* Ends a reload that staffing has not taken over yet; its answers are the caller's. */
void supervisor_reload_forget(struct supervisor *supervisor);
/* `text` (or NULL) as one log line for each of its own. */
void supervisor_reload_log(enum log_level level, const char *text);

/* ---- supervisor_upgrade.c ---- */

/* Returns only when this program stays: the reason is in *complaints. */
void supervisor_upgrade(struct supervisor *supervisor, struct settings_complaints *complaints);
/* All that was handed over, into an empty supervisor. */
MUST_CHECK int supervisor_upgrade_adopt(
    struct supervisor *supervisor, const Userd__Handover__State *state);

#endif
