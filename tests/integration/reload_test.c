/* What a reload changes and what it leaves alone, on the real programs. */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/harness/test_userd.h"

#define CALLS_MEANWHILE 5
#define SERVICES        "services = [ \"user.User\" ]; }"

static struct test_userd userd;

static void fini(void)
{
    finally_userd(&userd);
}

TestSuite(reload, .fini = fini, .timeout = 120);

static void given_service(bool has_broker)
{
    const struct test_userd_options options = {.workers = 1, .has_broker = has_broker};
    given_userd(&userd, &options);
    given_user(&userd, 17, "trinity");
    then_name_is(&userd, 17, "trinity");
}

/* `userd reload`: its status; what it says is the caller's to free. */
static int when_reloaded(char **ret_output)
{
    return when_userd_is_told(&userd, (const char *const[]){"reload", NULL}, ret_output);
}

static void then_reload_works(void)
{
    char *output = NULL;
    cr_assert_eq(when_reloaded(&output), 0, "%s", output);
    free(output);
}

static void then_reload_is_refused(const char *reason)
{
    char *output = NULL;
    cr_assert_eq(when_reloaded(&output), 1, "%s", output);
    cr_assert(strstr(output, reason) != NULL, "\"%s\" is not in: %s", reason, output);
    free(output);
    then_name_is(&userd, 17, "trinity");
}

static grpc_status_code status_at(const char *address)
{
    struct test_rpc rpc = {0};
    struct test_reply reply;
    test_rpc_open(&rpc, address, false);
    test_rpc_finish(test_rpc_start(&rpc, METHOD_GET_USER, "\x08\x11", 2, 2000), &reply);
    grpc_status_code status = reply.status;
    test_reply_cleanup(&reply);
    test_rpc_close(&rpc);
    return status;
}

static pid_t only_child(const char *program)
{
    pid_t pids[TEST_MAX_MEMBERS];
    return test_process_children(userd.master.pid, program, pids) == 1 ? pids[0] : 0;
}

/* ---- listeners ---- */

Test(reload, adds_a_listener_and_takes_it_away_again)
{
    given_service(false);
    when_config_changes(&userd, "listeners = (",
        "listeners = ({ name = \"third\"; address = \"127.0.0.1:0\"; " SERVICES ",");
    then_reload_works();
    char third[TEST_ADDRESS_SIZE];
    char gateway[TEST_ADDRESS_SIZE];
    test_userd_listener(&userd, "third", third);
    test_userd_listener(&userd, "gateway", gateway);
    cr_assert_str_eq(gateway, userd.gateway_address, "a listener that stays has moved");
    cr_assert_eq(status_at(third), GRPC_STATUS_OK);
    then_name_is(&userd, 17, "trinity");

    when_config_changes(&userd, "{ name = \"third\"; address = \"127.0.0.1:0\"; " SERVICES ",", "");
    then_reload_works();
    cr_assert_eq(status_at(third), GRPC_STATUS_UNAVAILABLE);
    cr_assert_eq(status_at(userd.gateway_address), GRPC_STATUS_OK);
    then_name_is(&userd, 17, "trinity");
}

Test(reload, moves_a_listener_and_changes_its_services)
{
    given_service(false);
    char before[TEST_ADDRESS_SIZE];
    test_userd_listener(&userd, "post", before);
    when_config_changes(&userd, "name = \"post\"; address = \"127.0.0.1:0\"",
        "name = \"post\"; address = \"[::1]:0\"");
    when_config_changes(&userd, "[ \"user_post.UserPost\" ]", "[ \"user.User\" ]");
    then_reload_works();
    char after[TEST_ADDRESS_SIZE];
    test_userd_listener(&userd, "post", after);
    cr_assert_eq(strncmp(after, "[::1]:", 6), 0, "%s", after);
    cr_assert_eq(status_at(after), GRPC_STATUS_OK);
    cr_assert_eq(status_at(before), GRPC_STATUS_UNAVAILABLE);
}

