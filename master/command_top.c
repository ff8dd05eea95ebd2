#include "master/command_top.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sysexits.h>
#include <unistd.h>

#include "common/file_descriptor.h"
#include "common/monotonic_clock.h"
#include "master/command_admin.h"
#include "master/command_options.h"
#include "master/service_view.h"
#include "master/top_screen.h"
#include "master/top_terminal.h"

#define ANSWER_TIMEOUT_MS 1000
#define KEYS_AT_ONCE      64
#define SIGNAL_STATUS     128 /* ended by signal N: 128 + N, as a shell says it */

static const unsigned int intervals_ms[] = {250, 500, 1000, 2000, 5000, 10000, 30000};

struct top {
    const char *run_dir;
    struct top_terminal terminal;
    struct top_view view;
    size_t interval; /* of intervals_ms */
    int signal_fd;   /* owned */
    bool is_over;
    int status;
    struct service_view service;   /* while `has_service` */
    struct status_report *reports; /* owned: the last, the one before, and what is shown */
    bool has_service;
    bool has_report; /* the last one is of this service */
    int error;       /* why there is no service */
};

enum report_place { REPORT_LAST, REPORT_BEFORE, REPORT_SHOWN, REPORT_PLACES };

/* --- what is shown --- */

/* The descriptor of a scoreboard outlives its master: whether that is still there is asked each
 * time. */
static void look(struct top *top)
{
    struct service_view fresh = {0};
    top->error = service_view_open(top->run_dir, ANSWER_TIMEOUT_MS, &fresh);
    bool is_same = top->error == 0 && top->has_service &&
                   fresh.master->master_pid == top->service.master->master_pid &&
                   fresh.master->started_at_us == top->service.master->started_at_us;
    service_view_close(&top->service);
    top->service = fresh;
    top->has_service = top->error == 0;
    if (!top->has_service) {
        top->has_report = false;
        return;
    }
    top->reports[REPORT_BEFORE] = top->reports[REPORT_LAST];
    status_report_read(top->service.scoreboard, monotonic_clock_us(), &top->reports[REPORT_LAST]);
    /* the first look: rates since now are zero */
    if (!top->has_report || !is_same)
        top->reports[REPORT_BEFORE] = top->reports[REPORT_LAST];
    top->has_report = true;
    struct status_report *shown = &top->reports[REPORT_SHOWN];
    *shown = top->reports[REPORT_LAST];
    status_report_set_rates(shown, &top->reports[REPORT_BEFORE]);
    status_methods_subtract(&shown->methods, &top->reports[REPORT_BEFORE].methods);
}

static const char *reason_of(int error)
{
    if (error == -ENOENT || error == -ECONNREFUSED || error == -ECONNRESET)
        return "is not running";
    if (error == -EPROTONOSUPPORT)
        return "is of another release";
    return strerror(-error);
}

static int show(struct top *top)
{
    struct top_size size = top_terminal_size();
    char *text = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);
    if (stream == NULL)
        return -errno;
    if (top->has_service)
        top_screen_print(
            stream, &size, &top->view, top->service.master, &top->reports[REPORT_SHOWN]);
    else
        top_screen_print_absence(stream, &size, &top->view, reason_of(top->error));
    int result = fclose(stream) == 0 ? top_terminal_show(text, length) : -ENOMEM;
    free(text);
    return result;
}

/* --- what is typed --- */

static void change_interval(struct top *top, bool is_longer)
{
    if (is_longer && top->interval + 1 < ARRAY_LENGTH(intervals_ms))
        top->interval++;
    if (!is_longer && top->interval > 0)
        top->interval--;
    top->view.interval_ms = intervals_ms[top->interval];
}

static void on_key(struct top *top, char key)
{
    static const struct {
        char key;
        enum top_order order;
    } orders[] = {{'c', TOP_BY_RATE}, {'e', TOP_BY_ERRORS}, {'m', TOP_BY_MEDIAN}, {'p', TOP_BY_P99},
        {'n', TOP_BY_NAME}};
    for (size_t i = 0; i < ARRAY_LENGTH(orders); i++)
        if (orders[i].key == key)
            top->view.order = orders[i].order;
    if (key == 'q' || key == 'Q')
        top->is_over = true;
    else if (key == ' ')
        top->view.is_paused = !top->view.is_paused;
    else if (key == 'r')
        top->view.is_reversed = !top->view.is_reversed;
    else if (key == '+' || key == '-')
        change_interval(top, key == '+');
}

