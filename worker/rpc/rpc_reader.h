/* Stands between the C core and the sockets of plaintext connections: what a client sends is looked
 * at (rpc_frames.h, rpc_budget.h) before the C core's parser gets it, and a connection that goes
 * too far ends there, whatever else the machine has to do at that moment. A look from outside
 * (rpc_watch.h) comes only after the harm.
 *
 * The C core reads one socket again and again as long as there are bytes, and does all that comes
 * of them, before the call into it returns that began this. Here a connection is told that there is
 * nothing more (EAGAIN) when it has had a thread for RPC_READER_SLICE_US. The C core then waits for
 * the socket to become readable, which it is told at once: it goes on after the others.
 *
 * The C core has no place for this, but it reads with recvmsg(): the worker has one of its own,
 * which the dynamic linker puts in its way. Should another C core read otherwise, nothing is looked
 * at here: a worker finds out at its start (rpc_reader_check.h), and is stricter then.
 */
#ifndef USERD_WORKER_RPC_RPC_READER_H
#define USERD_WORKER_RPC_RPC_READER_H

#include <stdbool.h>
#include <sys/socket.h>

#include "common/attributes.h"
#include "common/scoreboard.h"
#include "common/settings.h"
#include "worker/rpc/rpc_peer.h"

/* Of one turn, before the bytes that were read last are worked through. */
#define RPC_READER_SLICE_US 10000

/* Room for all descriptors that the process may have. Once for a process: the function that all
 * libraries call has no other way to what it needs. Before the C core starts. */
MUST_CHECK int rpc_reader_open(const struct settings *settings, struct scoreboard_slot *slot);
/* Whom to tell that a connection was reset; they must outlive it. Before the C core starts. */
struct rpc_account_set;
void rpc_reader_set_accounts(struct rpc_account_set *accounts);
/* When no connection is left. */
void rpc_reader_close(void);
/* The C core is about to get this connection, which has not been read from. Its calls are counted
 * at `peer`, which is looked at until rpc_reader_close(); NULL: nowhere. Loop thread. */
void rpc_reader_add(int fd, uint32_t listener, struct rpc_peer *peer);

/* The connection has ended: what it had open does not count any more once the C core has closed it,
 * whether or not it has read its end. Before rpc_peer_close(). Loop thread. */
void rpc_reader_end(const struct rpc_peer *peer);

/* Bytes of it have passed here. For rpc_reader_check.h. */
bool rpc_reader_has_read(int fd);
/* Whether the connections of this descriptor are looked at here. */
bool rpc_reader_follows(int fd);
/* recvmsg(2) on such a descriptor: what the C core gets of it. A descriptor is read by one thread
 * at a time. */
ssize_t rpc_reader_receive(int fd, struct msghdr *message, int flags);

/* This thread is about to call the C core: each connection may have it for a slice from now on. */
void rpc_reader_begin_turn(void);
/* Reads on this thread are signs of life of the rpc thread (rpc_heartbeat_us). */
void rpc_reader_beat_here(void);

#endif
