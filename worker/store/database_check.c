#include "worker/store/database_check.h"

#include <errno.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/process_verdict.h"
#include "worker/db/db_pooling.h"
#include "worker/store/schema_version.h"

#define PARAMETER_SLOTS   64
#define NOWHERE           "/proc/userd-connects-to-nobody"
#define NOWHERE_SIZE      2048
#define MS_PER_SECOND     1000
#define CONNECT_TIMEOUT_S 2 /* libpq takes less for this */
#define TIMEOUT_TEXT_SIZE 16
#define VERSION_MAJOR     10000 /* PQlibVersion() of 15.3 is 150003 */
#define APPLICATION       "userd check"

struct parameter_list {
    const char *keywords[PARAMETER_SLOTS];
    const char *values[PARAMETER_SLOTS];
    size_t count;
};

static void add(struct parameter_list *list, const char *keyword, const char *value)
{
    if (list->count + 1 < PARAMETER_SLOTS) {
        list->keywords[list->count] = keyword;
        list->values[list->count++] = value;
    }
}

static const char *value_of(const PQconninfoOption *options, const char *keyword)
{
    for (const PQconninfoOption *option = options; option->keyword; option++)
        if (strcmp(option->keyword, keyword) == 0)
            return option->val;
    return NULL;
}

/* libpq's message in one line. Behind PQconninfoParse() none repeats a password. */
static void describe(const PGconn *session, char ret_text[PROCESS_VERDICT_TEXT_SIZE])
{
    const char *message = session ? PQerrorMessage(session) : "out of memory";
    size_t length = 0;
    for (; *message && length + 3 < PROCESS_VERDICT_TEXT_SIZE; message++) {
        if (*message != '\n')
            ret_text[length++] = *message;
        else if (message[1] != '\0')
            length += (size_t)sprintf(ret_text + length, "; ");
    }
    ret_text[length] = '\0';
}

/* ---- what libpq takes ---- */

/* As many hosts as the URL has. */
static void write_nowhere(const char *hosts, char ret_text[NOWHERE_SIZE])
{
    size_t length = (size_t)sprintf(ret_text, "%s", NOWHERE);
    for (; hosts && *hosts; hosts++)
        if (*hosts == ',' && length + sizeof(NOWHERE) + 1 < NOWHERE_SIZE)
            length += (size_t)sprintf(ret_text + length, ",%s", NOWHERE);
}

/* libpq judges the values when it begins to connect: to a socket that is on no machine. */
static void judge_values(const PQconninfoOption *options, struct process_verdict *verdict)
{
    struct parameter_list list = {0};
    char nowhere[NOWHERE_SIZE];
    write_nowhere(value_of(options, "host"), nowhere);
    for (const PQconninfoOption *option = options; option->keyword; option++)
        if (option->val && strcmp(option->keyword, "host") != 0 &&
            strcmp(option->keyword, "hostaddr") != 0)
            add(&list, option->keyword, option->val);
    add(&list, "host", nowhere);
    PGconn *session = PQconnectStartParams(list.keywords, list.values, 0);
    char text[PROCESS_VERDICT_TEXT_SIZE];
    describe(session, text);
    if (!session || !strstr(text, NOWHERE))
        process_verdict_complain(verdict, 0, "database.url: %s", text);
    PQfinish(session);
}

/* ---- what the database is like ---- */

/* The first row of `sql`; NULL, with a complaint. */
static PGresult *ask(PGconn *session, const char *sql, struct process_verdict *verdict)
{
    PGresult *result = PQexec(session, sql);
    if (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1)
        return result;
    char text[PROCESS_VERDICT_TEXT_SIZE];
    describe(session, text);
    process_verdict_complain(verdict, 0, "database: %s", text);
    PQclear(result);
    return NULL;
}

static void check_version(PGconn *session, struct process_verdict *verdict)
{
    PGresult *result =
        ask(session, "SELECT coalesce(max(version), 0)::int4 FROM schema_migration", verdict);
    if (!result)
        return;
    int version = (int)strtol(PQgetvalue(result, 0, 0), NULL, 10);
    if (version < SCHEMA_VERSION_NEEDED)
        process_verdict_complain(verdict, 0,
            "schema: is at version %d, expected %d: run userd migrate up", version,
            SCHEMA_VERSION_NEEDED);
    else
        process_verdict_find(verdict, "schema: version %d", version);
    PQclear(result);
}

static void check_rights(PGconn *session, struct process_verdict *verdict)
{
    PGresult *result = ask(session,
        "SELECT string_agg(format('%s on %s', p, t), ', ' ORDER BY t, p)"
        " FROM unnest(ARRAY['\"user\"', 'outbox']) t, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE',"
        " 'DELETE']) p"
        " WHERE to_regclass(t) IS NOT NULL AND NOT (t = 'outbox' AND p = 'UPDATE')"
        " AND NOT has_table_privilege(to_regclass(t), p)",
        verdict);
    if (!result)
        return;
    if (!PQgetisnull(result, 0, 0))
        process_verdict_complain(verdict, 0, "schema: user %s lacks %s, expected it to be granted",
            PQuser(session), PQgetvalue(result, 0, 0));
    PQclear(result);
}

static void check_schema(PGconn *session, struct process_verdict *verdict)
{
    PGresult *result = ask(session,
        "SELECT to_regclass('schema_migration') IS NOT NULL, to_regclass('\"user\"') IS NOT NULL",
        verdict);
    if (!result)
        return;
    bool has_migrations = *PQgetvalue(result, 0, 0) == 't';
    bool has_users = *PQgetvalue(result, 0, 1) == 't';
    PQclear(result);
    if (has_migrations) {
        check_version(session, verdict);
        check_rights(session, verdict);
    } else {
        process_verdict_complain(verdict, 0, "schema: %s, expected ours: run userd migrate up",
            has_users ? "is the legacy service's" : "is not there");
    }
}

