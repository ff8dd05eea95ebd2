#include "worker/store/claim_store.h"

/* Renames in flight write their claim before or after this, never beside it: their user's row and
 * claim are seen alike. */
static const struct db_statement lock_claims = {
    .sql = "DO 'BEGIN LOCK TABLE username_claim IN SHARE ROW EXCLUSIVE MODE; END'",
    .is_plain = true,
};
static const struct db_statement remove_stale = {
    .sql = "WITH gone AS (DELETE FROM username_claim c WHERE NOT EXISTS ("
           "SELECT FROM \"user\" u WHERE u.id_auth = c.id_auth AND u.username = c.username)"
           " RETURNING 1) SELECT count(*) FROM gone",
    .is_plain = true,
};
static const struct db_statement find_unclaimed = {
    .sql = "SELECT u.id, u.id_auth, u.username FROM \"user\" u WHERE u.id > $1"
           " AND NOT EXISTS (SELECT FROM username_claim c WHERE c.id_auth = u.id_auth)"
           " ORDER BY u.id LIMIT $2",
    .is_plain = true,
};
/* The users' row locks first, in the order of ids: nobody deletes or renames one while its claim is
 * being written. */
static const struct db_statement insert_claims = {
    .sql = "WITH asked AS MATERIALIZED ("
           "  SELECT u.id_auth, a.canonical, u.username, a.number"
           "  FROM unnest($1::int4[], $2::text[], $3::text[])"
           "  WITH ORDINALITY AS a (id_auth, username, canonical, number)"
           "  JOIN \"user\" u ON u.id_auth = a.id_auth AND u.username = a.username"
           "  ORDER BY u.id_auth FOR SHARE OF u),"
           " claimed AS ("
           "  INSERT INTO username_claim (id_auth, canonical, username)"
           "  SELECT w.id_auth, w.canonical, w.username FROM ("
           "   SELECT DISTINCT ON (canonical COLLATE \"C\") * FROM asked"
           "   ORDER BY canonical COLLATE \"C\", number) w"
           "  ORDER BY w.canonical COLLATE \"C\" ON CONFLICT DO NOTHING RETURNING 1)"
           " SELECT count(*) FROM claimed",
    .is_plain = true,
};

void unclaimed_users_cleanup(struct unclaimed_users *users)
{
    PQclear(users->result);
    users->result = NULL;
    users->count = 0;
}

int claim_store_remove_stale(struct schema_session *session, int64_t *ret_removed)
{
    PGresult *result = NULL;
    const struct db_step steps[] = {{&lock_claims, NULL}, {&remove_stale, NULL}};
    int error = schema_session_run(session, steps, ARRAY_LENGTH(steps), &result);
    if (error < 0)
        return error;
    *ret_removed = db_result_int8(result, 0, 0);
    PQclear(result);
    return 0;
}

int claim_store_find_unclaimed(
    struct schema_session *session, int32_t row_id, struct unclaimed_users *ret_users)
{
    struct db_parameters parameters CLEANUP(db_parameters_cleanup) = {0};
    PGresult *result = NULL;
    db_parameters_add_int4(&parameters, row_id);
    db_parameters_add_int8(&parameters, CLAIM_STORE_BATCH);
    const struct db_step step = {&find_unclaimed, &parameters};
    int error = schema_session_run(session, &step, 1, &result);
    if (error < 0)
        return error;
    ret_users->result = result;
    ret_users->count = (size_t)PQntuples(result);
    for (size_t i = 0; i < ret_users->count; i++) {
        struct unclaimed_user *user = &ret_users->users[i];
        user->row_id = db_result_int4(result, (int)i, 0);
        user->auth_id = db_result_int4(result, (int)i, 1);
        user->username = db_result_bytes(result, (int)i, 2, &user->username_length);
    }
    return 0;
}

int claim_store_insert(struct schema_session *session, const struct new_claim *claims, size_t count,
    int64_t *ret_inserted)
{
    struct db_parameters parameters CLEANUP(db_parameters_cleanup) = {0};
    PGresult *result = NULL;
    db_parameters_array_begin(&parameters, DB_ELEMENT_INT4);
    for (size_t i = 0; i < count; i++)
        db_parameters_array_int4(&parameters, claims[i].user->auth_id);
    db_parameters_array_end(&parameters);
    db_parameters_array_begin(&parameters, DB_ELEMENT_TEXT);
    for (size_t i = 0; i < count; i++)
        db_parameters_array_bytes(
            &parameters, claims[i].user->username, claims[i].user->username_length);
    db_parameters_array_end(&parameters);
    db_parameters_array_begin(&parameters, DB_ELEMENT_TEXT);
    for (size_t i = 0; i < count; i++)
        db_parameters_array_bytes(&parameters, claims[i].canonical, claims[i].canonical_length);
    db_parameters_array_end(&parameters);
    const struct db_step step = {&insert_claims, &parameters};
    int error = schema_session_run(session, &step, 1, &result);
    if (error < 0)
        return error;
    *ret_inserted = db_result_int8(result, 0, 0);
    PQclear(result);
    return 0;
}