Test(reload, refuses_an_address_in_use_by_line_and_holder)
{
    given_service(false);
    char entry[256];
    (void)snprintf(entry, sizeof(entry),
        "listeners = (\n{ name = \"third\"; address = \"%s\"; " SERVICES ",",
        userd.gateway_address);
    when_config_changes(&userd, "listeners = (", entry);
    char reason[256];
    (void)snprintf(reason, sizeof(reason),
        ":4: listener third: cannot listen on %s: Address already in use by userd, pid %d",
        userd.gateway_address, (int)userd.master.pid);
    then_reload_is_refused(reason);
}

/* ---- what cannot change ---- */

Test(reload, keeps_run_dir_and_says_so)
{
    given_service(false);
    char copy[192];
    (void)snprintf(copy, sizeof(copy), "%s/copy.conf", userd.directory);
    char *text = test_file_read(userd.config_path, NULL);
    test_file_write(copy, text);
    free(text);
    when_config_changes(&userd, "/run\"", "/elsewhere\"");
    const char *const argv[] = {TEST_USERD, "reload", "-c", copy, NULL};
    char *output = NULL;
    cr_assert_eq(test_process_run(argv, NULL, userd.directory, &output), 0, "%s", output);
    cr_assert(strstr(output, "/elsewhere\" and stays \"") != NULL, "%s", output);
    free(output);
}

/* ---- eventd ---- */

Test(reload, replaces_eventd_only_when_its_part_changes)
{
    given_service(true);
    pid_t eventd = only_child("userd-eventd");
    pid_t worker = only_child("userd-worker");
    cr_assert(eventd > 0 && worker > 0);
    when_config_changes(&userd, "limits = {", "limits = { queued_calls = 9000; ");
    then_reload_works();
    cr_assert(TEST_WAIT_FOR(only_child("userd-worker") != worker, TEST_TIMEOUT_MS));
    then_log_says(&userd, "eventd stays");
    cr_assert_eq(only_child("userd-eventd"), eventd);

    when_config_changes(&userd, "kafka = {", "kafka = { linger_ms = 2; ");
    then_reload_works();
    cr_assert(TEST_WAIT_FOR(
        only_child("userd-eventd") != eventd && only_child("userd-eventd") > 0, TEST_TIMEOUT_MS));
}

/* A file at the place of a program, as a package puts it there. */
static void when_eventd_becomes(const char *text)
{
    char path[192];
    char target[192];
    (void)snprintf(path, sizeof(path), "%s/bin/userd-eventd.new", userd.directory);
    (void)snprintf(target, sizeof(target), "%s/bin/userd-eventd", userd.directory);
    test_file_write(path, text);
    cr_assert_eq(chmod(path, 0755), 0);
    cr_assert_eq(rename(path, target), 0);
}

Test(reload, refuses_a_property_that_eventd_would_not_start_with_by_line)
{
    given_service(true);
    pid_t eventd = only_child("userd-eventd");
    when_config_changes(
        &userd, "kafka = {", "kafka = {\noptions = {\nsecurty_protocol = \"SSL\"; };");
    then_reload_is_refused("kafka.options.securty_protocol: librdkafka ");
    then_reload_is_refused("did you mean security_protocol?");
    cr_assert_eq(kill(userd.master.pid, SIGHUP), 0);
    then_log_says(&userd, "userd.conf sender_pid=");
    /* the one that is asked is there for a moment */
    cr_assert(TEST_WAIT_FOR(only_child("userd-eventd") == eventd, TEST_TIMEOUT_MS),
        "eventd was replaced");

    when_config_changes(&userd, "securty_protocol = \"SSL\"", "socket_timeout_ms = 20000");
    then_reload_works();
    cr_assert(TEST_WAIT_FOR(
        only_child("userd-eventd") != eventd && only_child("userd-eventd") > 0, TEST_TIMEOUT_MS));
}

static size_t log_count(const char *text)
{
    char *log = test_file_read(userd.log_path, NULL);
    size_t count = 0;
    for (const char *found = strstr(log, text); found != NULL; found = strstr(found + 1, text))
        count++;
    free(log);
    return count;
}

static void then_eventd_stays(void)
{
    size_t before = log_count("eventd stays reason=");
    then_reload_works();
    cr_assert_eq(log_count("eventd stays reason="), before + 1, "eventd was replaced");
}

