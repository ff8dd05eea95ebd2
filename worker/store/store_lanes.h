/* The store's connections to PostgreSQL, and who goes by which one.
 *
 * Answers on one connection come in order, so that a statement that waits for a row lock holds up
 * all behind it. Where there is more than one connection the first is therefore for reads alone,
 * and a read goes behind a write only when nothing else is ready. A large read counts as all that a
 * connection has room for, so that others wait rather than go behind it. When one connection is
 * lost the others are asked whether they live. Loop thread only.
 */
#ifndef USERD_WORKER_STORE_STORE_LANES_H
#define USERD_WORKER_STORE_STORE_LANES_H

#include "common/settings.h"
#include "worker/db/db_connection.h"

#define STORE_LANES_IN_FLIGHT                                                  \
    2 /* that take room on one connection: one runs, the next is already there \
       */

struct store_lanes;
struct store_lane;

struct store_request {
    void (*on_answer)(struct store_request *request, const struct db_answer *answer);
    bool is_write;
    bool is_large;   /* a read that takes long: all that are in flight share one connection, and
                        others go by another one if they can */
    bool takes_room; /* one of those that store_lanes_has_room() counts */
    /* Runs after every other ordered request that was submitted before it: all that are in flight
     * share one connection. */
    bool is_ordered;
    /* private while in flight */
    struct db_request request;
    struct store_lane *lane;
};

struct store_lanes_options {
    sd_event *event;
    const struct settings *settings;              /* must outlive it */
    uint32_t slot_number;                         /* for the sessions' application_name */
    const struct db_statement *const *statements; /* ended by NULL; must outlive it */
    /* The first lane has become ready, or the last one is no longer. */
    void (*on_availability)(bool is_available, void *userdata);
    /* Why a lane is not ready. May be NULL. */
    void (*on_trouble)(const char *reason, void *userdata);
    /* There may be room for more. */
    void (*on_room)(void *userdata);
    void *userdata;
};

MUST_CHECK int store_lanes_new(
    const struct store_lanes_options *options, struct store_lanes **ret_lanes);
/* Requests in flight are answered DB_LOST; on_availability and on_room do not run. */
struct store_lanes *store_lanes_free(struct store_lanes *lanes);

bool store_lanes_is_available(const struct store_lanes *lanes);
/* A commit waits for a synchronous standby, as every other one would: what was in flight there has
 * been answered DB_LOST, writes are refused until it is confirmed, and reads go on by the other
 * connections. */
bool store_lanes_refuses_writes(const struct store_lanes *lanes);
/* Nothing is in flight. */
bool store_lanes_is_idle(const struct store_lanes *lanes);
/* Batches of events, of which there is a bounded number, do not count: they come one upon the other
 * as long as there is a backlog, and calls must not wait for its end. */
bool store_lanes_has_room(const struct store_lanes *lanes, bool is_write, bool is_large);
/* Sends, with room or without; as db_connection_submit(). -EAGAIN: writes are refused now. */
MUST_CHECK int store_lanes_submit(struct store_lanes *lanes, struct store_request *request,
    const struct db_step *steps, size_t step_count);

#endif
