/* `userd-metrics RUN_DIR ADDRESS`, started by `userd metrics --listen`: serves the numbers of the
 * service in RUN_DIR to Prometheus.
 *
 * A program of its own, so that the master links no HTTP server and this one needs no right but to
 * ask for the status: it never reads the configuration, never holds a secret.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "common/attributes.h"
#include "common/file_descriptor.h"
#include "common/log.h"
#include "common/program_words.h"
#include "common/settings_complaints.h"
#include "master/listener.h"
#include "master/metrics_server.h"

static int open_listener(char *address, struct listener *ret_listener)
{
    char name[] = "metrics";
    const struct settings_listener setting = {.name = name, .address = address};
    struct settings_complaints complaints = {0};
    struct listener_inheritance inheritance = {0};
    int result = listener_inheritance_take(&inheritance);
    if (result == 0)
        result = listener_open(&setting, "--listen", &inheritance, &complaints, ret_listener);
    listener_inheritance_cleanup(&inheritance);
    if (result < 0)
        log_error("%s", complaints.text != NULL ? complaints.text : strerror(-result));
    settings_complaints_cleanup(&complaints);
    return result;
}

static int serve(const char *run_dir, const sigset_t *ends, struct listener *listener)
{
    struct metrics_server *server = NULL;
    int result = metrics_server_start(listener->fd, run_dir, &server);
    if (result < 0) {
        log_error("metrics not served error=\"%s\"", strerror(-result));
        return EX_OSERR;
    }
    listener->fd = -1; /* the server's now */
    (void)sd_notifyf(false, "READY=1\nSTATUS=serving http://%s/metrics", listener->bound_text);
    int number = 0;
    while (sigwait(ends, &number) != 0)
        ;
    log_info("stopped signal=%s", sigabbrev_np(number));
    (void)sd_notify(false, "STOPPING=1");
    (void)metrics_server_stop(server);
    return EX_OK;
}

int main(int argc, char **argv)
{
    if (program_words_answer(argc, argv, "userd-metrics",
            "RUN_DIR ADDRESS:PORT serves a userd's numbers at /metrics, see userd help metrics"))
        return EX_OK;
    log_init("metrics");
    if (argc != 3) {
        (void)fprintf(stderr, "usage: userd-metrics RUN_DIR ADDRESS\n");
        return EX_USAGE;
    }
    sigset_t ends;
    (void)sigemptyset(&ends);
    (void)sigaddset(&ends, SIGTERM);
    (void)sigaddset(&ends, SIGINT);
    /* before the server's thread, which must not get them */
    if (sigprocmask(SIG_BLOCK, &ends, NULL) != 0)
        return EX_OSERR;
    (void)signal(SIGPIPE, SIG_IGN);
    struct listener listener = {.fd = -1};
    int result = open_listener(argv[2], &listener);
    if (result < 0)
        return result == -EINVAL ? EX_USAGE : EX_UNAVAILABLE;
    int status = serve(argv[1], &ends, &listener);
    listener_close(&listener);
    return status;
}
