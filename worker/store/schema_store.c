#include "worker/store/schema_store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/store/schema_version.h"

/* Any number will do, as long as it is this one in every version of userd. */
#define MIGRATION_LOCK "7310579"

#define TRY_LOCK(key) "SELECT pg_try_advisory_lock(" key ")"
#define FIND_HOLDER(key)                                                     \
    "SELECT string_agg(format('%s pid %s from %s',"                          \
    " coalesce(nullif(a.application_name, ''), 'unnamed'), l.pid,"           \
    " coalesce(host(a.client_addr), 'a local socket')), ', ')"               \
    " FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)"              \
    " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1"        \
    " AND l.classid = 0 AND l.objid = " key " AND l.pid <> pg_backend_pid()" \
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"

static const struct db_statement try_lock[] = {
    [SCHEMA_LOCK_MIGRATION] = {.sql = TRY_LOCK(MIGRATION_LOCK), .is_plain = true},
    [SCHEMA_LOCK_USE] = {.sql = TRY_LOCK(SCHEMA_USE_LOCK), .is_plain = true},
};
static const struct db_statement find_holder[] = {
    [SCHEMA_LOCK_MIGRATION] = {.sql = FIND_HOLDER(MIGRATION_LOCK), .is_plain = true},
    [SCHEMA_LOCK_USE] = {.sql = FIND_HOLDER(SCHEMA_USE_LOCK), .is_plain = true},
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
/* Several files, and which of them failed. */
static const struct db_statement set_scripts = {
    .sql = "SELECT set_config('userd.scripts', to_json($1::text[])::text, true),"
           " set_config('userd.names', to_json($2::text[])::text, true)",
    .is_plain = true,
};
#define RUN_SCRIPTS                                                                  \
    "DO $do$ DECLARE script record; BEGIN"                                           \
    " FOR script IN SELECT s.value AS content, n.value AS name"                      \
    "  FROM json_array_elements_text(current_setting('userd.scripts')::json)"        \
    "  WITH ORDINALITY AS s (value, number)"                                         \
    "  JOIN json_array_elements_text(current_setting('userd.names')::json)"          \
    "  WITH ORDINALITY AS n (value, number) USING (number) ORDER BY number"          \
    " LOOP BEGIN EXECUTE script.content;"                                            \
    "  EXCEPTION WHEN OTHERS THEN"                                                   \
    "   RAISE EXCEPTION '%: %', script.name, SQLERRM USING ERRCODE = SQLSTATE; END;" \
    " END LOOP;"
#define REHEARSED "UD000" /* SQLSTATE: all went well, and is rolled back */
static const struct db_statement run_scripts = {.sql = RUN_SCRIPTS " END $do$", .is_plain = true};
static const struct db_statement rehearse_scripts = {
    .sql = RUN_SCRIPTS " RAISE EXCEPTION 'rehearsed' USING ERRCODE = '" REHEARSED "'; END $do$",
    .is_plain = true,
};
static const struct db_statement delete_rows = {
    .sql = "DELETE FROM schema_migration WHERE version = ANY ($1::int4[])", .is_plain = true};

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

int schema_store_try_lock(struct schema_session *session, enum schema_lock lock,
    bool *ret_is_locked, char *holder, size_t holder_size)
{
    PGresult *result = NULL;
    int error = run_one(session, &try_lock[lock], NULL, &result);
    if (error < 0)
        return error;
    *ret_is_locked = db_result_bool(result, 0, 0);
    PQclear(result);
    if (*ret_is_locked)
        return 0;
    error = run_one(session, &find_holder[lock], NULL, &result);
    if (error < 0)
        return error;
    if (!db_result_is_null(result, 0, 0))
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

static void add_scripts(struct db_parameters *parameters,
    const struct schema_migration *const *migrations, size_t count, bool is_up)
{
    db_parameters_array_begin(parameters, DB_ELEMENT_TEXT);
    for (size_t i = 0; i < count; i++) {
        const char *script = is_up ? migrations[i]->up : migrations[i]->down;
        db_parameters_array_bytes(parameters, script, strlen(script));
    }
    db_parameters_array_end(parameters);
    db_parameters_array_begin(parameters, DB_ELEMENT_TEXT);
    for (size_t i = 0; i < count; i++)
        db_parameters_array_bytes(parameters, migrations[i]->name, strlen(migrations[i]->name));
    db_parameters_array_end(parameters);
}

int schema_store_take_back(
    struct schema_session *session, const struct schema_migration *const *migrations, size_t count)
{
    struct db_parameters scripts CLEANUP(db_parameters_cleanup) = {0};
    struct db_parameters rows CLEANUP(db_parameters_cleanup) = {0};
    add_scripts(&scripts, migrations, count, false);
    db_parameters_array_begin(&rows, DB_ELEMENT_INT4);
    for (size_t i = 0; i < count; i++)
        db_parameters_array_int4(&rows, migrations[i]->version);
    db_parameters_array_end(&rows);
    const struct db_step steps[] = {
        {&set_scripts, &scripts}, {&run_scripts, NULL}, {&delete_rows, &rows}};
    return schema_session_run(session, steps, ARRAY_LENGTH(steps), NULL);
}

int schema_store_rehearse(
    struct schema_session *session, const struct schema_migration *const *migrations, size_t count)
{
    struct db_parameters scripts CLEANUP(db_parameters_cleanup) = {0};
    add_scripts(&scripts, migrations, count, true);
    const struct db_step steps[] = {{&set_scripts, &scripts}, {&rehearse_scripts, NULL}};
    int error = schema_session_run(session, steps, ARRAY_LENGTH(steps), NULL);
    bool has_worked = error == -EBADMSG && strcmp(schema_session_sqlstate(session), REHEARSED) == 0;
    return has_worked ? 0 : error;
}
