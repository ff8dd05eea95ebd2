#include "worker/store/reconcile_store.h"

#include <errno.h>
#include <stdlib.h>

#include "common/log.h"
#include "worker/store/user_store_private.h"

const struct db_statement reconcile_store_find = {
    .name = "find_unreconciled",
    .sql = "SELECT q.number, u.id_auth, u.username FROM ("
           "  SELECT number, id_auth FROM username_unreconciled ORDER BY number LIMIT $1::int4) q"
           " LEFT JOIN \"user\" u USING (id_auth) ORDER BY q.number",
};

/* Row locks first, in the order of ids: whoever has another name by now is left to the note of that
 * change. A user whom somebody else has locked is passed over, and the note stays: waiting here
 * would hold up the writes of calls behind it. A claim to a name that its user no longer has goes
 * before others are made. */
const struct db_statement reconcile_store_apply = {
    .name = "reconcile_claims",
    .sql = "WITH asked AS MATERIALIZED ("
           "  SELECT u.id_auth, a.canonical, u.username, a.number"
           "  FROM unnest($2::int4[], $3::text[], $4::text[])"
           "  WITH ORDINALITY AS a (id_auth, username, canonical, number)"
           "  JOIN \"user\" u ON u.id_auth = a.id_auth AND u.username = a.username"
           "  ORDER BY u.id_auth FOR SHARE OF u SKIP LOCKED),"
           " stale AS ("
           "  DELETE FROM username_claim c USING asked a"
           "  WHERE c.id_auth = a.id_auth AND c.username <> a.username RETURNING 1),"
           " claimed AS ("
           "  INSERT INTO username_claim (id_auth, canonical, username)"
           "  SELECT w.id_auth, w.canonical, w.username FROM ("
           "   SELECT DISTINCT ON (canonical COLLATE \"C\") * FROM asked"
           "   WHERE canonical IS NOT NULL AND (SELECT count(*) FROM stale) >= 0"
           "   ORDER BY canonical COLLATE \"C\", number) w"
           "  ORDER BY w.canonical COLLATE \"C\" ON CONFLICT DO NOTHING RETURNING 1),"
           " gone AS (DELETE FROM username_unreconciled n WHERE n.number = ANY($1::int8[])"
           "  AND NOT EXISTS (SELECT 1 FROM unnest($2::int4[], $3::text[]) AS a (id_auth, username)"
           "   JOIN \"user\" u ON u.id_auth = a.id_auth AND u.username = a.username"
           "   WHERE a.id_auth = n.id_auth"
           "   AND NOT EXISTS (SELECT 1 FROM asked s WHERE s.id_auth = n.id_auth)) RETURNING 1)"
           " SELECT (SELECT count(*) FROM claimed), (SELECT count(*) FROM stale),"
           "  (SELECT count(*) FROM gone)",
};

struct noted_user {
    int32_t auth_id;
    const char *username; /* of the result */
    size_t username_length;
    char *canonical; /* owned */
    size_t canonical_length;
};

struct reconcile_request {
    struct store_request request;
    struct user_store *store;
    struct reconcile_pass *pass; /* the caller's */
    size_t user_count;
    int64_t numbers[RECONCILE_USERS];
    struct noted_user users[RECONCILE_USERS];
};

static void finish(struct reconcile_request *request, bool is_done)
{
    struct reconcile_pass *pass = request->pass;
    request->store->others_in_flight--;
    for (size_t i = 0; i < request->user_count; i++)
        free(request->users[i].canonical);
    free(request);
    pass->on_done(pass, is_done);
}

/* True when the answer may be read. */
static bool is_answered(const struct db_answer *answer)
{
    if (answer->outcome == DB_ERROR)
        log_warn("claims not reconciled sqlstate=%s message=\"%s\" action=again", answer->sqlstate,
            answer->message);
    return answer->outcome == DB_DONE;
}

