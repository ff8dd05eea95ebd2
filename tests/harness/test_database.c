#include "tests/harness/test_database.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/harness/test_process.h"

/* The value of `key` in a handle file of private_postgres; the caller's buffer. */
static void read_handle(const char *handle, const char *key, char *ret_value, size_t size)
{
    char *text = test_file_read(handle, NULL);
    char wanted[64];
    int wanted_length = snprintf(wanted, sizeof(wanted), "%s=", key);
    char *rest = NULL;
    ret_value[0] = '\0';
    for (char *line = strtok_r(text, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        if (strncmp(line, wanted, (size_t)wanted_length) == 0)
            (void)snprintf(ret_value, size, "%s", line + wanted_length);
    }
    free(text);
    cr_assert(ret_value[0] != '\0', "no %s in %s", key, handle);
}

static void run_cluster_tool(const char *action, const char *handle, const char *option)
{
    const char *const argv[] = {
        TEST_SOURCE_DIR "/tests/tools/private_postgres", action, handle, option, NULL};
    char *output = NULL;
    int status = test_process_run(argv, NULL, "/tmp", &output);
    cr_assert(status == 0, "private_postgres %s: %s", action, output);
    free(output);
}

static PGconn *connect_to(const char *url)
{
    PGconn *connection = PQconnectdb(url);
    cr_assert(PQstatus(connection) == CONNECTION_OK, "%s", PQerrorMessage(connection));
    return connection;
}

static char *run_sql(const char *url, const char *sql)
{
    PGconn *connection = connect_to(url);
    (void)PQsetErrorVerbosity(connection, PQERRORS_VERBOSE);
    PGresult *result = PQexec(connection, sql);
    ExecStatusType status = PQresultStatus(result);
    cr_assert(
        status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK || status == PGRES_EMPTY_QUERY,
        "%s: %s", sql, PQresultErrorMessage(result));
    char *value =
        strdup(PQntuples(result) > 0 && PQnfields(result) > 0 ? PQgetvalue(result, 0, 0) : "");
    PQclear(result);
    PQfinish(connection);
    return value;
}

void test_database_create(struct test_database *database, const char *own_cluster_directory)
{
    *database = (struct test_database){.has_own_cluster = own_cluster_directory != NULL};
    if (own_cluster_directory != NULL) {
        (void)snprintf(
            database->handle, sizeof(database->handle), "%s/postgres", own_cluster_directory);
        run_cluster_tool("start", database->handle, NULL);
    } else {
        const char *handle = getenv("USERD_TEST_POSTGRES");
        cr_assert(handle != NULL,
            "USERD_TEST_POSTGRES is not set: run the tests through ctest or ./dev test");
        (void)snprintf(database->handle, sizeof(database->handle), "%s", handle);
    }
    char url[256];
    read_handle(database->handle, "admin_url", url, sizeof(url));
    (void)snprintf(database->admin_url, sizeof(database->admin_url), "%spostgres", url);
    read_handle(database->handle, "url", url, sizeof(url));
    (void)snprintf(
        database->name, sizeof(database->name), "test_%d_%lld", getpid(), (long long)test_now_ms());
    (void)snprintf(database->url, sizeof(database->url), "%s%s", url, database->name);

    char sql[128];
    (void)snprintf(sql, sizeof(sql), "CREATE DATABASE %s OWNER userd", database->name);
    free(run_sql(database->admin_url, sql));
}

void test_database_remove(struct test_database *database)
{
    if (database->handle[0] == '\0')
        return;
    if (database->has_own_cluster) {
        run_cluster_tool("remove", database->handle, NULL);
    } else {
        char sql[128];
        (void)snprintf(sql, sizeof(sql), "DROP DATABASE IF EXISTS %s WITH (FORCE)", database->name);
        free(run_sql(database->admin_url, sql));
    }
    database->handle[0] = '\0';
}

void test_database_stop_cluster(const struct test_database *database)
{
    cr_assert(database->has_own_cluster, "the cluster is shared: other tests need it");
    run_cluster_tool("stop", database->handle, "--immediate");
}

void test_database_start_cluster(const struct test_database *database)
{
    run_cluster_tool("start", database->handle, NULL);
}

void test_database_follow(
    const struct test_database *primary, struct test_database *ret_standby, const char *directory)
{
    struct test_database standby = {.has_own_cluster = true};
    (void)snprintf(standby.handle, sizeof(standby.handle), "%s/standby", directory);
    run_cluster_tool("follow", standby.handle, primary->handle);
    char url[256];
    read_handle(standby.handle, "admin_url", url, sizeof(url));
    (void)snprintf(standby.admin_url, sizeof(standby.admin_url), "%spostgres", url);
    read_handle(standby.handle, "url", url, sizeof(url));
    (void)snprintf(standby.name, sizeof(standby.name), "%s", primary->name);
    (void)snprintf(standby.url, sizeof(standby.url), "%s%s", url, primary->name);
    *ret_standby = standby;
}

void test_database_promote(const struct test_database *standby)
{
    run_cluster_tool("promote", standby->handle, NULL);
}

/* The postmaster first: it starts no others then. */
static void signal_cluster(const struct test_database *database, int signal_number)
{
    char directory[256];
    char path[PATH_MAX];
    pid_t pids[TEST_MAX_MEMBERS];
    cr_assert(database->has_own_cluster, "the cluster is shared: other tests need it");
    read_handle(database->handle, "directory", directory, sizeof(directory));
    (void)snprintf(path, sizeof(path), "%s/data/postmaster.pid", directory);
    char *text = test_file_read(path, NULL);
    pid_t postmaster = (pid_t)strtol(text, NULL, 10);
    free(text);
    cr_assert(postmaster > 1, "no postmaster in %s", path);
    cr_assert_eq(kill(postmaster, signal_number), 0);
    size_t count = test_process_children(postmaster, "postgres", pids);
    for (size_t i = 0; i < count; i++)
        (void)kill(pids[i], signal_number);
}

void test_database_freeze(const struct test_database *database)
{
    signal_cluster(database, SIGSTOP);
}

void test_database_thaw(const struct test_database *database)
{
    signal_cluster(database, SIGCONT);
}

void test_database_socket_url(const struct test_database *database, char *ret_url)
{
    char url[256];
    read_handle(database->handle, "socket_url", url, sizeof(url));
    (void)snprintf(ret_url, sizeof(database->url), "%s%s", url, database->name);
}

void test_database_explain(const struct test_database *database)
{
    char sql[256];
    (void)snprintf(sql, sizeof(sql),
        "ALTER DATABASE %s SET session_preload_libraries = 'auto_explain';"
        "ALTER DATABASE %s SET auto_explain.log_min_duration = 0",
        database->name, database->name);
    free(run_sql(database->admin_url, sql));
}

size_t test_database_logged(const struct test_database *database, const char *text)
{
    char directory[256];
    char path[PATH_MAX];
    read_handle(database->handle, "directory", directory, sizeof(directory));
    (void)snprintf(path, sizeof(path), "%s/log", directory);
    char *log = test_file_read(path, NULL);
    size_t count = 0;
    for (const char *place = strstr(log, text); place != NULL; place = strstr(place + 1, text))
        count++;
    free(log);
    return count;
}

PGconn *test_database_connect(const struct test_database *database)
{
    return connect_to(database->url);
}

void test_database_execute(const struct test_database *database, const char *sql)
{
    free(run_sql(database->url, sql));
}

char *test_database_value(const struct test_database *database, const char *sql)
{
    return run_sql(database->url, sql);
}

bool test_database_says(const struct test_database *database, const char *sql, const char *expected)
{
    char *value = test_database_value(database, sql);
    bool is_same = strcmp(value, expected) == 0;
    free(value);
    return is_same;
}

static PGconn *hold_lock(const struct test_database *database, const char *sql)
{
    PGconn *connection = connect_to(database->url);
    PGresult *result = PQexec(connection, sql);
    cr_assert_eq(PQresultStatus(result), PGRES_COMMAND_OK, "%s", PQresultErrorMessage(result));
    PQclear(result);
    return connection;
}

PGconn *test_database_lock_users(const struct test_database *database)
{
    return hold_lock(database, "BEGIN; LOCK TABLE \"user\" IN ACCESS EXCLUSIVE MODE");
}

PGconn *test_database_lock_gate(const struct test_database *database)
{
    return hold_lock(database, "BEGIN; LOCK TABLE identity_gate IN ROW EXCLUSIVE MODE");
}

static bool has_waiter(PGconn *watcher, const char *sql)
{
    PGresult *result = PQexec(watcher, sql);
    bool is_there = PQntuples(result) > 0;
    PQclear(result);
    return is_there;
}

void test_database_wait_for_waiter(const struct test_database *database)
{
    char sql[256];
    (void)snprintf(sql, sizeof(sql),
        "SELECT 1 FROM pg_stat_activity WHERE datname = '%s' AND wait_event_type = 'Lock' AND "
        "query NOT LIKE '%%username_unreconciled%%'",
        database->name);
    PGconn *watcher = connect_to(database->admin_url);
    bool is_there = TEST_WAIT_FOR(has_waiter(watcher, sql), TEST_TIMEOUT_MS);
    PQfinish(watcher);
    cr_assert(is_there, "no statement waits for the lock");
}
