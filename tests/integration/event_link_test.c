/* The channel between a worker and eventd breaks from one of its own sides, where both live on: a
 * new one is made, and no event waits for a restart. What breaks it is a frame that needs a memfd
 * while the process may have no more descriptors. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "tests/harness/test_userd.h"

#define PADDING 100000 /* bytes: more than fits into a record of the channel */

static struct test_userd userd;
static struct test_reader reader;
static pid_t worker;
static pid_t eventd;

static pid_t only_child(const char *name)
{
    pid_t pids[TEST_MAX_MEMBERS];
    cr_assert_eq(test_process_children(userd.master.pid, name, pids), 1, "not one %s", name);
    return pids[0];
}

static void init(void)
{
    static const struct test_userd_options options = {
        .has_broker = true, .limit_settings = "event_bytes = 1000000;"};
    given_userd(&userd, &options);
    test_broker_send(&userd.broker, "registration", "{\"id\": 1, \"username\": \"morpheus\"}");
    then_name_becomes(&userd, 1, "morpheus");
    worker = only_child("userd-worker");
    eventd = only_child("userd-eventd");
}

static void fini(void)
{
    test_reader_close(&reader);
    finally_userd(&userd);
}

TestSuite(event_link, .init = init, .fini = fini, .timeout = 120);

static void when_a_long_registration_comes(int id)
{
    char *json = NULL;
    cr_assert(asprintf(&json, "{\"id\": %d, \"username\": \"trinity\", \"padding\": \"%*s\"}", id,
                  PADDING, "") > 0);
    test_broker_send(&userd.broker, "registration", json);
    free(json);
}

static void when_a_long_event_waits_in_the_outbox(void)
{
    then_database_says(&userd,
        "WITH made AS (INSERT INTO outbox (destination, id_auth, key, value) VALUES"
        " (1, 17, '17', convert_to(rpad('{\"id\": 17}', 100000), 'UTF8')) RETURNING 1)"
        " SELECT count(*) FROM made",
        "1");
}

static void then_both_live(void)
{
    cr_assert_eq(only_child("userd-worker"), worker, "the worker is another one");
    cr_assert_eq(only_child("userd-eventd"), eventd, "eventd is another one");
}

/* Both ways over the channel that there is now. */
static void then_events_flow(void)
{
    test_reader_open(&reader, &userd.broker, "delete");
    given_user(&userd, 50, "niobe");
    test_broker_send(&userd.broker, "admin_delete_user", "{\"id\": 50}");
    struct test_record record;
    cr_assert(test_reader_next(&reader, &record, TEST_TIMEOUT_MS), "nothing is published");
    cr_assert_str_eq(record.value, "{\"id\": 50}");
    test_record_cleanup(&record);
    then_database_says(&userd, "SELECT count(*) FROM outbox", "0");
    then_both_live();
}

/* The channel breaks over it, for want of a descriptor in one process, and is made again. */
static void then_a_long_registration_arrives(pid_t process, const char *complaint)
{
    test_process_limit_descriptors(process, TEST_DESCRIPTORS_FOR_LIFE);
    when_a_long_registration_comes(17);
    then_log_says(&userd, complaint);
    test_process_limit_descriptors(process, -1);
    then_name_becomes(&userd, 17, "trinity");
    then_events_flow();
}

Test(event_link, broken_by_eventd_is_made_again)
{
    then_a_long_registration_arrives(
        eventd, "worker does not take frames slot=1 error=-24: channel ended");
}

Test(event_link, broken_by_a_worker_that_cannot_send_is_made_again)
{
    test_process_limit_descriptors(worker, TEST_DESCRIPTORS_FOR_LIFE);
    when_a_long_event_waits_in_the_outbox();
    then_log_says(&userd, "eventd does not take frames error=-24: channel ended");
    test_process_limit_descriptors(worker, -1);
    then_database_says(&userd, "SELECT count(*) FROM outbox", "0");
    then_both_live();
    test_reader_open(&reader, &userd.broker, "delete");
    struct test_record record;
    cr_assert(test_reader_next(&reader, &record, TEST_TIMEOUT_MS), "nothing is published");
    cr_assert_eq(record.value_length, 100000);
    test_record_cleanup(&record);
    cr_assert(!test_reader_next(&reader, &record, 300), "published once more");
}

Test(event_link, broken_by_a_worker_that_cannot_receive_is_made_again)
{
    then_a_long_registration_arrives(
        worker, "ipc channel broken peer=eventd error=\"Too many open files\"");
}

/* How often the log holds the text. */
static size_t log_count(const char *text)
{
    char *log = test_file_read(userd.log_path, NULL);
    size_t count = 0;
    for (const char *place = strstr(log, text); place != NULL; place = strstr(place + 1, text))
        count++;
    free(log);
    return count;
}

Test(event_link, that_breaks_again_and_again_is_asked_for_ever_more_slowly)
{
    static const char failure[] = "worker channel not opened slot=1";
    int64_t begin_ms = test_now_ms();
    test_process_limit_descriptors(eventd, TEST_DESCRIPTORS_FOR_LIFE);
    when_a_long_registration_comes(17);
    bool is_asked = TEST_WAIT_FOR(log_count(failure) >= 5, TEST_TIMEOUT_MS);
    cr_assert(is_asked, "nobody asks for a channel");
    /* 100 ms, doubled each time, and half of it at the least */
    cr_assert_geq(test_now_ms() - begin_ms, 50 + 100 + 200 + 400 + 800);
    test_process_limit_descriptors(eventd, -1);
    then_name_becomes(&userd, 17, "trinity");
    then_both_live();
}
