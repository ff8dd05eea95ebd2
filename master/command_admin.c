#include "master/command_admin.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "common/file_descriptor.h"
#include "common/monotonic_clock.h"
#include "common/scoreboard.h"
#include "common/settings_file.h"
#include "master/admin_client.h"
#include "master/child_program.h"
#include "master/command_options.h"
#include "master/staffing.h"
#include "master/status_metrics.h"
#include "master/status_print.h"
#include "master/status_report.h"

#define EXIT_NOT_DONE     1
#define ANSWER_TIMEOUT_MS 10000
#define RELOAD_TIMEOUT_MS (STAFFING_RELOAD_TIMEOUT_MS + ANSWER_TIMEOUT_MS)
#define SAMPLE_SECONDS    1
#define BUSY_PAUSE_NS     200000000 /* before an upgrade is asked for again */

static void free_text(char **text)
{
    free(*text);
}

/* A file that was named must be readable: run_dir of another service must never be taken for its
 * own. The standard file may be closed to those who may ask for the status. */
static int find_run_dir(const struct command_options *options, char **ret_run_dir)
{
    struct settings_complaints complaints = {0};
    int result = settings_file_find_run_dir(options->file, ret_run_dir, &complaints);
    if (result == -EACCES && !options->is_file_named) {
        *ret_run_dir = strdup(settings_find("run_dir")->default_text);
        result = *ret_run_dir == NULL ? -ENOMEM : 0;
    } else if (result < 0) {
        (void)fprintf(stderr,
            "%s\nuserd: the service is not known: its run_dir stands in the configuration, or name "
            "it with --run-dir DIR\n",
            complaints.text != NULL ? complaints.text : strerror(-result));
    }
    settings_complaints_cleanup(&complaints);
    return result;
}

int command_admin_find_run_dir(const struct command_options *options, char **ret_run_dir)
{
    if (options->run_dir == NULL)
        return find_run_dir(options, ret_run_dir) < 0 ? EX_CONFIG : EX_OK;
    *ret_run_dir = strdup(options->run_dir);
    return *ret_run_dir == NULL ? EX_OSERR : EX_OK;
}

static int report_no_service(const char *run_dir, int error)
{
    if (error == -ENOENT || error == -ECONNREFUSED)
        (void)fprintf(stderr, "userd is not running (run_dir=%s)\n", run_dir);
    else if (error == -EACCES || error == -EPERM)
        (void)fprintf(stderr, "userd: %s/admin.sock is for root and the service's own user (%s)\n",
            run_dir, strerror(-error));
    else
        (void)fprintf(stderr, "userd: the service cannot be asked (run_dir=%s): %s\n", run_dir,
            strerror(-error));
    return EXIT_NOT_DONE;
}

/* EX_OK, or the exit status with the reason on standard error. */
static int open_client(const struct command_options *options, struct admin_client **ret_client)
{
    char *run_dir CLEANUP(free_text) = NULL;
    int status = command_admin_find_run_dir(options, &run_dir);
    if (status != EX_OK)
        return status;
    int result = admin_client_open(run_dir, ret_client);
    return result < 0 ? report_no_service(run_dir, result) : EX_OK;
}

static int report_silence(int error)
{
    const char *reason = error == -ECONNRESET ? "it hung up" : strerror(-error);
    (void)fprintf(stderr, "userd: the service gave no answer: %s\n", reason);
    return EXIT_NOT_DONE;
}

static int report_refusal(const Userd__Ipc__AdminResult *result)
{
    (void)fprintf(stderr, "%s\n", result->reason);
    return EXIT_NOT_DONE;
}

int command_admin_parse(
    int argc, char **argv, const char *usage, struct command_options *ret_options)
{
    int status = command_options_parse(argc, argv, usage, ret_options);
    if (status != EX_OK)
        return status;
    bool allows_json = strstr(usage, "--json") != NULL;
    if (ret_options->has_migrate || ret_options->has_all ||
        (ret_options->has_json && !allows_json) || ret_options->word_count > 0)
        return command_options_refuse(usage, "there are words that the command does not know");
    return EX_OK;
}