static void on_applied(struct store_request *store_request, const struct db_answer *answer)
{
    struct reconcile_request *request =
        CONTAINER_OF(store_request, struct reconcile_request, request);
    if (!is_answered(answer)) {
        finish(request, false);
        return;
    }
    request->pass->ret_users = request->user_count;
    request->pass->ret_claimed = (size_t)db_result_int8(answer->results[0], 0, 0);
    request->pass->ret_stale = (size_t)db_result_int8(answer->results[0], 0, 1);
    request->pass->ret_done = (size_t)db_result_int8(answer->results[0], 0, 2);
    finish(request, true);
}

static void add_users(const struct reconcile_request *request, struct db_parameters *parameters)
{
    db_parameters_array_begin(parameters, DB_ELEMENT_INT8);
    for (size_t i = 0; i < request->pass->ret_noted; i++)
        db_parameters_array_int8(parameters, request->numbers[i]);
    db_parameters_array_end(parameters);
    db_parameters_array_begin(parameters, DB_ELEMENT_INT4);
    for (size_t i = 0; i < request->user_count; i++)
        db_parameters_array_int4(parameters, request->users[i].auth_id);
    db_parameters_array_end(parameters);
    db_parameters_array_begin(parameters, DB_ELEMENT_TEXT);
    for (size_t i = 0; i < request->user_count; i++)
        db_parameters_array_bytes(
            parameters, request->users[i].username, request->users[i].username_length);
    db_parameters_array_end(parameters);
    db_parameters_array_begin(parameters, DB_ELEMENT_TEXT);
    for (size_t i = 0; i < request->user_count; i++)
        db_parameters_array_bytes(
            parameters, request->users[i].canonical, request->users[i].canonical_length);
    db_parameters_array_end(parameters);
}

static int submit(struct reconcile_request *request, const struct db_statement *statement)
{
    const struct db_step step = {statement, &request->store->parameters};
    return store_lanes_submit(request->store->lanes, &request->request, &step, 1);
}

static bool is_known(const struct reconcile_request *request, int32_t auth_id)
{
    for (size_t i = 0; i < request->user_count; i++)
        if (request->users[i].auth_id == auth_id)
            return true;
    return false;
}

/* Takes the rows; a user that was noted several times counts once. */
static int take_users(struct reconcile_request *request, const PGresult *result)
{
    struct reconcile_pass *pass = request->pass;
    for (int row = 0; row < PQntuples(result) && row < RECONCILE_USERS; row++) {
        request->numbers[pass->ret_noted++] = db_result_int8(result, row, 0);
        if (db_result_is_null(result, row, 1) || is_known(request, db_result_int4(result, row, 1)))
            continue;
        struct noted_user *user = &request->users[request->user_count++];
        user->auth_id = db_result_int4(result, row, 1);
        user->username = db_result_bytes(result, row, 2, &user->username_length);
        int error = pass->make_canonical(
            user->username, user->username_length, &user->canonical, &user->canonical_length);
        if (error < 0)
            return error;
    }
    return 0;
}

static void on_found(struct store_request *store_request, const struct db_answer *answer)
{
    struct reconcile_request *request =
        CONTAINER_OF(store_request, struct reconcile_request, request);
    if (!is_answered(answer)) {
        finish(request, false);
        return;
    }
    int error = take_users(request, answer->results[0]);
    if (error < 0 || request->pass->ret_noted == 0) {
        finish(request, error == 0);
        return;
    }
    request->request.on_answer = on_applied;
    db_parameters_reset(&request->store->parameters);
    add_users(request, &request->store->parameters);
    if (submit(request, &reconcile_store_apply) < 0)
        finish(request, false);
}

void reconcile_store_run(struct user_store *store, struct reconcile_pass *pass)
{
    pass->ret_noted = 0;
    pass->ret_users = 0;
    pass->ret_claimed = 0;
    pass->ret_stale = 0;
    pass->ret_done = 0;
    struct reconcile_request *request = calloc(1, sizeof(*request));
    if (!request) {
        pass->on_done(pass, false);
        return;
    }
    request->request = (struct store_request){.on_answer = on_found, .is_write = true};
    request->store = store;
    request->pass = pass;
    store->others_in_flight++;
    db_parameters_reset(&store->parameters);
    db_parameters_add_int4(&store->parameters, RECONCILE_USERS);
    if (submit(request, &reconcile_store_find) < 0)
        finish(request, false);
}
