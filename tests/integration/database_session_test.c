/* The sessions that a worker has with PostgreSQL: how they are reached, and how their statements
 * are planned. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

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
