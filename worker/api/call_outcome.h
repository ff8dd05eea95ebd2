/* What a client is told when a question about users has no good answer: the one place where
 * outcomes become gRPC statuses and words. */
#ifndef USERD_WORKER_API_CALL_OUTCOME_H
#define USERD_WORKER_API_CALL_OUTCOME_H

#include "worker/rpc/rpc_call.h"
#include "worker/store/user_store.h"

/* `outcome` is any but USER_DONE. Answers the call. */
void call_outcome_fail(
    struct rpc_call *call, const struct user_question *question, enum user_outcome outcome);

/* Fills in what every question takes from its call. */
void call_outcome_prepare(struct rpc_call *call, struct user_question *question,
    void (*on_done)(struct user_question *question, enum user_outcome outcome));

#endif
