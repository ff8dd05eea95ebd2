/* Workers that look for work before they sleep (busy_poll_us): everything works as without, and
 * they do sleep. */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/harness/test_userd.h"

#define CALLS   50
#define IDLE_MS 500

static struct test_userd userd;

static void init(void)
{
    static const struct test_userd_options options = {
        .has_broker = true, .top_settings = "busy_poll_us = 2000;"};
    given_userd(&userd, &options);
    given_user(&userd, 17, "trinity");
}

static void fini(void)
{
    finally_userd(&userd);
}

TestSuite(busy_poll, .init = init, .fini = fini, .timeout = 120);

/* Processor time of the one worker, from proc(5): fields 14 and 15 of its stat. */
static int64_t worker_cpu_ms(void)
{
    pid_t pids[TEST_MAX_MEMBERS];
    cr_assert_eq(test_process_children(userd.master.pid, "userd-worker", pids), 1);
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pids[0]);
    char *text = test_file_read(path, NULL);
    const char *behind_name = strrchr(text, ')');
    cr_assert_not_null(behind_name);
    uint64_t user = 0;
    uint64_t system = 0;
    int found = sscanf(behind_name,
        ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64, &user, &system);
    free(text);
    cr_assert_eq(found, 2);
    return (int64_t)(user + system) * 1000 / sysconf(_SC_CLK_TCK);
}

Test(busy_poll, serves_calls_and_events_and_is_replaced_and_ends)
{
    for (int i = 0; i < CALLS; i++)
        then_name_is(&userd, 17, "trinity");
    test_broker_send(&userd.broker, "registration", "{\"id\": 18, \"username\": \"morpheus\"}");
    then_name_becomes(&userd, 18, "morpheus");
    static const char *const reload[] = {"reload", NULL};
    char *output = NULL;
    cr_assert_eq(when_userd_is_told(&userd, reload, &output), 0, "%s", output);
    free(output);
    then_name_is(&userd, 17, "trinity");
    when_userd_stops(&userd);
}

/* On a quiet machine two threads that never slept would take a second, on a busy one their share of
 * it. */
Test(busy_poll, sleeps_when_there_is_nothing_to_do)
{
    then_name_is(&userd, 17, "trinity");
    int64_t before_ms = worker_cpu_ms();
    test_pause_ms(IDLE_MS);
    int64_t spent_ms = worker_cpu_ms() - before_ms;
    cr_assert_lt(spent_ms, IDLE_MS / 2, "%" PRId64 " ms of %d without work", spent_ms, IDLE_MS);
}