/* EX_OK: *ret_scoreboard is the caller's to close. */
static int open_scoreboard(int fd, const struct scoreboard **ret_scoreboard)
{
    uint32_t version = 0;
    int result = scoreboard_open_readonly(fd, ret_scoreboard, &version);
    if (result == -EPROTONOSUPPORT)
        (void)fprintf(stderr,
            "userd: the running service has version %u of the scoreboard, expected %u: ask with "
            "the userd of its own release\n",
            version, SCOREBOARD_VERSION);
    else if (result < 0)
        (void)fprintf(stderr, "userd: the scoreboard cannot be read: %s\n", strerror(-result));
    return result < 0 ? EXIT_NOT_DONE : EX_OK;
}

static int print_status(
    const Userd__Ipc__AdminResult *master, const struct scoreboard *scoreboard, bool is_json)
{
    struct status_report *reports = calloc(2, sizeof(*reports));
    if (reports == NULL)
        return EX_OSERR;
    const struct timespec pause = {.tv_sec = SAMPLE_SECONDS};
    status_report_read(scoreboard, monotonic_clock_us(), &reports[0]);
    (void)nanosleep(&pause, NULL);
    status_report_read(scoreboard, monotonic_clock_us(), &reports[1]);
    status_report_set_rates(&reports[1], &reports[0]);
    int result = 0;
    if (is_json)
        result = status_print_json(stdout, master, &reports[1]);
    else
        status_print_table(stdout, master, &reports[1]);
    free(reports);
    return result == 0 && fflush(stdout) == 0 && !ferror(stdout) ? EX_OK : EX_IOERR;
}

static int print_metrics(const Userd__Ipc__AdminResult *master, const struct scoreboard *scoreboard)
{
    if (status_metrics_print(stdout, master, scoreboard) < 0)
        return EX_OSERR;
    return fflush(stdout) == 0 && !ferror(stdout) ? EX_OK : EX_IOERR;
}

enum status_form { STATUS_FOR_PEOPLE, STATUS_AS_JSON, STATUS_AS_METRICS };

/* A request and its answer. The answer lives as long as the client does. */
struct question {
    struct admin_client *client; /* owned */
    const Userd__Ipc__AdminResult *answer;
    int fd; /* owned; that came with the answer, or -1 */
};

static void end_question(struct question *question)
{
    fd_close(&question->fd);
    question->client = admin_client_close(question->client);
}

/* `error`: of asking. As ask(). */
static int report_answer(const struct question *question, int error)
{
    if (error < 0)
        return report_silence(error);
    if (!question->answer->is_done)
        return report_refusal(question->answer);
    if (question->answer->warning[0] != '\0')
        (void)fprintf(stderr, "%s\n", question->answer->warning);
    return EX_OK;
}

/* EX_OK: the master has done it. Otherwise the exit status, with the reason on standard error. */
static int ask(const struct command_options *options, Userd__Ipc__AdminRequest__Kind kind,
    unsigned int timeout_ms, struct question *question)
{
    int status = open_client(options, &question->client);
    if (status != EX_OK)
        return status;
    return report_answer(question,
        admin_client_ask(question->client, kind, timeout_ms, &question->answer, &question->fd));
}

static int show_status(const struct command_options *options, enum status_form form)
{
    struct question question CLEANUP(end_question) = {.fd = -1};
    int status =
        ask(options, USERD__IPC__ADMIN_REQUEST__KIND__STATUS, ANSWER_TIMEOUT_MS, &question);
    if (status != EX_OK)
        return status;
    const struct scoreboard *scoreboard = NULL;
    status = open_scoreboard(question.fd, &scoreboard);
    if (status != EX_OK)
        return status;
    status = form == STATUS_AS_METRICS
                 ? print_metrics(question.answer, scoreboard)
                 : print_status(question.answer, scoreboard, form == STATUS_AS_JSON);
    scoreboard_close_readonly(scoreboard);
    return status;
}

