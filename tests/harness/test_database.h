/* A database of the test's own in the private PostgreSQL cluster that USERD_TEST_POSTGRES names
 * (the handle file of tests/tools/private_postgres), or in a cluster of the test's own that can be
 * stopped and started. */
#ifndef USERD_TESTS_HARNESS_TEST_DATABASE_H
#define USERD_TESTS_HARNESS_TEST_DATABASE_H

#include <libpq-fe.h>
#include <limits.h>
#include <stdbool.h>

#include "common/attributes.h"

struct test_database {
    char name[64];
    char url[512];       /* as userd, the owner of the database */
    char admin_url[512]; /* as postgres, to the database "postgres" */
    char handle[PATH_MAX];
    bool has_own_cluster;
};

/* `own_cluster_directory`: where the handle of a cluster of one's own goes; NULL: the shared one.
 */
void test_database_create(struct test_database *database, const char *own_cluster_directory);
void test_database_remove(struct test_database *database);
/* With a cluster of one's own: away, and back on the same port. */
void test_database_stop_cluster(const struct test_database *database);
void test_database_start_cluster(const struct test_database *database);

/* A standby of a cluster of one's own, whose handle goes to `directory`; test_database_remove()
 * takes it away too. It may be stopped, started and promoted. */
void test_database_follow(
    const struct test_database *primary, struct test_database *ret_standby, const char *directory);
void test_database_promote(const struct test_database *standby);
/* Every process of the cluster stops where it is, and goes on. */
void test_database_freeze(const struct test_database *database);
void test_database_thaw(const struct test_database *database);

/* The same database by the cluster's Unix socket; the caller's buffer, as large as `url`. */
void test_database_socket_url(const struct test_database *database, char *ret_url);
/* From now on new sessions write the plan of each statement that they run into the log. */
void test_database_explain(const struct test_database *database);
/* How often the cluster's log holds `text`; others may write there if it is shared. */
size_t test_database_logged(const struct test_database *database, const char *text);

/* A session of the caller's own: PQfinish() it. */
PGconn *test_database_connect(const struct test_database *database);
/* Runs statements that must work. */
void test_database_execute(const struct test_database *database, const char *sql);
/* The first column of the first row as text, malloc'ed: "" when there is no row or it is NULL. */
char *test_database_value(const struct test_database *database, const char *sql);
/* Compares the above. */
bool test_database_says(
    const struct test_database *database, const char *sql, const char *expected);

/* A session that holds the table "user" in the strictest mode until PQfinish(): every statement
 * about users waits for it. */
PGconn *test_database_lock_users(const struct test_database *database);
/* The same as a deletion does with identity_gate: registrations wait, and nothing else. */
PGconn *test_database_lock_gate(const struct test_database *database);
/* Fails the test unless, in time, a statement waits for a lock in this database. */
void test_database_wait_for_waiter(const struct test_database *database);

#endif
