/* A worker's connections to PostgreSQL by themselves, without the worker around them: which host
 * they go to, what becomes of the others when one is lost, and how often a session is made anew. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/settings.h"
#include "worker/store/store_lanes.h"

#include "tests/harness/test_database.h"
#include "tests/harness/test_process.h"
#include "tests/harness/test_proxy.h"

#define STEP_US         10000
#define CONNECT_MS      500
#define STATEMENT_MS    2000
#define FLAPPING_MS     3000
#define SESSIONS_IN_3_S 9 /* 100 ms, doubled, less a half: 50, 100, 200, 400, 800, 1600 */

struct asked {
    struct store_request request;
    bool is_answered;
    enum db_outcome outcome;
    int32_t pid; /* of the backend that answered */
    int place;   /* among the answers */
};

static struct test_database database;
static struct test_proxy proxy;
static sd_event *event;
static struct settings settings;
static struct store_lanes *lanes;
static struct db_connection *connection;
static char url[1024];
static int ready_count;
static int room_count;
static int answer_count;

static const struct db_statement who_answers = {.sql = "SELECT pg_backend_pid()", .is_plain = true};
static const struct db_statement sleeps = {
    .sql = "SELECT pg_backend_pid() FROM pg_sleep(0.5)", .is_plain = true};
static const struct db_statement *const no_statements[] = {NULL};

static void init(void)
{
    test_database_create(&database, NULL);
    test_database_execute(&database, "CREATE TABLE schema_migration (version integer);"
                                     "INSERT INTO schema_migration VALUES (9999)");
    cr_assert(sd_event_new(&event) >= 0);
    (void)snprintf(url, sizeof(url), "%s", database.url);
    settings = (struct settings){.database = {.url = url,
                                     .connections = 2,
                                     .connect_timeout_ms = CONNECT_MS,
                                     .statement_timeout_ms = STATEMENT_MS}};
    ready_count = 0;
    room_count = 0;
    answer_count = 0;
}

static void fini(void)
{
    lanes = store_lanes_free(lanes);
    connection = db_connection_free(connection);
    event = sd_event_unref(event);
    test_proxy_stop(&proxy);
    test_database_remove(&database);
}

TestSuite(store_lanes, .init = init, .fini = fini, .timeout = 120);

static bool turn(void)
{
    cr_assert(sd_event_run(event, STEP_US) >= 0);
    return true;
}

/* Runs the loop until it holds. */
#define TURN_UNTIL(condition) TEST_WAIT_FOR(turn() && (condition), TEST_TIMEOUT_MS)

static void turn_for(int64_t duration_ms)
{
    int64_t end_ms = test_now_ms() + duration_ms;
    while (test_now_ms() < end_ms)
        (void)turn();
}

static int database_port(void)
{
    const char *port = strrchr(database.url, ':');
    cr_assert(port != NULL);
    return (int)strtol(port + 1, NULL, 10);
}

/* Puts `hosts` ("host:port,host:port") in the place of the database's own. */
static void given_hosts(const char *hosts)
{
    const char *place = strchr(database.url, '@');
    const char *name = strrchr(database.url, '/');
    cr_assert(place != NULL && name != NULL);
    (void)snprintf(
        url, sizeof(url), "%.*s@%s%s", (int)(place - database.url), database.url, hosts, name);
}

static void on_ready(void *userdata)
{
    (void)userdata;
    ready_count++;
}

static void on_ready_and_reset(void *userdata)
{
    (void)userdata;
    ready_count++;
    db_connection_reset(connection);
}

static void given_connection(void (*handler)(void *userdata))
{
    const struct db_options options = {
        .url = url,
        .application = "userd test",
        .connect_timeout_ms = CONNECT_MS,
        .statement_timeout_ms = STATEMENT_MS,
    };
    const struct db_connection_handlers handlers = {.on_ready = handler};
    cr_assert_eq(
        db_connection_new(event, &options, no_statements, &handlers, NULL, &connection), 0);
}

