/* `userd upgrade`: the master becomes the program that is on disk, and nobody notices; or it stays
 * what it is, and says why. */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/harness/test_status.h"
#include "tests/harness/test_userd.h"

#define UPGRADES 3

static struct test_userd userd;

static void init(void)
{
    static const struct test_userd_options options = {
        .workers = 2, .has_broker = true, .has_own_programs = true};
    given_userd(&userd, &options);
    given_user(&userd, 17, "trinity");
}

static void fini(void)
{
    finally_userd(&userd);
}

TestSuite(upgrade, .init = init, .fini = fini, .timeout = 180);

/* Its status; what it says is the caller's to free. */
static int when_upgraded(char **ret_output)
{
    char run_dir[96];
    (void)snprintf(run_dir, sizeof(run_dir), "%s/run", userd.directory);
    const char *const argv[] = {TEST_USERD, "upgrade", "--run-dir", run_dir, NULL};
    return test_process_run(argv, NULL, userd.directory, ret_output);
}

static void then_upgrade_works(void)
{
    char *output = NULL;
    cr_assert_eq(when_upgraded(&output), 0, "%s", output);
    free(output);
}

static json_int_t generation(void)
{
    json_t *report = test_status_read(&userd);
    cr_assert_eq(test_status_number(report, "master", "pid"), userd.master.pid);
    json_int_t value = test_status_number(report, "master", "generation");
    json_decref(report);
    return value;
}

static void then_upgrade_is_refused(const char *reason)
{
    char *output = NULL;
    json_int_t before = generation();
    cr_assert_eq(when_upgraded(&output), 1, "%s", output);
    cr_assert(strstr(output, reason) != NULL, "\"%s\" is not in: %s", reason, output);
    free(output);
    then_log_says(&userd, "upgrade refused, the old program stays in force");
    cr_assert_eq(generation(), before);
    then_name_is(&userd, 17, "trinity");
}

/* As a package does it: a new file under the old name. */
static void when_program_becomes(const char *text, mode_t mode)
{
    char path[192];
    (void)snprintf(path, sizeof(path), "%s.new", userd.program);
    test_file_write(path, text);
    cr_assert_eq(chmod(path, mode), 0);
    cr_assert_eq(rename(path, userd.program), 0);
}

/* What a configuration is warned of is no reason, and must not stand beside the agreement. */
Test(upgrade, is_not_refused_for_a_warning)
{
    cr_assert_eq(chmod(userd.config_path, 0644), 0);
    char *output = NULL;
    cr_assert_eq(when_upgraded(&output), 0, "%s", output);
    cr_assert(strstr(output, "everybody can read the file") != NULL, "no warning: %s", output);
    free(output);
    then_name_is(&userd, 17, "trinity");
}

static pid_t eventd_pid(void)
{
    pid_t pids[TEST_MAX_MEMBERS];
    return test_process_children(userd.master.pid, "userd-eventd", pids) == 1 ? pids[0] : 0;
}

Test(upgrade, keeps_the_process_its_sockets_and_its_connections)
{
    for (int i = 0; i < UPGRADES; i++) {
        pid_t eventd = eventd_pid();
        then_name_is(&userd, 17, "trinity");
        then_upgrade_works();
        cr_assert(test_process_is_running(&userd.master));
        cr_assert_eq(generation(), 2 + i);
        char address[TEST_ADDRESS_SIZE];
        test_userd_listener(&userd, "gateway", address);
        cr_assert_str_eq(address, userd.gateway_address);
        then_name_is(&userd, 17, "trinity");
        cr_assert_eq(eventd_pid(), eventd, "eventd was replaced without a reason");
    }
    then_every_worker_serves(&userd);
    test_broker_send(&userd.broker, "registration", "{\"id\": 18, \"username\": \"neo\"}");
    then_name_becomes(&userd, 18, "neo");
}

Test(upgrade, runs_a_new_file_under_the_old_name)
{
    const char *const argv[] = {
        "/bin/cp", "--remove-destination", TEST_USERD, TEST_USERD_EVENTD, NULL, NULL};
    const char *with_target[ARRAY_LENGTH(argv)];
    char bin[96];
    (void)snprintf(bin, sizeof(bin), "%s/bin", userd.directory);
    memcpy(with_target, argv, sizeof(argv));
    with_target[4] = bin;
    char *output = NULL;
    pid_t eventd = eventd_pid();
    cr_assert_eq(test_process_run(with_target, NULL, userd.directory, &output), 0, "%s", output);
    free(output);
    cr_assert_eq(kill(userd.master.pid, SIGUSR2), 0);
    then_log_says(&userd, "upgraded file=");
    then_log_says(&userd, "serving workers=2 generation=2");
    cr_assert(TEST_WAIT_FOR(eventd_pid() > 0 && eventd_pid() != eventd, TEST_TIMEOUT_MS),
        "eventd's new program was left alone");
    char link[64];
    char target[256] = "";
    (void)snprintf(link, sizeof(link), "/proc/%d/exe", (int)userd.master.pid);
    cr_assert_gt(readlink(link, target, sizeof(target) - 1), 0);
    cr_assert_str_eq(target, userd.program, "it still runs the file that was deleted");
    then_name_is(&userd, 17, "trinity");
}

Test(upgrade, stays_what_it_is_when_the_new_program_is_no_good)
{
    when_program_becomes(
        "#!/bin/sh\necho 'hands over in format 1, expected 2' >&2\nexit 76\n", 0755);
    then_upgrade_is_refused(
        "does not take over, it ended with 76 and said: hands over in format 1");
    when_program_becomes("#!/bin/sh\nexit 0\n", 0755);
    then_upgrade_is_refused("does not take over, it ended with 0");
    when_program_becomes("#!/bin/sh\nexec sleep 100\n", 0755);
    then_upgrade_is_refused("did not say in time");
    when_program_becomes("\177ELF and then nothing", 0755);
    then_upgrade_is_refused("cannot be run: Exec format error");
    when_program_becomes("", 0644);
    then_upgrade_is_refused("cannot be run: Permission denied");
    cr_assert_eq(unlink(userd.program), 0);
    then_upgrade_is_refused("bin/userd cannot be run: No such file or directory");
    /* and nothing of this has left a trace */
    cr_assert_eq(symlink(TEST_USERD, userd.program), 0);
    then_upgrade_works();
    then_name_is(&userd, 17, "trinity");
}

Test(upgrade, is_refused_with_a_worker_or_a_configuration_that_is_no_good)
{
    char worker[192];
    (void)snprintf(worker, sizeof(worker), "%s-worker", userd.program);
    char away[200];
    (void)snprintf(away, sizeof(away), "%s.away", worker);
    cr_assert_eq(rename(worker, away), 0);
    then_upgrade_is_refused("program not found program=userd-worker");
    cr_assert_eq(rename(away, worker), 0);
    when_config_changes(&userd, "limits = {", "limits = { queued_calls = 0;");
    then_upgrade_is_refused("limits.queued_calls");
}

Test(upgrade, goes_on_waiting_for_a_child_that_is_to_come_back)
{
    cr_assert_eq(kill(eventd_pid(), SIGKILL), 0);
    then_log_says(&userd, "child will be started again role=eventd");
    then_upgrade_works();
    cr_assert(TEST_WAIT_FOR(eventd_pid() > 0, TEST_TIMEOUT_MS), "eventd was forgotten");
    test_broker_send(&userd.broker, "registration", "{\"id\": 18, \"username\": \"neo\"}");
    then_name_becomes(&userd, 18, "neo");
}
