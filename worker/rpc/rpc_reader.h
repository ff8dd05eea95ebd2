/* Stands between the C core and the sockets of plaintext connections: what a client sends is looked
 * at (rpc_frames.h) before the C core's parser gets it, and a connection that goes too far ends
 * there, whatever else the machine has to do at that moment. A look from outside (rpc_watch.h)
 * comes only after the harm.
 *
 * The C core has no place for this, but it reads with recvmsg(): the worker has one of its own,
 * which the dynamic linker puts in its way. Should another C core read otherwise, nothing is looked
 * at here and rpc_watch is alone again.
 */
#ifndef USERD_WORKER_RPC_RPC_READER_H
#define USERD_WORKER_RPC_RPC_READER_H

#include "common/attributes.h"
#include "common/scoreboard.h"
#include "common/settings.h"

/* Room for all descriptors that the process may have. Once for a process: the function that all
 * libraries call has no other way to what it needs. Before the C core starts. */
MUST_CHECK int rpc_reader_open(const struct settings *settings, struct scoreboard_slot *slot);
/* When no connection is left. */
void rpc_reader_close(void);
/* The C core is about to get this connection, which has not been read from. Loop thread. */
void rpc_reader_add(int fd, uint32_t listener);

#endif
