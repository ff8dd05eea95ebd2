/* What stands in the way of a start, and how it is said. */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "tests/harness/test_userd.h"

static struct test_userd userd;

static void init(void)
{
    static const struct test_userd_options options = {.workers = 1};
    given_userd(&userd, &options);
    given_user(&userd, 17, "trinity");
}

static void fini(void)
{
    finally_userd(&userd);
}

TestSuite(start, .init = init, .fini = fini, .timeout = 120);

static void then_start_fails(const char *file, int expected_status, const char *expected_text)
{
    const char *const argv[] = {TEST_USERD, "run", "-c", file, NULL};
    char *output = NULL;
    int status = test_process_run(argv, NULL, userd.directory, &output);
    cr_assert_eq(status, expected_status, "status %d: %s", status, output);
    cr_assert(strstr(output, expected_text) != NULL, "\"%s\" is not in: %s", expected_text, output);
    free(output);
    then_name_is(&userd, 17, "trinity");
}

Test(start, is_refused_where_a_master_runs_by_its_pid)
{
    char holder[160];
    (void)snprintf(holder, sizeof(holder), "already running run_dir=%s/run pid=%d", userd.directory,
        (int)userd.master.pid);
    then_start_fails(userd.config_path, EX_TEMPFAIL, holder);
}

/* A second service with the first one's gateway address, written as `address`. */
static void then_address_is_refused(const char *address)
{
    char *text = test_file_read(userd.config_path, NULL);
    char other[160];
    (void)snprintf(other, sizeof(other), "%s/other.conf", userd.directory);
    test_file_write(other, text);
    free(text);
    struct test_userd second = userd;
    (void)snprintf(
        second.config_path, sizeof(second.config_path), "%s/other.conf", userd.directory);
    when_config_changes(&second, "/run\"", "/other\"");
    when_config_changes(&second, "127.0.0.1:0", address);
    char reason[256];
    (void)snprintf(reason, sizeof(reason),
        "%s:4: listener gateway: cannot listen on %s: Address already in use", second.config_path,
        address);
    then_start_fails(second.config_path, EX_OSERR, reason);
    if (strcmp(address, userd.gateway_address) != 0)
        return;
    (void)snprintf(reason, sizeof(reason), "%s: Address already in use by userd, pid %d", address,
        (int)userd.master.pid);
    then_start_fails(second.config_path, EX_OSERR, reason);
}

Test(start, names_line_and_holder_of_an_address_in_use)
{
    then_address_is_refused(userd.gateway_address);
}

/* "localhost" is both families: the other one must not be taken because the first is in use. */
Test(start, takes_no_other_family_for_one_that_is_in_use)
{
    char address[64];
    (void)snprintf(address, sizeof(address), "localhost:%d", userd.gateway_port);
    then_address_is_refused(address);
}
