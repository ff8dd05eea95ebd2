/* userd-worker: started by the master alone (common/process_protocol.h); people never type it.
 *
 * worker   serves gRPC from PostgreSQL
 * migrate  changes the database's schema
 * check    says what it has against its part of the configuration
 *
 * Holds database credentials and client connections; never holds anything of Kafka's.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/crash_report.h"
#include "common/log.h"
#include "common/process_link.h"
#include "common/process_protocol.h"
#include "common/process_verdict.h"
#include "common/program_words.h"
#include "worker/store/database_check.h"
#include "worker/user/schema_command.h"
#include "worker/worker_process.h"

/* A master that serves meanwhile hears how it ended; one that waits for our end does not mind. */
static void tell_end(struct process_link *link, int status)
{
    Userd__Ipc__MigrationEnd end = USERD__IPC__MIGRATION_END__INIT;
    Userd__Ipc__Frame frame = USERD__IPC__FRAME__INIT;
    end.exit_status = (uint32_t)status;
    frame.body_case = USERD__IPC__FRAME__BODY_MIGRATION_END;
    frame.migration_end = &end;
    if (process_link_send(link, &frame) < 0)
        log_debug("end of the migration not told status=%d", status);
}

static int run_migrate(int argument_count, char **arguments)
{
    static const struct process_link_handlers handlers = {0};
    struct process_link link = {0};
    if (process_link_open(&link, PROCESS_ROLE_MIGRATE, &handlers, NULL) < 0)
        return EXIT_FAILURE;
    int status = schema_command(&link, argument_count, arguments);
    tell_end(&link, status);
    process_link_close(&link);
    return status;
}

static int run_check(bool connects)
{
    static const struct process_link_handlers handlers = {0};
    struct process_link link = {0};
    if (process_link_open(&link, PROCESS_ROLE_CHECK, &handlers, NULL) < 0)
        return EXIT_FAILURE;
    int status = database_check(&link, connects);
    process_link_close(&link);
    return status;
}

int main(int argc, char **argv)
{
    /* Before there is any thread: signals are for the loop alone, but for those that mean a fault.
     */
    sigset_t blocked;
    crash_report_fill_mask(&blocked);
    (void)pthread_sigmask(SIG_SETMASK, &blocked, NULL);

    if (program_words_answer(argc, argv, "userd-worker",
            "serves gRPC from PostgreSQL; started by userd alone, see userd help"))
        return EXIT_SUCCESS;
    const char *role = argc > 1 ? argv[1] : "";
    if (strcmp(role, PROCESS_ROLE_WORKER) == 0)
        return worker_process_run();
    if (strcmp(role, PROCESS_ROLE_MIGRATE) == 0)
        return run_migrate(argc - 2, argv + 2);
    if (strcmp(role, PROCESS_ROLE_CHECK) == 0)
        return run_check(argc > 2 && strcmp(argv[2], PROCESS_VERDICT_CONNECT) == 0);
    (void)fputs("userd-worker is started by userd\n", stderr);
    return EXIT_FAILURE;
}
