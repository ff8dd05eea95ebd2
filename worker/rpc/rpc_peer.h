/* One client connection as its calls see it: what it holds of the worker, and its fair share.
 *
 * The bounds are of the worker as a whole. A connection may hold no more of each than is still free
 * (Choudhury and Hahne, Dynamic Queue Length Thresholds, 1998): one that floods gets half at most,
 * ten that flood a twelfth each, and there is always room for one that asks for little. Owns no
 * descriptor: rpc_intake has that. The C core says of a call only the name of its connection, by
 * which it is found here.
 */
#ifndef USERD_WORKER_RPC_RPC_PEER_H
#define USERD_WORKER_RPC_RPC_PEER_H

#include <grpc/grpc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/attributes.h"
#include "common/keyed_hash.h"
#include "common/scoreboard.h"
#include "common/settings.h"

#define RPC_PEER_NAME_BYTES 96
#define RPC_PEER_BUCKETS    1024

/* What is held, as counters that only grow: each has one writer, so that none needs a locked
 * instruction. A call waits from its arrival to its answer, and is unsent from there until the C
 * core has sent all of it or has given it up. */
/* NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding): padded to cache lines */
struct rpc_peer_use {
    _Alignas(CACHE_LINE_SIZE) _Atomic uint64_t arrived; /* rpc thread, as all but the last two */
    _Atomic uint64_t answered_at_once;                  /* by the rpc thread */
    _Atomic uint64_t finished;
    _Atomic uint64_t cancelled; /* by the client, before the deadline */
    _Atomic uint64_t served;    /* ended otherwise: calls and streams that got their answer */
    _Alignas(CACHE_LINE_SIZE) _Atomic uint64_t answered; /* by the loop thread */
    atomic_size_t bytes; /* of requests that wait and answers that are unsent; both threads */
};

struct rpc_peer_set;
struct rpc_account;

struct rpc_peer {
    struct rpc_peer_use use;
    struct rpc_peer_set *set;
    struct rpc_peer *next; /* guarded by the set's lock: of its bucket, or of the free ones */
    atomic_uint references;
    uint32_t number; /* small, no other living one's; 0: of all that have no known connection */
    uint32_t listener;
    atomic_uint streams;         /* that are open; written by the rpc thread */
    struct rpc_account *account; /* owned: of its address, until rpc_peer_close(); may be NULL */
    int descriptor;              /* the C core's of it; loop thread (rpc_reader.c) */
    char name[RPC_PEER_NAME_BYTES];
    /* From here on: also for a thread that still reads an ended connection, while the object
     * becomes another one's. Only one at a time, and the object is never freed before. */
    _Atomic uint16_t
        serial; /* of the connections that this object has been; see rpc_peer_says_open() */
    _Atomic uint64_t open_requests; /* packed; written by who reads the connection */
    _Atomic uint64_t headers;       /* frames; likewise */
};

/* What is to come of requests whose HEADERS are here, as the reader of the connection says it: how
 * many there are, in units (rpc_open_limit.h), and since when the oldest is. */
struct rpc_peer_open {
    uint32_t units;
    uint32_t since_ms; /* CLOCK_MONOTONIC in ms; goes round */
};

/* One for each worker. */
struct rpc_peer_set {
    struct rpc_peer_use use; /* of all together */
    struct rpc_peer unknown;
    uint64_t calls_limit; /* that wait, and as many unsent ones */
    size_t bytes_limit;
    pthread_mutex_t lock; /* guards the buckets, the free peers and the number */
    struct rpc_peer *buckets[RPC_PEER_BUCKETS];
    struct rpc_peer *free_peers; /* owned; each keeps its number */
    uint32_t last_number;
    struct keyed_hash hash; /* of names */
};

void rpc_peer_set_init(struct rpc_peer_set *set, const struct settings *settings);
/* No peer is left but free ones. */
void rpc_peer_set_cleanup(struct rpc_peer_set *set);

/* How the C core names the connection behind `fd` (or, `is_by_number`, one that it was given with
 * grpc_server_add_channel_from_fd()). False: it has no name of its own. */
MUST_CHECK bool rpc_peer_write_name(
    int fd, bool is_by_number, char ret_name[static RPC_PEER_NAME_BYTES]);

/* A new connection, before the C core gets it. Never NULL: without memory all such share the
 * unknown one. rpc_peer_close() when it has ended. */
struct rpc_peer *rpc_peer_open(struct rpc_peer_set *set, uint32_t listener, const char *name);
void rpc_peer_close(struct rpc_peer *peer);

/* The connection of that name, and that of a call; never NULL. rpc_peer_release() it. */
struct rpc_peer *rpc_peer_find(struct rpc_peer_set *set, uint32_t listener, const char *name);
struct rpc_peer *rpc_peer_of_call(struct rpc_peer_set *set, uint32_t listener, grpc_call *call);
void rpc_peer_release(struct rpc_peer *peer);

/* Who reads a connection may be late: its object may be another connection's by then. `serial` is
 * the one that the object had when the reader was told of it. Any thread. */
void rpc_peer_say_open(
    struct rpc_peer *peer, uint16_t serial, struct rpc_peer_open open, uint64_t headers);
/* What was said of the present connection. */
struct rpc_peer_open rpc_peer_says_open(const struct rpc_peer *peer);

/* ---- the steps of a call ---- */

/* Rpc thread. */
void rpc_peer_add_arrived(struct rpc_peer *peer);
/* NULL when the call that has just arrived is within the connection's share, or why it is not. */
MUST_CHECK const char *rpc_peer_refusal(const struct rpc_peer *peer);
/* What its request takes, decoded, until it is answered. */
void rpc_peer_add_request(struct rpc_peer *peer, size_t bytes);
/* The same of what is no unary call: streams and their messages. Any thread. */
void rpc_peer_add_held(struct rpc_peer *peer, size_t bytes);
void rpc_peer_remove_held(struct rpc_peer *peer, size_t bytes);
/* Whether an answer of so many bytes is within the connection's share. Any thread. */
MUST_CHECK bool rpc_peer_has_room(const struct rpc_peer *peer, size_t bytes);
/* The call has an answer: `request_bytes` go, `reply_bytes` come. */
void rpc_peer_add_answered(
    struct rpc_peer *peer, bool is_loop_thread, size_t request_bytes, size_t reply_bytes);
/* Rpc thread: the answer has left, or never will. */
void rpc_peer_add_finished(struct rpc_peer *peer, size_t reply_bytes);
/* Rpc thread: the client took the call back. */
void rpc_peer_add_cancelled(struct rpc_peer *peer);
/* Rpc thread: a call or stream is over, and neither its client nor its deadline nor an error of the
 * connection ended it. */
void rpc_peer_add_served(struct rpc_peer *peer);

uint64_t rpc_peer_use_waiting(const struct rpc_peer_use *use);
uint64_t rpc_peer_use_unsent(const struct rpc_peer_use *use);

#endif
