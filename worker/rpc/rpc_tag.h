/* What comes back through the completion queue: each pending operation is a tag, a member of the
 * object that it belongs to. The rpc thread runs on_event for each, and nothing else runs on it. */
#ifndef USERD_WORKER_RPC_RPC_TAG_H
#define USERD_WORKER_RPC_RPC_TAG_H

#include <stdbool.h>

struct rpc_tag {
    /* `is_ok` is the operation's success. The object may be freed here when it was the last of its
     * tags. */
    void (*on_event)(struct rpc_tag *tag, bool is_ok);
};

#endif
