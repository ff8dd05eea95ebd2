/* userd-worker: started by the master alone (common/process_protocol.h); people never type it.
 *
 * worker   serves gRPC from PostgreSQL
 * migrate  changes the database's schema
 *
 * Holds database credentials and client connections; never holds anything of Kafka's.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/process_link.h"
#include "common/process_protocol.h"
#include "worker/user/schema_command.h"
#include "worker/worker_process.h"

static int run_migrate(int argument_count, char **arguments)
{
    static const struct process_link_handlers handlers = {0};
    struct process_link link = {0};
    if (process_link_open(&link, PROCESS_ROLE_MIGRATE, &handlers, NULL) < 0)
        return EXIT_FAILURE;
    int status = schema_command(&link, argument_count, arguments);
    process_link_close(&link);
    return status;
}

int main(int argc, char **argv)
{
    /* Before there is any thread: signals are for the loop alone. */
    sigset_t all;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, NULL);

    const char *role = argc > 1 ? argv[1] : "";
    if (strcmp(role, PROCESS_ROLE_WORKER) == 0)
        return worker_process_run();
    if (strcmp(role, PROCESS_ROLE_MIGRATE) == 0)
        return run_migrate(argc - 2, argv + 2);
    (void)fputs("userd-worker is started by userd\n", stderr);
    return EXIT_FAILURE;
}
