/* The service under test: the three real programs on a database of the test's own, an embedded
 * broker of its own and free loopback ports, in a directory of its own. Its log is printed when it
 * ends, so that the output of a failed test, or of a sanitizer, is complete; anything but a clean
 * end fails the test.
 */
#ifndef USERD_TESTS_HARNESS_TEST_USERD_H
#define USERD_TESTS_HARNESS_TEST_USERD_H

#include <stdint.h>

#include "common/attributes.h"

#include "tests/harness/test_broker.h"
#include "tests/harness/test_database.h"
#include "tests/harness/test_process.h"
#include "tests/harness/test_rpc.h"

#define METHOD_GET_USER        "/user.User/GetUser"
#define METHOD_USER_UPDATE     "/user.User/UserUpdate"
#define METHOD_DELETE_USER     "/user.User/DeleteUser"
#define METHOD_GET_BY_USERNAME "/user_post.UserPost/GetByUsername"
#define METHOD_GET_BY_ID       "/user_post.UserPost/GetByID"
#define METHOD_GET_BY_IDS      "/user_post.UserPost/GetByIDs"
#define METHOD_HEALTH_CHECK    "/grpc.health.v1.Health/Check"

#define TEST_MAX_WORKERS  8
#define TEST_ADDRESS_SIZE 128

enum test_health {
    TEST_HEALTH_UNKNOWN,
    TEST_HEALTH_SERVING,
    TEST_HEALTH_NOT_SERVING,
    TEST_HEALTH_NO_ANSWER
};

struct test_userd_options {
    int workers;              /* 0: one */
    bool has_broker;          /* otherwise the bootstrap servers are a closed port */
    bool has_own_cluster;     /* a PostgreSQL of its own, that can go away */
    bool skips_migration;     /* the test does it, or does not */
    bool skips_start;         /* everything but `userd run` */
    bool runs_migration;      /* `userd run --migrate` */
    bool has_own_programs;    /* copies in directory/bin, which the test may replace */
    int descriptor_limit;     /* of each of the programs; 0: ours */
    const char *top_settings; /* lines of userd.conf; NULL: none */
    const char *database_settings;
    const char *kafka_settings;
    const char *limit_settings;
};

struct test_userd {
    char directory[64];
    char config_path[128];
    char log_path[128];
    char program[128]; /* what `userd` is */
    char gateway_address[32];
    char post_address[32];
    int workers;
    int descriptor_limit;
    int gateway_port;
    int post_port;
    bool is_started;
    bool runs_migration;
    struct test_database database;
    struct test_broker broker;
    struct test_process master;
    struct test_rpc gateway;
    struct test_rpc post;
};

/* Everything up to a service that says SERVING (when it is migrated and started). */
void given_userd(struct test_userd *userd, const struct test_userd_options *options);
void given_user(struct test_userd *userd, int32_t auth_id, const char *username);

void when_userd_starts(struct test_userd *userd);
/* SIGTERM; the clean end is asserted. */
void when_userd_stops(struct test_userd *userd);
/* Stops what runs, prints the log, removes everything. */
void finally_userd(struct test_userd *userd);

/* `userd ARGUMENT... -c FILE`: exit status, and its output (the caller's to free). */
int when_userd_is_told(struct test_userd *userd, const char *const *arguments, char **ret_output);

/* Puts `to` in the place of the first `from` in userd.conf. */
void when_config_changes(struct test_userd *userd, const char *from, const char *to);
/* Where a listener is bound, from run_dir/listeners; "" when it is not there. */
void test_userd_listener(
    const struct test_userd *userd, const char *name, char ret_address[TEST_ADDRESS_SIZE]);

/* On as many connections as there are workers, SERVING each. */
void then_every_worker_serves(struct test_userd *userd);
enum test_health test_userd_health(struct test_userd *userd);
void then_health_becomes(struct test_userd *userd, enum test_health expected);
/* GetUser: the status, and the name if there is one. */
grpc_status_code test_userd_name(struct test_userd *userd, int32_t auth_id, char ret_name[256]);
void then_name_is(struct test_userd *userd, int32_t auth_id, const char *expected);
/* As then_name_is(), when it takes an event to get there. NULL: NOT_FOUND. */
void then_name_becomes(struct test_userd *userd, int32_t auth_id, const char *expected);
/* UserUpdate, DeleteUser, GetByUsername: status, message in `ret_reply` (test_reply_cleanup()). */
void when_renamed(
    struct test_userd *userd, int32_t auth_id, const char *username, struct test_reply *ret_reply);
void when_deleted(struct test_userd *userd, int32_t auth_id, struct test_reply *ret_reply);
void when_asked_for_id(
    struct test_userd *userd, const char *username, struct test_reply *ret_reply);
void then_fails_with(struct test_reply *reply, grpc_status_code status, const char *message);

/* SQL that becomes true in time. */
void then_database_says(struct test_userd *userd, const char *sql, const char *expected);
/* The log holds `text`, or comes to. */
void then_log_says(struct test_userd *userd, const char *text);

#endif
