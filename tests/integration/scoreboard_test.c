/* What the running processes write on the scoreboard about events: read as anyone with the right to
 * may, through the master's descriptor. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/file_descriptor.h"
#include "common/scoreboard.h"

#include "tests/harness/test_userd.h"

static struct test_userd userd;
static struct scoreboard *board;

/* Of the master's descriptors the one that is the memfd. */
static int open_board(void)
{
    char directory[64];
    (void)snprintf(directory, sizeof(directory), "/proc/%d/fd", userd.master.pid);
    DIR *entries = opendir(directory);
    cr_assert(entries != NULL);
    int fd = -1;
    for (struct dirent *entry = readdir(entries); entry != NULL && fd < 0;
         entry = readdir(entries)) {
        char path[PATH_MAX];
        char target[PATH_MAX] = "";
        (void)snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
        if (readlink(path, target, sizeof(target) - 1) > 0 &&
            strstr(target, "userd-scoreboard") != NULL)
            fd = open(path, O_RDWR | O_CLOEXEC);
    }
    (void)closedir(entries);
    return fd;
}

static void given_board(bool has_broker)
{
    const struct test_userd_options options = {.workers = 1, .has_broker = has_broker};
    given_userd(&userd, &options);
    int fd CLEANUP(fd_close) = open_board();
    cr_assert(fd >= 0, "no scoreboard");
    cr_assert_eq(scoreboard_open(fd, &board), 0);
}

static void init(void)
{
    given_board(true);
}

static void init_without_kafka(void)
{
    given_board(false);
}

static void fini(void)
{
    scoreboard_close(board);
    finally_userd(&userd);
}

TestSuite(scoreboard, .init = init, .fini = fini, .timeout = 120);
TestSuite(scoreboard_without_kafka, .init = init_without_kafka, .fini = fini, .timeout = 120);

static const struct scoreboard_slot *worker(void)
{
    return &board->slots[SCOREBOARD_SLOT_EVENTD + 1];
}

static const struct scoreboard_slot *eventd(void)
{
    return &board->slots[SCOREBOARD_SLOT_EVENTD];
}

static uint64_t count_latencies(void)
{
    uint64_t count = 0;
    for (size_t i = 0; i < LATENCY_HISTOGRAM_BUCKETS; i++)
        count += worker()->publish_latency[i];
    return count;
}

static void when_user_is_deleted(int32_t auth_id)
{
    struct test_reply reply;
    when_deleted(&userd, auth_id, &reply);
    cr_assert_eq(reply.status, GRPC_STATUS_OK, "%s", reply.message);
    test_reply_cleanup(&reply);
}

Test(scoreboard, says_how_long_events_took_from_commit_to_the_broker)
{
    for (int32_t id = 1; id <= 10; id++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "user%d", id);
        given_user(&userd, id, name);
        when_user_is_deleted(id);
    }
    bool is_counted = TEST_WAIT_FOR(count_latencies() == 10, TEST_TIMEOUT_MS);
    cr_assert(is_counted, "%llu latencies", (unsigned long long)count_latencies());
    uint64_t sum_us = worker()->publish_latency_sum_us;
    cr_assert(
        sum_us > 0 && sum_us < 10 * UINT64_C(30000000), "%llu us", (unsigned long long)sum_us);
    cr_assert(TEST_WAIT_FOR(worker()->outbox_oldest_us == 0, TEST_TIMEOUT_MS), "a row still waits");
}

Test(scoreboard_without_kafka, says_how_old_what_waits_is)
{
    given_user(&userd, 1, "trinity");
    when_user_is_deleted(1);
    bool is_old = TEST_WAIT_FOR(worker()->outbox_oldest_us > 1000000, TEST_TIMEOUT_MS);
    cr_assert(is_old, "%llu us", (unsigned long long)worker()->outbox_oldest_us);
    cr_assert_eq(worker()->outbox_backlog, 1);
    cr_assert_eq(count_latencies(), 0);
}

Test(scoreboard, says_how_far_consumption_is_behind)
{
    test_broker_produce(
        &userd.broker, "registration", 2, "{\"id\": 1, \"username\": \"trinity\"}", 32);
    then_name_becomes(&userd, 1, "trinity");
    /* Nothing takes effect while the table is held. */
    PGconn *locker = test_database_lock_users(&userd.database);
    for (int i = 0; i < 5; i++)
        test_broker_produce(
            &userd.broker, "registration", 2, "{\"id\": 2, \"username\": \"morpheus\"}", 33);
    bool is_behind = TEST_WAIT_FOR(eventd()->kafka_lag == 5, TEST_TIMEOUT_MS);
    uint64_t behind = eventd()->kafka_lag;
    bool has_row = false;
    for (size_t i = 0; i < SCOREBOARD_LAGS; i++) {
        const struct scoreboard_lag *row = &eventd()->kafka_lags[i];
        has_row = has_row || (row->topic == SCOREBOARD_TOPIC_REGISTRATION && row->partition == 2 &&
                                 row->records == 5);
    }
    PQfinish(locker);
    cr_assert(is_behind, "lag %llu", (unsigned long long)behind);
    cr_assert(has_row, "no row of partition 2 says 5");
    bool is_level = TEST_WAIT_FOR(eventd()->kafka_lag == 0, TEST_TIMEOUT_MS);
    cr_assert(is_level, "lag %llu", (unsigned long long)eventd()->kafka_lag);
}

Test(scoreboard, says_what_librdkafka_knows_of_the_brokers)
{
    bool is_up = TEST_WAIT_FOR(eventd()->kafka_brokers_up >= 1, TEST_TIMEOUT_MS);
    cr_assert(is_up, "%llu brokers", (unsigned long long)eventd()->kafka_brokers_up);
    cr_assert_geq(eventd()->kafka_brokers, eventd()->kafka_brokers_up);
}
