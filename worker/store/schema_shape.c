#include "worker/store/schema_shape.h"

#include <errno.h>
#include <string.h>

/* What is not there is made by a migration, and differs from nothing. A column more is fine unless
 * it must be filled in by whoever inserts. */
static const struct db_statement find_differences = {
    .sql =
        "WITH expected (name, column_name, type, has_default) AS (VALUES"
        " ('user', 'id', 'integer', true),"
        " ('user', 'username', 'character varying', false),"
        " ('user', 'id_auth', 'integer', false),"
        " ('alembic_version', 'version_num', 'character varying(32)', false),"
        " ('schema_migration', 'version', 'integer', false),"
        " ('schema_migration', 'name', 'text', false),"
        " ('schema_migration', 'checksum', 'text', false),"
        " ('schema_migration', 'applied_at', 'timestamp with time zone', true)),"
        " present AS (SELECT c.oid, c.relname::text AS name, c.relkind FROM pg_class c"
        "  WHERE c.oid = to_regclass('schema_migration') OR (NOT $1::bool"
        "  AND c.oid IN (to_regclass('\"user\"'), to_regclass('alembic_version')))),"
        " actual AS (SELECT p.oid, p.name, a.attname::text AS column_name,"
        "  format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS is_not_null,"
        "  a.atthasdef OR a.attidentity <> '' AS has_default, a.attnum"
        "  FROM present p JOIN pg_attribute a ON a.attrelid = p.oid AND a.attnum > 0"
        "  AND NOT a.attisdropped WHERE p.relkind IN ('r', 'p')),"
        " differences (line) AS ("
        "  SELECT format('%I is not a table', name) FROM present WHERE relkind NOT IN ('r', 'p')"
        "  UNION ALL SELECT format('%I.%I is not there, expected %s', p.name, e.column_name, "
        "e.type)"
        "  FROM present p JOIN expected e USING (name) LEFT JOIN actual a USING (name, column_name)"
        "  WHERE a.oid IS NULL AND p.relkind IN ('r', 'p')"
        "  UNION ALL SELECT format('%I.%I is %s, expected %s', name, column_name, a.type, e.type)"
        "  FROM actual a JOIN expected e USING (name, column_name) WHERE a.type <> e.type"
        "  UNION ALL SELECT format('%I.%I may be NULL, expected NOT NULL', name, column_name)"
        "  FROM actual a JOIN expected e USING (name, column_name) WHERE NOT a.is_not_null"
        "  UNION ALL SELECT format('%I.%I has no default, expected one', name, column_name)"
        "  FROM actual a JOIN expected e USING (name, column_name)"
        "  WHERE e.has_default AND NOT a.has_default"
        "  UNION ALL SELECT format('%I.%I is NOT NULL without a default, expected no such column',"
        "  a.name, a.column_name) FROM actual a LEFT JOIN expected e USING (name, column_name)"
        "  WHERE e.name IS NULL AND a.is_not_null AND NOT a.has_default"
        "  UNION ALL SELECT format('%I.%I is not UNIQUE', a.name, a.column_name) FROM actual a"
        "  WHERE a.name = 'user' AND a.column_name = 'id_auth' AND NOT EXISTS ("
        "   SELECT FROM pg_index i WHERE i.indrelid = a.oid AND i.indisunique AND i.indisvalid"
        "   AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL"
        "   AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum))"
        " SELECT string_agg(line, E'\\n' ORDER BY line) FROM differences",
    .is_plain = true,
};

int schema_shape_find_differences(
    struct schema_session *session, bool is_adopted, char **ret_differences)
{
    struct db_parameters parameters CLEANUP(db_parameters_cleanup) = {0};
    db_parameters_add_bool(&parameters, is_adopted);
    const struct db_step step = {.statement = &find_differences, .parameters = &parameters};
    PGresult *result = NULL;
    int error = schema_session_run(session, &step, 1, &result);
    if (error < 0)
        return error;
    char *differences = NULL;
    if (!db_result_is_null(result, 0, 0)) {
        size_t length = 0;
        const char *text = db_result_bytes(result, 0, 0, &length);
        differences = strndup(text, length);
        error = differences ? 0 : -ENOMEM;
    }
    PQclear(result);
    *ret_differences = differences;
    return error;
}