static void read_keys(struct top *top)
{
    char keys[KEYS_AT_ONCE];
    ssize_t length = read(STDIN_FILENO, keys, sizeof(keys));
    if (length == 0 || (length < 0 && errno != EINTR && errno != EAGAIN))
        top->is_over = true; /* the terminal has gone */
    for (ssize_t i = 0; i < length; i++)
        on_key(top, keys[i]);
}

/* Stopped as any program would be, but with the terminal as it was; goes on where it was. */
static int stop_for_a_while(struct top *top)
{
    top_terminal_leave(&top->terminal);
    (void)raise(SIGSTOP);
    return top_terminal_enter(&top->terminal);
}

static int read_signal(struct top *top)
{
    struct signalfd_siginfo info;
    if (read(top->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return 0;
    if (info.ssi_signo == SIGTSTP)
        return stop_for_a_while(top);
    if (info.ssi_signo == SIGWINCH || info.ssi_signo == SIGCONT)
        return 0; /* shown anew after each event */
    top->is_over = true;
    top->status = SIGNAL_STATUS + (int)info.ssi_signo;
    return 0;
}

/* --- the loop --- */

/* Until something is typed, a signal comes, or it is time to look again. */
static int wait_for_event(struct top *top, uint64_t next_us)
{
    uint64_t now = monotonic_clock_us();
    int left_ms = now >= next_us ? 0 : (int)((next_us - now) / MONOTONIC_CLOCK_US_PER_MS) + 1;
    struct pollfd entries[] = {
        {.fd = STDIN_FILENO, .events = POLLIN}, {.fd = top->signal_fd, .events = POLLIN}};
    if (poll(entries, ARRAY_LENGTH(entries), left_ms) < 0)
        return errno == EINTR ? 0 : -errno;
    if (entries[0].revents != 0)
        read_keys(top);
    return entries[1].revents != 0 ? read_signal(top) : 0;
}

static int loop(struct top *top)
{
    uint64_t last_us = 0;
    int result = 0;
    while (result == 0 && !top->is_over) {
        uint64_t next_us = last_us + (uint64_t)top->view.interval_ms * MONOTONIC_CLOCK_US_PER_MS;
        if (monotonic_clock_us() >= next_us) {
            if (!top->view.is_paused || last_us == 0)
                look(top);
            last_us = monotonic_clock_us();
            next_us = last_us + (uint64_t)top->view.interval_ms * MONOTONIC_CLOCK_US_PER_MS;
        }
        result = show(top);
        if (result == 0)
            result = wait_for_event(top, next_us);
    }
    return result;
}

static int open_signals(int *ret_fd)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT, SIGWINCH};
    sigset_t signals;
    (void)sigemptyset(&signals);
    for (size_t i = 0; i < ARRAY_LENGTH(numbers); i++)
        (void)sigaddset(&signals, numbers[i]);
    if (sigprocmask(SIG_BLOCK, &signals, NULL) != 0)
        return -errno;
    (void)signal(SIGPIPE, SIG_IGN);
    *ret_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    return *ret_fd < 0 ? -errno : 0;
}

static int run(const char *run_dir)
{
    struct top top = {
        .run_dir = run_dir,
        .interval = 2,
        .view = {.interval_ms = intervals_ms[2], .has_colour = getenv("NO_COLOR") == NULL},
        .signal_fd = -1,
        .reports = calloc(REPORT_PLACES, sizeof(struct status_report)),
    };
    int result = top.reports == NULL ? -ENOMEM : open_signals(&top.signal_fd);
    if (result == 0)
        result = top_terminal_enter(&top.terminal);
    if (result == 0)
        result = loop(&top);
    top_terminal_leave(&top.terminal);
    service_view_close(&top.service);
    fd_close(&top.signal_fd);
    free(top.reports);
    if (result < 0) {
        (void)fprintf(stderr, "userd: the terminal cannot be used: %s\n", strerror(-result));
        return EX_IOERR;
    }
    return top.status;
}

int command_top(int argc, char **argv)
{
    struct command_options options;
    int status = command_admin_parse(argc, argv, COMMAND_TOP_USAGE, &options);
    if (status != EX_OK)
        return status;
    if (!top_terminal_is_there())
        return command_admin_show_status(&options);
    char *run_dir = NULL;
    status = command_admin_find_run_dir(&options, &run_dir);
    if (status != EX_OK)
        return status;
    status = run(run_dir);
    free(run_dir);
    return status;
}
