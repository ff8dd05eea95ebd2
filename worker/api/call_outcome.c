#include "worker/api/call_outcome.h"

#include <stdlib.h>

#include "common/log.h"

void call_outcome_fail(
    struct rpc_call *call, const struct user_question *question, enum user_outcome outcome)
{
    switch (outcome) {
    case USER_NOT_FOUND:
        rpc_call_fail(call, GRPC_STATUS_NOT_FOUND, "Not found"); /* the legacy service's words */
        return;
    case USER_NAME_INVALID:
        rpc_call_fail(call, GRPC_STATUS_INVALID_ARGUMENT,
            question->message != NULL ? question->message : "username is not valid");
        return;
    case USER_NAME_TAKEN:
        rpc_call_conflict(call, GRPC_STATUS_INVALID_ARGUMENT, "username is already taken");
        return;
    case USER_TOO_MANY:
        rpc_call_fail(
            call, GRPC_STATUS_INVALID_ARGUMENT, "too many ids: at most 10000 are allowed");
        return;
    case USER_EXPIRED:
        rpc_call_fail(call, GRPC_STATUS_DEADLINE_EXCEEDED, "deadline exceeded");
        return;
    case USER_CANCELLED:
        rpc_call_fail(call, GRPC_STATUS_CANCELLED, "cancelled");
        return;
    case USER_OVERLOADED:
        rpc_call_fail(call, GRPC_STATUS_RESOURCE_EXHAUSTED, "too many calls in progress");
        return;
    case USER_HOPELESS:
        rpc_call_fail(call, GRPC_STATUS_RESOURCE_EXHAUSTED, "deadline cannot be met");
        return;
    case USER_STANDBY_AWAY:
        rpc_call_fail(call, GRPC_STATUS_UNAVAILABLE,
            "database commits wait for a synchronous standby: writes are refused");
        return;
    case USER_UNAVAILABLE:
        rpc_call_fail(call, GRPC_STATUS_UNAVAILABLE, "database is not available");
        return;
    case USER_FAILED:
        rpc_call_fail(call, GRPC_STATUS_INTERNAL, "internal error");
        return;
    case USER_DONE:
        break;
    }
    log_error("not a failure where=call_outcome outcome=%d", (int)outcome);
    abort();
}

static void on_wait(struct user_question *question)
{
    rpc_call_watch(question->asker);
}

void call_outcome_prepare(struct rpc_call *call, struct user_question *question,
    void (*on_done)(struct user_question *question, enum user_outcome outcome))
{
    question->on_done = on_done;
    question->deadline_us = rpc_call_deadline_us(call);
    question->is_cancelled = rpc_call_is_cancelled(call);
    question->on_wait = on_wait;
    question->asker = call;
    question->source = rpc_call_source(call);
}
