#include "worker/api/user_v1.h"

#include <string.h>

#include "common/attributes.h"
#include "worker/api/call_outcome.h"

/* The questions live in their call's arena. */
struct delete_call {
    struct user_delete question;
    struct rpc_call *call;
    User__Empty_Closure closure;
};

struct get_call {
    struct user_name_question question;
    struct rpc_call *call;
    User__UserOutResponse_Closure closure;
};

struct update_call {
    struct user_rename question;
    struct rpc_call *call;
    User__UserOutResponse_Closure closure;
};

static struct user_service *users_of(User__User_Service *service)
{
    return CONTAINER_OF(service, struct user_v1, service)->users;
}

static void answer_username(struct rpc_call *call, User__UserOutResponse_Closure closure,
    const char *username, size_t length)
{
    User__UserOutResponse response;
    user__user_out_response__init(&response);
    response.username = rpc_call_allocate(call, length + 1);
    memcpy(response.username, username, length);
    closure(&response, call);
}

static void on_deleted(struct user_question *question, enum user_outcome outcome)
{
    const struct delete_call *state = CONTAINER_OF(question, struct delete_call, question.question);
    if (outcome != USER_DONE) {
        call_outcome_fail(state->call, question, outcome);
        return;
    }
    const User__Empty response = USER__EMPTY__INIT;
    state->closure(&response, state->call);
}

static void user_v1_delete_user(User__User_Service *service, const User__UserDeleteRequest *request,
    User__Empty_Closure closure, void *call)
{
    struct delete_call *state = rpc_call_allocate(call, sizeof(*state));
    state->call = call;
    state->closure = closure;
    state->question.auth_id = request->id;
    state->question.traceparent = rpc_call_traceparent(call);
    call_outcome_prepare(call, &state->question.question, on_deleted);
    user_service_delete(users_of(service), &state->question);
}

static void on_name_found(struct user_question *question, enum user_outcome outcome)
{
    const struct get_call *state = CONTAINER_OF(question, struct get_call, question.question);
    if (outcome == USER_DONE)
        answer_username(state->call, state->closure, state->question.ret_username,
            state->question.ret_username_length);
    else
        call_outcome_fail(state->call, question, outcome);
}

static void user_v1_get_user(User__User_Service *service, const User__UserGetRequest *request,
    User__UserOutResponse_Closure closure, void *call)
{
    struct get_call *state = rpc_call_allocate(call, sizeof(*state));
    state->call = call;
    state->closure = closure;
    state->question.auth_id = request->id;
    call_outcome_prepare(call, &state->question.question, on_name_found);
    user_service_find_name(users_of(service), &state->question);
}

static void on_renamed(struct user_question *question, enum user_outcome outcome)
{
    const struct update_call *state = CONTAINER_OF(question, struct update_call, question.question);
    if (outcome != USER_DONE)
        call_outcome_fail(state->call, question, outcome);
    else if (state->question.ret_is_unchanged)
        answer_username(
            state->call, state->closure, state->question.username, state->question.username_length);
    else
        answer_username(
            state->call, state->closure, state->question.stored, state->question.stored_length);
}

static void user_v1_user_update(User__User_Service *service, const User__UserUpdateRequest *request,
    User__UserOutResponse_Closure closure, void *call)
{
    struct update_call *state = rpc_call_allocate(call, sizeof(*state));
    state->call = call;
    state->closure = closure;
    state->question.auth_id = request->id;
    state->question.username = request->username;
    state->question.username_length = strlen(request->username);
    call_outcome_prepare(call, &state->question.question, on_renamed);
    user_service_rename(users_of(service), &state->question);
}

void user_v1_init(struct user_v1 *user_v1, struct user_service *users)
{
    *user_v1 = (struct user_v1){.service = USER__USER__INIT(user_v1_), .users = users};
}