int command_admin_show_status(const struct command_options *options)
{
    return show_status(options, options->has_json ? STATUS_AS_JSON : STATUS_FOR_PEOPLE);
}

int command_admin_status(int argc, char **argv)
{
    struct command_options options;
    int status = command_admin_parse(argc, argv, COMMAND_ADMIN_STATUS_USAGE, &options);
    if (status != EX_OK)
        return status;
    return command_admin_show_status(&options);
}

/* Becomes the program that serves them. */
static int serve_metrics(const struct command_options *options)
{
    char *run_dir CLEANUP(free_text) = NULL;
    char *program CLEANUP(free_text) = NULL;
    int status = command_admin_find_run_dir(options, &run_dir);
    if (status != EX_OK)
        return status;
    int result = child_program_find("userd-metrics", &program);
    if (result < 0 || program == NULL)
        return EX_OSERR;
    (void)execl(program, "userd-metrics", run_dir, options->listen, NULL);
    (void)fprintf(stderr, "userd: %s: %s\n", program, strerror(errno));
    return EX_OSERR;
}

int command_admin_metrics(int argc, char **argv)
{
    struct command_options options;
    int status = command_admin_parse(argc, argv, COMMAND_ADMIN_METRICS_USAGE, &options);
    if (status != EX_OK)
        return status;
    return options.listen != NULL ? serve_metrics(&options)
                                  : show_status(&options, STATUS_AS_METRICS);
}

int command_admin_reload(int argc, char **argv)
{
    struct command_options options;
    int status = command_admin_parse(argc, argv, COMMAND_ADMIN_RELOAD_USAGE, &options);
    if (status != EX_OK)
        return status;
    struct question question CLEANUP(end_question) = {.fd = -1};
    return ask(&options, USERD__IPC__ADMIN_REQUEST__KIND__RELOAD, RELOAD_TIMEOUT_MS, &question);
}

int command_admin_upgrade(int argc, char **argv)
{
    struct command_options options;
    int status = command_admin_parse(argc, argv, COMMAND_ADMIN_UPGRADE_USAGE, &options);
    if (status != EX_OK)
        return status;
    uint64_t deadline_us = monotonic_clock_us() + UINT64_C(1000) * RELOAD_TIMEOUT_MS;
    while (true) {
        struct question question CLEANUP(end_question) = {.fd = -1};
        status = open_client(&options, &question.client);
        if (status != EX_OK)
            return status;
        int error = admin_client_ask(question.client, USERD__IPC__ADMIN_REQUEST__KIND__UPGRADE,
            RELOAD_TIMEOUT_MS, &question.answer, &question.fd);
        bool is_busy = error == 0 && question.answer->is_busy;
        if (!is_busy || monotonic_clock_us() >= deadline_us)
            return report_answer(&question, error);
        const struct timespec pause = {.tv_nsec = BUSY_PAUSE_NS};
        (void)nanosleep(&pause, NULL);
    }
}

int command_admin_stop(int argc, char **argv)
{
    struct command_options options;
    int status = command_admin_parse(argc, argv, COMMAND_ADMIN_STOP_USAGE, &options);
    if (status != EX_OK)
        return status;
    struct question question CLEANUP(end_question) = {.fd = -1};
    status = ask(&options, USERD__IPC__ADMIN_REQUEST__KIND__STOP, ANSWER_TIMEOUT_MS, &question);
    if (status != EX_OK)
        return status;
    int error =
        admin_client_await_end(question.client, question.answer->timeout_ms + ANSWER_TIMEOUT_MS);
    if (error == 0)
        return EX_OK;
    (void)fprintf(stderr, "userd: the service has not ended: %s\n", strerror(-error));
    return EXIT_NOT_DONE;
}
