/* The sessions that a worker has with PostgreSQL: how they are reached, and how their statements
 * are planned. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/harness/test_userd.h"

#define READS 20

static struct test_userd userd;

static void init(void)
{
    static const struct test_userd_options options = {.skips_start = true, .has_own_cluster = true};
    given_userd(&userd, &options);
    given_user(&userd, 17, "trinity");
}

static void fini(void)
{
    finally_userd(&userd);
}

TestSuite(database_session, .init = init, .fini = fini, .timeout = 120);

Test(database_session, is_had_by_a_unix_socket_where_the_url_names_one)
{
    char url[sizeof(userd.database.url)];
    test_database_socket_url(&userd.database, url);
    when_config_changes(&userd, userd.database.url, url);
    when_userd_starts(&userd);
    then_every_worker_serves(&userd);
    then_name_is(&userd, 17, "trinity");
    then_database_says(&userd,
        "SELECT count(*) > 0 AND bool_and(client_addr IS NULL) FROM pg_stat_activity"
        " WHERE application_name LIKE 'userd %' AND datname = current_database()",
        "t");
}

/* The cluster's socket at the default port, in the test's directory. */
static void given_default_port(void)
{
    char url[sizeof(userd.database.url)];
    char target[PATH_MAX];
    char path[PATH_MAX];
    const char *host = "";
    const char *port = "";
    test_database_socket_url(&userd.database, url);
    PQconninfoOption *options = PQconninfoParse(url, NULL);
    cr_assert_not_null(options);
    for (const PQconninfoOption *option = options; option->keyword; option++) {
        host = strcmp(option->keyword, "host") == 0 ? option->val : host;
        port = strcmp(option->keyword, "port") == 0 ? option->val : port;
    }
    (void)snprintf(target, sizeof(target), "%s/.s.PGSQL.%s", host, port);
    (void)snprintf(path, sizeof(path), "%s/.s.PGSQL.5432", userd.directory);
    PQconninfoFree(options);
    cr_assert_eq(symlink(target, path), 0);
}

/* libpq makes "," of the ports of two hosts that name none. */
Test(database_session, is_had_where_none_of_several_hosts_names_a_port)
{
    char hosts[2 * sizeof(userd.directory) * 3] = "";
    char url[sizeof(hosts) + sizeof(userd.database.url)];
    given_default_port();
    for (const char *next = userd.directory; *next != '\0'; next++)
        (void)snprintf(hosts + strlen(hosts), sizeof(hosts) - strlen(hosts), "%%%02X",
            (unsigned int)(unsigned char)*next);
    const char *host = strchr(userd.database.url, '@');
    cr_assert_not_null(host);
    (void)snprintf(url, sizeof(url), "%.*s@%%2Fnowhere,%s/%s", (int)(host - userd.database.url),
        userd.database.url, hosts, userd.database.name);
    when_config_changes(&userd, userd.database.url, url);
    when_userd_starts(&userd);
    then_every_worker_serves(&userd);
    then_name_is(&userd, 17, "trinity");
}

/* By itself PostgreSQL would plan a read of one user at each call. */
Test(database_session, plans_a_statement_once)
{
    test_database_explain(&userd.database);
    when_userd_starts(&userd);
    then_every_worker_serves(&userd);
    for (int i = 0; i < READS; i++)
        then_name_is(&userd, 17, "trinity");
    size_t kept = test_database_logged(&userd.database, "Index Cond: (id_auth = ANY ($1))");
    cr_assert(kept >= READS, "%zu of %d", kept, READS);
}
