/* Whether the C core reads with our recvmsg() (rpc_reader.h). Nothing guarantees it: another C
 * core, or one that is linked in another way, may read otherwise. So it is tried at each start, on
 * a connection to ourselves. */
#ifndef USERD_WORKER_RPC_RPC_READER_CHECK_H
#define USERD_WORKER_RPC_RPC_READER_CHECK_H

#include <stdbool.h>

/* False, and logged: the C core reads past us, or no connection could be made to try it. After
 * rpc_reader_open() and rpc_core_init(), before connections come. */
bool rpc_reader_check(void);

#endif
