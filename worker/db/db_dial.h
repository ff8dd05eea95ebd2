/* Reaches a server of a connection's parameters: looks names up, and tries one host and address
 * after the other, each within a time limit of its own. A server that accepts connections and then
 * says nothing (a frozen machine) costs its limit, and the next one is tried.
 *
 * Sends nothing of its own: what makes a session of the connection is db_connect's. Loop thread
 * only.
 */
#ifndef USERD_WORKER_DB_DB_DIAL_H
#define USERD_WORKER_DB_DB_DIAL_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/attributes.h"
#include "worker/db/db_target.h"

struct db_dial_options {
    const char *url;              /* libpq URL or keywords; must outlive the dial, as all here */
    const char *application;      /* application_name, unless the URL has one */
    int timeout_ms;               /* for looking up the names, and then for each host and address */
    const struct db_target *only; /* the one server to try; NULL: those of the URL */
};

struct db_dial_handlers {
    /* Connected, in blocking mode; the session is the receiver's to finish. */
    void (*on_connected)(PGconn *session, void *userdata);
    /* No server is left to try. `is_final`: each of them refused for a reason that stays until
     * somebody changes a setting (a wrong password, a missing database). `has_answered`: one of
     * them was reached and refused. Both texts and the dial live until the handler returns, which
     * may free the dial. */
    void (*on_failed)(const char *reason, bool is_final, bool has_answered, void *userdata);
};

struct db_dial;

/* Handlers never run inside. `handlers` and `options` must outlive it. */
MUST_CHECK int db_dial_new(sd_event *event, const struct db_dial_options *options,
    const struct db_dial_handlers *handlers, void *userdata, struct db_dial **ret_dial);
/* NULL is fine. Always returns NULL. */
struct db_dial *db_dial_free(struct db_dial *dial);

/* After on_connected: that server would not do, for this reason; goes on with the next one. May run
 * on_failed inside. */
void db_dial_next(struct db_dial *dial, const char *reason, bool is_final);
/* CLOCK_MONOTONIC: when the time limit of the present server is over. */
uint64_t db_dial_deadline_us(const struct db_dial *dial);

/* The SQLSTATE in a message that libpq wrote with PQERRORS_VERBOSE. False: there is none. */
bool db_dial_find_sqlstate(const char *message, char ret_sqlstate[6]);
/* Whether trying again cannot help until somebody changes a setting. */
bool db_dial_is_final(const char *sqlstate);

#endif