static void check_server(PGconn *session, struct process_verdict *verdict)
{
    PGresult *result = ask(session,
        "SELECT current_setting('server_version'), current_database(), current_user", verdict);
    if (!result)
        return;
    process_verdict_find(verdict, "database: %s as %s, PostgreSQL %s", PQgetvalue(result, 0, 1),
        PQgetvalue(result, 0, 2), PQgetvalue(result, 0, 0));
    PQclear(result);
    check_schema(session, verdict);
}

/* ---- what is in between ---- */

struct pooling_answer {
    bool is_known;
    bool is_lent_out;
    bool is_broken;
};

static void on_pooling_known(bool is_lent_out, bool is_broken, void *userdata)
{
    struct pooling_answer *answer = userdata;
    *answer = (struct pooling_answer){
        .is_known = true, .is_lent_out = is_lent_out, .is_broken = is_broken};
}

/* Runs the loop until it is known, which the examination's own time limit bounds. */
static int examine(struct process_link *link, const struct db_pooling_options *options,
    struct pooling_answer *answer)
{
    struct db_pooling *pooling = NULL;
    int result = db_pooling_new(link->event, options, on_pooling_known, answer, &pooling);
    int status = 0;
    while (result >= 0 && !answer->is_known) {
        result = sd_event_run(link->event, UINT64_MAX);
        if (sd_event_get_exit_code(link->event, &status) >= 0)
            result = -EINTR;
    }
    (void)db_pooling_free(pooling);
    return result < 0 ? result : 0;
}

/* True: nobody is in between, or somebody who keeps our sessions together. */
static bool check_pooling(
    struct process_link *link, PGconn *session, struct process_verdict *verdict)
{
    PGresult *result = ask(session, "SELECT pg_backend_pid()", verdict);
    if (!result)
        return false;
    struct db_backend backend = {.pid = (int32_t)strtol(PQgetvalue(result, 0, 0), NULL, 10)};
    PQclear(result);
    if (PQbackendPID(session) == backend.pid)
        return true;
    backend.server = (struct db_target){
        .host = PQhost(session), .host_address = PQhostaddr(session), .port = PQport(session)};
    const struct db_pooling_options options = {
        .url = link->settings.database.url,
        .application = APPLICATION,
        .timeout_ms = link->settings.database.connect_timeout_ms,
        .session = session,
        .backend = &backend,
    };
    struct pooling_answer answer = {0};
    if (examine(link, &options, &answer) < 0 || answer.is_broken)
        process_verdict_complain(verdict, 0, "database: there is a pooler that cannot be examined");
    else if (answer.is_lent_out)
        process_verdict_complain(verdict, 0, "database: " DB_POOLING_REASON);
    else
        process_verdict_find(
            verdict, "database: behind a pooler that keeps sessions (session mode)");
    return !answer.is_lent_out;
}

static void on_notice(void *userdata, const PGresult *result)
{
    (void)userdata;
    (void)result;
}

static void try_database(
    struct process_link *link, const PQconninfoOption *options, struct process_verdict *verdict)
{
    const struct settings *settings = &link->settings;
    struct parameter_list list = {0};
    char timeout[TIMEOUT_TEXT_SIZE];
    int seconds = settings->database.connect_timeout_ms / MS_PER_SECOND;
    (void)snprintf(
        timeout, sizeof(timeout), "%d", seconds < CONNECT_TIMEOUT_S ? CONNECT_TIMEOUT_S : seconds);
    add(&list, "client_encoding", "UTF8");
    add(&list, "gssencmode", "disable");
    add(&list, "target_session_attrs", "read-write");
    add(&list, "connect_timeout", timeout);
    add(&list, "fallback_application_name", APPLICATION);
    for (const PQconninfoOption *option = options; option->keyword; option++)
        if (option->val && *option->val)
            add(&list, option->keyword, option->val);
    PGconn *session = PQconnectdbParams(list.keywords, list.values, 0);
    if (PQstatus(session) == CONNECTION_OK) {
        (void)PQsetNoticeReceiver(session, on_notice, NULL);
        if (check_pooling(link, session, verdict))
            check_server(session, verdict);
    } else {
        char text[PROCESS_VERDICT_TEXT_SIZE];
        describe(session, text);
        process_verdict_complain(verdict, 0, "database: %s", text);
    }
    PQfinish(session);
}

/* Other messages repeat the URL, password and all. */
static void complain_of_url(const char *message, struct process_verdict *verdict)
{
    static const char *const harmless[] = {
        "invalid URI query parameter", "invalid connection option", "definition of service"};
    for (size_t i = 0; message && i < ARRAY_LENGTH(harmless); i++)
        if (strncmp(message, harmless[i], strlen(harmless[i])) == 0) {
            process_verdict_complain(verdict, 0, "database.url: %.*s (libpq %d)",
                (int)strcspn(message, "\n"), message, PQlibVersion() / VERSION_MAJOR);
            return;
        }
    process_verdict_complain(verdict, 0, "database.url: libpq cannot read it");
}

int database_check(struct process_link *link, bool connects)
{
    struct process_verdict verdict = {0};
    char *message = NULL;
    PQconninfoOption *options = PQconninfoParse(link->settings.database.url, &message);
    if (!options)
        complain_of_url(message, &verdict);
    else
        judge_values(options, &verdict);
    PQfreemem(message);
    if (options && connects && verdict.complaint_count == 0)
        try_database(link, options, &verdict);
    PQconninfoFree(options);
    int status = process_verdict_send(&verdict, link);
    process_verdict_cleanup(&verdict);
    return status;
}