static void on_availability(bool is_available, void *userdata)
{
    (void)userdata;
    (void)is_available;
}

static void on_room(void *userdata)
{
    (void)userdata;
    room_count++;
}

static int connected_sessions(void)
{
    char sql[256];
    (void)snprintf(sql, sizeof(sql),
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'userd worker-%%'"
        " AND datname = '%s'",
        database.name);
    char *value = test_database_value(&database, sql);
    int count = (int)strtol(value, NULL, 10);
    free(value);
    return count;
}

static void given_lanes(int count)
{
    settings.database.connections = count;
    const struct store_lanes_options options = {
        .event = event,
        .settings = &settings,
        .statements = no_statements,
        .on_availability = on_availability,
        .on_room = on_room,
    };
    cr_assert_eq(store_lanes_new(&options, &lanes), 0);
    /* Each of them says that there is room when it is ready. */
    cr_assert(TURN_UNTIL(room_count == count), "%d of %d are ready", room_count, count);
}

static void on_answer(struct store_request *request, const struct db_answer *answer)
{
    struct asked *asked = CONTAINER_OF(request, struct asked, request);
    asked->is_answered = true;
    asked->outcome = answer->outcome;
    asked->place = ++answer_count;
    if (answer->outcome == DB_DONE)
        asked->pid = db_result_int4(answer->results[0], 0, 0);
}

static void when_asked(struct asked *asked, const struct db_statement *statement)
{
    const struct db_step step = {.statement = statement};
    asked->is_answered = false;
    asked->request.on_answer = on_answer;
    cr_assert_eq(store_lanes_submit(lanes, &asked->request, &step, 1), 0);
}

Test(store_lanes, go_on_to_the_next_host_when_the_first_one_says_nothing)
{
    char hosts[128];
    int silent_port = 0;
    int silent = test_proxy_silent_listener("127.0.0.1", &silent_port);
    (void)snprintf(hosts, sizeof(hosts), "127.0.0.1:%d,127.0.0.1:%d", silent_port, database_port());
    given_hosts(hosts);
    given_connection(on_ready);
    cr_assert(TURN_UNTIL(ready_count > 0), "the second host was not tried");
    (void)close(silent);
}

Test(store_lanes, go_on_to_the_next_address_of_a_host_when_the_first_one_says_nothing)
{
    /* As the addresses of a name are given to libpq. */
    int port = database_port();
    int silent = test_proxy_silent_listener("127.0.0.2", &port);
    (void)snprintf(url, sizeof(url), "%s?host=db,db&hostaddr=127.0.0.2,127.0.0.1", database.url);
    given_connection(on_ready);
    cr_assert(TURN_UNTIL(ready_count > 0), "the second address was not tried");
    (void)close(silent);
}

Test(store_lanes, make_sessions_that_end_early_anew_less_and_less_often)
{
    given_connection(on_ready_and_reset);
    turn_for(FLAPPING_MS);
    cr_assert(ready_count >= 2, "%d sessions", ready_count);
    cr_assert(ready_count <= SESSIONS_IN_3_S, "%d sessions in three seconds", ready_count);
}

/* New sessions are refused meanwhile: what waits must go by the one that is left. */
Test(store_lanes, have_room_when_one_is_lost_and_another_is_there)
{
    char sql[256];
    given_lanes(2);
    (void)snprintf(
        sql, sizeof(sql), "ALTER DATABASE %s WITH ALLOW_CONNECTIONS false", database.name);
    PGconn *admin = PQconnectdb(database.admin_url);
    PQclear(PQexec(admin, sql));
    (void)snprintf(sql, sizeof(sql),
        "SELECT pg_terminate_backend(min(pid)) FROM pg_stat_activity WHERE datname = '%s'"
        " AND application_name LIKE 'userd worker-%%'",
        database.name);
    room_count = 0;
    PGresult *result = PQexec(admin, sql);
    cr_assert_eq(PQresultStatus(result), PGRES_TUPLES_OK, "%s", PQerrorMessage(admin));
    PQclear(result);
    bool has_room = TURN_UNTIL(room_count > 0);
    (void)snprintf(
        sql, sizeof(sql), "ALTER DATABASE %s WITH ALLOW_CONNECTIONS true", database.name);
    PQclear(PQexec(admin, sql));
    PQfinish(admin);
    cr_assert(has_room, "nobody was told that the other one has room");
}

