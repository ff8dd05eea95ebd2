#include "worker/api/user_post_v1.h"

#include <string.h>

#include "common/attributes.h"
#include "worker/api/call_outcome.h"

/* The questions live in their call's arena. */
struct username_call {
    struct user_id_question question;
    struct rpc_call *call;
    UserPost__UserId_Closure closure;
};

struct id_call {
    struct user_name_question question;
    struct rpc_call *call;
    UserPost__UserUsername_Closure closure;
};

struct ids_call {
    struct user_names_question question;
    struct rpc_call *call;
    UserPost__UsersMapResponse_Closure closure;
    UserPost__UsersMapResponse response; /* its entries come one by one */
};

static struct user_service *users_of(UserPost__UserPost_Service *service)
{
    return CONTAINER_OF(service, struct user_post_v1, service)->users;
}

static char *copy_text(struct rpc_call *call, const char *text, size_t length)
{
    char *copy = rpc_call_allocate(call, length + 1);
    return memcpy(copy, text, length);
}

static void on_id_found(struct user_question *question, enum user_outcome outcome)
{
    const struct username_call *state =
        CONTAINER_OF(question, struct username_call, question.question);
    if (outcome != USER_DONE) {
        call_outcome_fail(state->call, question, outcome);
        return;
    }
    UserPost__UserId response = USER_POST__USER_ID__INIT;
    response.id = state->question.ret_auth_id;
    state->closure(&response, state->call);
}

static void user_post_v1_get_by_username(UserPost__UserPost_Service *service,
    const UserPost__GetByUsernameRequest *request, UserPost__UserId_Closure closure, void *call)
{
    struct username_call *state = rpc_call_allocate(call, sizeof(*state));
    state->call = call;
    state->closure = closure;
    state->question.username = request->username;
    state->question.username_length = strlen(request->username);
    call_outcome_prepare(call, &state->question.question, on_id_found);
    user_service_find_id(users_of(service), &state->question);
}

static void on_name_found(struct user_question *question, enum user_outcome outcome)
{
    const struct id_call *state = CONTAINER_OF(question, struct id_call, question.question);
    if (outcome != USER_DONE) {
        call_outcome_fail(state->call, question, outcome);
        return;
    }
    UserPost__UserUsername response;
    user_post__user_username__init(&response);
    response.username =
        copy_text(state->call, state->question.ret_username, state->question.ret_username_length);
    state->closure(&response, state->call);
}

static void user_post_v1_get_by_id(UserPost__UserPost_Service *service,
    const UserPost__GetByIdRequest *request, UserPost__UserUsername_Closure closure, void *call)
{
    struct id_call *state = rpc_call_allocate(call, sizeof(*state));
    state->call = call;
    state->closure = closure;
    state->question.auth_id = request->id;
    call_outcome_prepare(call, &state->question.question, on_name_found);
    user_service_find_name(users_of(service), &state->question);
}

static void add_name(
    struct user_names_question *question, int32_t auth_id, const char *username, size_t length)
{
    struct ids_call *state = CONTAINER_OF(question, struct ids_call, question);
    UserPost__UsersMapResponse *response = &state->response;
    /* Each distinct id comes once, so there cannot be more names than ids. */
    if (response->users == NULL)
        response->users = rpc_call_allocate(
            /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers is meant */
            state->call, question->auth_id_count * sizeof(*response->users));
    UserPost__UsersMapResponse__UsersEntry *entry = rpc_call_allocate(state->call, sizeof(*entry));
    user_post__users_map_response__users_entry__init(entry);
    entry->key = auth_id;
    entry->value = copy_text(state->call, username, length);
    response->users[response->n_users++] = entry;
}

static void on_names_found(struct user_question *question, enum user_outcome outcome)
{
    const struct ids_call *state = CONTAINER_OF(question, struct ids_call, question.question);
    if (outcome == USER_DONE)
        state->closure(&state->response, state->call);
    else
        call_outcome_fail(state->call, question, outcome);
}

static void user_post_v1_get_by_ids(UserPost__UserPost_Service *service,
    const UserPost__GetByIdsRequest *request, UserPost__UsersMapResponse_Closure closure,
    void *call)
{
    struct ids_call *state = rpc_call_allocate(call, sizeof(*state));
    state->call = call;
    state->closure = closure;
    user_post__users_map_response__init(&state->response);
    state->question.auth_ids = request->ids;
    state->question.auth_id_count = request->n_ids;
    state->question.on_name = add_name;
    call_outcome_prepare(call, &state->question.question, on_names_found);
    user_service_find_names(users_of(service), &state->question);
}

void user_post_v1_init(struct user_post_v1 *user_post_v1, struct user_service *users)
{
    *user_post_v1 =
        (struct user_post_v1){.service = USER_POST__USER_POST__INIT(user_post_v1_), .users = users};
}
