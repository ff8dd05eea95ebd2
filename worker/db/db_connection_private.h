/* What db_connection.c and db_silence.c share; no one else includes it. */
#ifndef USERD_WORKER_DB_DB_CONNECTION_PRIVATE_H
#define USERD_WORKER_DB_DB_CONNECTION_PRIVATE_H

#include "worker/db/db_connect.h"
#include "worker/db/db_connection.h"
#include "worker/db/db_pipeline.h"
#include "worker/db/db_probe.h"

struct db_connection {
    sd_event *event; /* owned */
    struct db_options options;
    const struct db_statement *const *statements;
    struct db_connection_handlers handlers;
    void *userdata;
    struct db_connect *attempt;   /* owned: while connecting */
    PGconn *session;              /* owned: while ready */
    sd_event_source *io;          /* owned: the session's socket */
    sd_event_source *timer;       /* owned: the next attempt, or the bound of silence */
    struct db_pipeline pipeline;  /* requests in flight on the session */
    unsigned int handler_depth;   /* handlers that are running now */
    bool is_freed;                /* by a handler: the outermost function here frees */
    unsigned int failed_attempts; /* to connect, since the last session */
    unsigned int early_ends;      /* of sessions, since the last one that lasted */
    int64_t ready_since_us;
    /* The last sign of life: input, the first request after nothing was in flight, or what a probe
     * found. */
    int64_t last_sign_us;
    int64_t last_warning_us;
    /* ---- of the session: what it is asked about when it says nothing ---- */
    struct db_backend backend; /* owned */
    struct db_probe *probe;    /* owned: while it asks */
    int64_t probed_us;         /* when the last probe began or ended */
    int64_t held_since_us;
    bool is_held;
    bool is_given_up; /* while held: for the caller it is lost already */
    bool is_suspect;
    bool is_pinging;
    struct db_request ping;
};

/* The one timer: the next attempt, or what db_silence waits for. */
void db_connection_set_timer(struct db_connection *connection, int64_t delay_us);
/* Around every handler. Leaving: true when the connection still exists. */
void db_connection_enter_handler(struct db_connection *connection);
bool db_connection_leave_handler(struct db_connection *connection);
/* Ends the session: answers what is in flight, says so, and arms the next attempt. */
void db_connection_lose(struct db_connection *connection, const char *reason);

#endif