Test(store_lanes, are_all_made_anew_when_one_is_found_dead)
{
    char hosts[64];
    struct asked asked = {.request = {.is_write = true}};
    unsigned int turns = 0;
    settings.database.connect_timeout_ms = CONNECT_MS * 10; /* what is slow here is the machine */
    test_proxy_start(&proxy, database_port());
    (void)snprintf(hosts, sizeof(hosts), "127.0.0.1:%d", proxy.port);
    given_hosts(hosts);
    given_lanes(3);
    test_proxy_freeze(&proxy);
    test_pause_ms(100);
    room_count = 0;
    when_asked(&asked, &who_answers);
    cr_assert(TURN_UNTIL(asked.is_answered), "the dead session was not found");
    cr_assert_eq(asked.outcome, DB_LOST);
    /* A session that is made anew says so once; so did the loss, while others seemed to live. */
    int64_t lost_ms = test_now_ms();
    cr_assert(TURN_UNTIL(turns++ % 20 == 0 && connected_sessions() == 6), "%d sessions",
        connected_sessions());
    for (int i = 0; i < 3; i++) {
        when_asked(&asked, &who_answers);
        cr_assert(TURN_UNTIL(asked.is_answered));
        cr_assert_eq(asked.outcome, DB_DONE, "after %lld ms", (long long)(test_now_ms() - lost_ms));
    }
}

Test(store_lanes, keep_ordered_requests_on_one_connection)
{
    struct asked first = {.request = {.is_write = true, .is_ordered = true}};
    struct asked second = {.request = {.is_write = true, .is_ordered = true}};
    struct asked other = {.request = {.is_write = true}};
    given_lanes(3);
    when_asked(&first, &sleeps);
    when_asked(&second, &who_answers);
    when_asked(&other, &who_answers);
    cr_assert(TURN_UNTIL(first.is_answered && second.is_answered && other.is_answered));
    cr_assert_eq(first.pid, second.pid, "a position may be read beside the batch that moves it");
    cr_assert(first.place < second.place);
    cr_assert(other.pid != first.pid, "another write waited behind them");
}

static void when_asked_in_room(struct asked *asked, bool is_large)
{
    *asked = (struct asked){.request = {.is_large = is_large, .takes_room = true}};
    cr_assert(store_lanes_has_room(lanes, false, is_large));
    when_asked(asked, is_large ? &sleeps : &who_answers);
}

/* Whoever asks for ten thousand names at a time keeps others from one connection, and no more. */
Test(store_lanes, let_others_go_beside_large_reads)
{
    struct asked large[2];
    struct asked others[STORE_LANES_IN_FLIGHT];
    given_lanes(2);
    when_asked_in_room(&large[0], true);
    for (int i = 0; i < STORE_LANES_IN_FLIGHT; i++)
        when_asked_in_room(&others[i], false);
    cr_assert_not(store_lanes_has_room(lanes, false, false), "they would wait behind a large read");
    when_asked_in_room(&large[1], true);
    cr_assert_not(store_lanes_has_room(lanes, false, true), "all connections are for large reads");
    cr_assert(TURN_UNTIL(large[0].is_answered && large[1].is_answered));
    cr_assert_eq(large[0].pid, large[1].pid);
    for (int i = 0; i < STORE_LANES_IN_FLIGHT; i++) {
        cr_assert(others[i].is_answered && others[i].place < large[0].place, "%d waited", i);
        cr_assert(others[i].pid != large[0].pid);
    }
    cr_assert(store_lanes_has_room(lanes, false, true));
}
