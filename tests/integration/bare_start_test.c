/* A container without a configuration file: two variables are enough. In namespaces of its own,
 * since the standard ports, /run/userd and /etc/userd are then this service's. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/harness/test_userd.h"

static struct test_userd userd;

static void fini(void)
{
    finally_userd(&userd);
}

TestSuite(bare_start, .fini = fini, .timeout = 120);

/* $0 is userd. Whatever fails in between, nothing outlives the script. */
static const char script[] = "set -e\n"
                             "mount -t tmpfs tmpfs /run\n"
                             "if [ -d /etc/userd ]; then mount -t tmpfs tmpfs /etc/userd; fi\n"
                             "\"$0\" run & pid=$!\n"
                             "status=0\n"
                             "\"$0\" ready --wait 30 || status=$?\n"
                             "\"$0\" status || status=$?\n"
                             "kill $pid\n"
                             "wait $pid || status=$?\n"
                             "exit $status\n";

Test(bare_start, two_variables_are_enough)
{
    static const struct test_userd_options options = {.skips_start = true};
    given_userd(&userd, &options);
    char url[sizeof(userd.database.url)];
    test_database_socket_url(&userd.database, url);
    char variable[sizeof(url) + 16];
    (void)snprintf(variable, sizeof(variable), "DB_URL=%s", url);
    const char *const environment[] = {
        variable, "KAFKA_URL=127.0.0.1:9", "KAFKA_BOOTSTRAP_SERVERS", NULL};
    /* who is not root becomes it in a user namespace; root would lose its rights there */
    const char *const argv[] = {"/usr/bin/unshare",
        geteuid() == 0 ? "--mount-proc" : "--map-root-user", "--fork", "--pid", "--net", "--mount",
        "/bin/sh", "-c", script, TEST_USERD, NULL};
    char *output = NULL;
    int status = test_process_run(argv, environment, userd.directory, &output);
    cr_expect_eq(status, 0, "status %d: %s", status, output);
    cr_expect(
        strstr(output, "no configuration file, the defaults and the environment are used") != NULL,
        "%s", output);
    cr_expect(strstr(output, "listener gateway: [::]:50053") != NULL ||
                  strstr(output, "listener gateway: 0.0.0.0:50053") != NULL,
        "%s", output);
    cr_expect(strstr(output, "no broker is named") == NULL, "%s", output);
    free(output);
}