static void then_eventd_is_replaced(void)
{
    size_t before = log_count("eventd replaced");
    pid_t eventd = only_child("userd-eventd");
    then_reload_works();
    cr_assert_eq(log_count("eventd replaced"), before + 1, "eventd was not replaced");
    bool is_another = TEST_WAIT_FOR(
        only_child("userd-eventd") != eventd && only_child("userd-eventd") > 0, TEST_TIMEOUT_MS);
    cr_assert(is_another, "there is no other eventd");
}

/* As a rotation does it: another file under the same name; or written in its place. */
Test(reload, replaces_eventd_for_a_certificate_that_was_rotated_and_not_for_a_comment)
{
    given_service(true);
    char path[128];
    char next[128];
    char option[256];
    (void)snprintf(path, sizeof(path), "%s/ca.pem", userd.directory);
    (void)snprintf(next, sizeof(next), "%s/ca.new", userd.directory);
    (void)snprintf(
        option, sizeof(option), "kafka = {\noptions = { ssl_ca_location = \"%s\"; };", path);
    test_file_write(path, "first");
    when_config_changes(&userd, "kafka = {", option);
    then_eventd_is_replaced();
    then_eventd_stays();
    when_config_changes(&userd, "kafka = {", "// one\n// two\n\nkafka = {");
    then_eventd_stays();

    test_file_write(next, "other");
    cr_assert_eq(rename(next, path), 0);
    then_eventd_is_replaced();
    then_eventd_stays();
    test_file_write(path, "third");
    then_eventd_is_replaced();
    then_eventd_stays();
}

Test(reload, serves_on_while_an_eventd_that_hangs_is_asked)
{
    const struct test_userd_options options = {.has_broker = true, .has_own_programs = true};
    given_userd(&userd, &options);
    given_user(&userd, 17, "trinity");
    when_eventd_becomes("#!/bin/sh\nexec sleep 600\n");
    when_config_changes(&userd, "kafka = {", "kafka = { options = { socket_timeout_ms = 20000; };");
    cr_assert_eq(kill(userd.master.pid, SIGHUP), 0);
    then_log_says(&userd, "reloading file=");
    /* a new connection each: the master's loop takes them */
    for (int i = 0; i < CALLS_MEANWHILE; i++)
        cr_assert_eq(status_at(userd.gateway_address), GRPC_STATUS_OK);
    char *log = test_file_read(userd.log_path, NULL);
    cr_assert(strstr(log, "reload refused") == NULL, "the calls came after the answer");
    free(log);
    char *output = NULL;
    cr_assert_eq(when_reloaded(&output), 1, "%s", output);
    cr_assert(strstr(output, "another reload is under way") != NULL, "%s", output);
    free(output);
    then_log_says(&userd, "has not said in time whether it takes them");
    then_log_says(&userd, "reload refused, the old configuration stays in force");
    then_name_is(&userd, 17, "trinity");
}

/* ---- probation ---- */

Test(reload, refuses_a_database_that_only_the_new_workers_do_not_reach)
{
    given_service(false);
    char entry[600];
    (void)snprintf(entry, sizeof(entry), "url = \"%s\"", userd.database.url);
    when_config_changes(&userd, entry, "url = \"postgresql://nobody@127.0.0.1:9/nothing\"");
    then_reload_is_refused("the new workers do not reach the database, and the old ones do");
}

Test(reload, works_while_the_database_is_away_for_all)
{
    const struct test_userd_options options = {.workers = 1, .has_own_cluster = true};
    given_userd(&userd, &options);
    given_user(&userd, 17, "trinity");
    pid_t worker = only_child("userd-worker");
    test_database_stop_cluster(&userd.database);
    then_health_becomes(&userd, TEST_HEALTH_NOT_SERVING);
    then_reload_works();
    cr_assert(TEST_WAIT_FOR(
        only_child("userd-worker") > 0 && only_child("userd-worker") != worker, TEST_TIMEOUT_MS));
    test_database_start_cluster(&userd.database);
    then_health_becomes(&userd, TEST_HEALTH_SERVING);
    then_name_is(&userd, 17, "trinity");
}
