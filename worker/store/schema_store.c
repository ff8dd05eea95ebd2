#include "worker/store/schema_store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Any number will do, as long as it is this one in every version of userd. */
#define LOCK_KEY "7310579"

static const struct db_statement try_lock = {
    .sql = "SELECT pg_try_advisory_lock(" LOCK_KEY ")", .is_plain = true};
static const struct db_statement find_holder = {
    .sql = "SELECT format('%s pid %s from %s', coalesce(nullif(a.application_name, ''), 'unnamed'),"
           " l.pid, coalesce(host(a.client_addr), 'a local socket'))"
           " FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)"
           " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1"
           " AND l.classid = 0 AND l.objid = " LOCK_KEY
           " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    .is_plain = true,
};
static const struct db_statement create_table = {
    .sql = "CREATE TABLE IF NOT EXISTS schema_migration ("
           "version integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL,"
           " applied_at timestamptz NOT NULL DEFAULT now())",
    .is_plain = true,
};
static const struct db_statement find_table = {
    .sql = "SELECT to_regclass('schema_migration') IS NOT NULL", .is_plain = true};
static const struct db_statement read_table = {
    .sql = "SELECT version, name, checksum, to_char(applied_at, 'YYYY-MM-DD HH24:MI:SS TZ')"
           " FROM schema_migration ORDER BY version",
    .is_plain = true,
};
static const struct db_statement checksums = {
    .sql = "SELECT encode(sha256(f.content), 'hex')"
           " FROM unnest($1::bytea[]) WITH ORDINALITY AS f (content, number) ORDER BY f.number",
    .is_plain = true,
};
/* A file holds several statements, which only the simple protocol or EXECUTE takes. */
static const struct db_statement set_script = {
    .sql = "SELECT set_config('userd.script', $1, true)", .is_plain = true};
static const struct db_statement run_script = {
    .sql = "DO 'BEGIN EXECUTE current_setting(''userd.script''); END'", .is_plain = true};
static const struct db_statement insert_row = {
    .sql = "INSERT INTO schema_migration (version, name, checksum)"
           " VALUES ($1, $2, encode(sha256(convert_to($3, 'UTF8')), 'hex'))",
    .is_plain = true,
};
static const struct db_statement delete_row = {
    .sql = "DELETE FROM schema_migration WHERE version = $1", .is_plain = true};

static int run_one(struct schema_session *session, const struct db_statement *statement,
    const struct db_parameters *parameters, PGresult **ret_result)
{
    const struct db_step step = {.statement = statement, .parameters = parameters};
    return schema_session_run(session, &step, 1, ret_result);
}

/* Copies a text column, cut to size. */
static void copy_text(const PGresult *result, int row, int column, char *target, size_t size)
{
    (void)snprintf(
        target, size, "%.*s", PQgetlength(result, row, column), PQgetvalue(result, row, column));
}

int schema_store_try_lock(
    struct schema_session *session, bool *ret_is_locked, char *holder, size_t holder_size)
{
    PGresult *result = NULL;
    int error = run_one(session, &try_lock, NULL, &result);
    if (error < 0)
        return error;
    *ret_is_locked = db_result_bool(result, 0, 0);
    PQclear(result);
    if (*ret_is_locked)
        return 0;
    error = run_one(session, &find_holder, NULL, &result);
    if (error < 0)
        return error;
    if (PQntuples(result) > 0)
        copy_text(result, 0, 0, holder, holder_size);
    else
        (void)snprintf(holder, holder_size, "nobody any more");
    PQclear(result);
    return 0;
}

int schema_store_create_table(struct schema_session *session)
{
    return run_one(session, &create_table, NULL, NULL);
}

int schema_store_read(
    struct schema_session *session, struct schema_applied **ret_applied, size_t *ret_count)
{
    PGresult *result = NULL;
    int error = run_one(session, &find_table, NULL, &result);
    if (error < 0)
        return error;
    bool has_table = db_result_bool(result, 0, 0);
    PQclear(result);
    result = NULL;
    if (has_table)
        error = run_one(session, &read_table, NULL, &result);
    if (error < 0)
        return error;

    size_t count = has_table ? (size_t)PQntuples(result) : 0;
    struct schema_applied *applied = calloc(count + 1, sizeof(*applied));
    for (size_t i = 0; applied && i < count; i++) {
        applied[i].version = db_result_int4(result, (int)i, 0);
        copy_text(result, (int)i, 1, applied[i].name, sizeof(applied[i].name));
        copy_text(result, (int)i, 2, applied[i].checksum, sizeof(applied[i].checksum));
        copy_text(result, (int)i, 3, applied[i].applied_at, sizeof(applied[i].applied_at));
    }
    PQclear(result);
    if (!applied)
        return -ENOMEM;
    *ret_applied = applied;
    *ret_count = count;
    return 0;
}

int schema_store_checksums(
    struct schema_session *session, char (*ret_checksums)[SCHEMA_CHECKSUM_SIZE])
{
    struct db_parameters parameters CLEANUP(db_parameters_cleanup) = {0};
    PGresult *result = NULL;
    db_parameters_array_begin(&parameters, DB_ELEMENT_BYTEA);
    for (size_t i = 0; i < schema_migration_count; i++)
        db_parameters_array_bytes(
            &parameters, schema_migrations[i].up, strlen(schema_migrations[i].up));
    db_parameters_array_end(&parameters);
    int error = run_one(session, &checksums, &parameters, &result);
    if (error < 0)
        return error;
    for (size_t i = 0; i < schema_migration_count; i++)
        copy_text(result, (int)i, 0, ret_checksums[i], SCHEMA_CHECKSUM_SIZE);
    PQclear(result);
    return 0;
}

int schema_store_apply(struct schema_session *session, const struct schema_migration *migration)
{
    struct db_parameters script CLEANUP(db_parameters_cleanup) = {0};
    struct db_parameters row CLEANUP(db_parameters_cleanup) = {0};
    db_parameters_add_text(&script, migration->up, strlen(migration->up));
    db_parameters_add_int4(&row, migration->version);
    db_parameters_add_text(&row, migration->name, strlen(migration->name));
    db_parameters_add_text(&row, migration->up, strlen(migration->up));
    const struct db_step steps[] = {
        {&set_script, &script}, {&run_script, NULL}, {&insert_row, &row}};
    return schema_session_run(session, steps, ARRAY_LENGTH(steps), NULL);
}

int schema_store_take_back(struct schema_session *session, const struct schema_migration *migration)
{
    struct db_parameters script CLEANUP(db_parameters_cleanup) = {0};
    struct db_parameters row CLEANUP(db_parameters_cleanup) = {0};
    db_parameters_add_text(&script, migration->down, strlen(migration->down));
    db_parameters_add_int4(&row, migration->version);
    const struct db_step steps[] = {
        {&set_script, &script}, {&run_script, NULL}, {&delete_row, &row}};
    return schema_session_run(session, steps, ARRAY_LENGTH(steps), NULL);
}
