/* The gRPC side of a worker: the C core, its completion queue and the one rpc thread that polls it.
 *
 * One grpc_server for each listener, all on one completion queue: a listener serves just the
 * services that its setting names, and health and reflection. Connections come from the master,
 * already accepted. Knows nothing of users.
 */
#ifndef USERD_WORKER_RPC_RPC_SERVER_H
#define USERD_WORKER_RPC_RPC_SERVER_H

#include <protobuf-c/protobuf-c.h>
#include <systemd/sd-event.h>

#include "common/attributes.h"
#include "common/scoreboard.h"
#include "common/settings.h"

struct rpc_server;

struct rpc_server_options {
    sd_event *event;                 /* the loop thread's: connections, drain */
    const struct settings *settings; /* must outlive the server */
    struct scoreboard_slot *slot;
    /* Every service that can be served, found by its descriptor's name; called on the rpc thread.
     */
    ProtobufCService *const *services;
    size_t service_count;
    /* The connection `number` is with the C core, or has ended; returned: not here, and nothing was
     * read of it. Once for each rpc_server_add_connection(). Loop thread. */
    void (*on_connection_settled)(uint64_t number, bool is_returned, void *userdata);
    /* A connection from this address (common/address_key.h) was reset for what its client did; a
     * static word says why. Loop thread. */
    void (*on_offence)(uint64_t address, const char *reason, void *userdata);
    const _Atomic uint64_t
        *short_at_us; /* scoreboard.h: when connections were short; may be NULL */
    void *userdata;
};

/* Checks that each listener's services exist; starts the C core and the rpc thread. Loop thread. */
MUST_CHECK int rpc_server_new(
    const struct rpc_server_options *options, struct rpc_server **ret_server);
struct rpc_server *rpc_server_free(struct rpc_server *server);

/* Hands an accepted connection to the C core. Takes *fd. Loop thread. */
void rpc_server_add_connection(
    struct rpc_server *server, uint32_t listener, uint64_t number, int *fd);
/* The address is banned for so long: its connections that take part in what it is banned for go.
 * Loop thread. */
void rpc_server_ban_address(struct rpc_server *server, uint64_t address, unsigned int duration_ms);
/* What health says, for "" and for each service. Any thread. */
void rpc_server_set_serving(struct rpc_server *server, bool is_serving);
/* Sends the answers that are ready: for whoever has just given the last of many. Loop thread. */
void rpc_server_flush(struct rpc_server *server);
/* GOAWAY where the core bridge has it, then waits for connections to end, at most `timeout_ms`,
 * then shuts the C core down; `on_drained` runs once on the loop thread. rpc_server_free() may be
 * called then if `is_clean`; otherwise threads are still in the C core and in what it uses, and the
 * process has to end without freeing any of it. Connections that have no call and do not leave by
 * themselves are ended after a few seconds; `is_stop`: after less than a second, since nobody
 * serves their clients meanwhile. */
void rpc_server_drain(struct rpc_server *server, unsigned int timeout_ms, bool is_stop,
    void (*on_drained)(bool is_clean, void *userdata), void *userdata);
/* In a drain: it has become a stop. */
void rpc_server_stop(struct rpc_server *server);

#endif
