/* A load generator for the service's unary calls, on nghttp2: one thread, so many connections with
 * so many calls under way on each. Counts every call by its gRPC status, every call that got none,
 * and, with --verify, every answer that is not the right one.
 *
 *   load_generator --address 127.0.0.1:PORT[,...]
 *       [--method GetUser | --mix GetUser=90,UserUpdate=10]   or a method's path
 *       [--rate CALLS_PER_SECOND]         open loop; without it each answer starts the next call
 *       [--ids COUNT] [--keys uniform|zipf] [--zipf EXPONENT] [--ids-per-call N]
 *       [--connections N] [--streams N] [--calls N] [--seconds S] [--warmup S] [--seed N]
 *       [--timeout 20m] [--cancel-mill N] [--verify] [--reconnect] [--json]
 *
 * A run ends with its time, with SIGTERM, or with the answer to the last of --calls. DeleteUser
 * takes each id once, from the last one down.
 *
 * In the open loop latency counts from the moment when the clock said that the call was due: one
 * that had to wait for a free stream has waited. What never got a stream until the end is
 * `not_started`: where that is not 0, the latencies are those of the others.
 *
 * Connections go to the addresses in turn. One that ends is made anew; with --reconnect also where
 * the server refuses it, again and again. Exit status: 0 when every call was answered, and rightly;
 * 2 when not.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <time.h>

#include "common/monotonic_clock.h"

#include "tests/bench/load_connection.h"
#include "tests/bench/load_options.h"

#define MAX_EVENTS 64
#define DRAIN_S    10.0  /* calls under way at the end have so long to be answered */
#define TURN_US    10000 /* the longest that the loop sleeps */
#define BURST      1024  /* calls that are begun in one turn, at most: answers must be read too */

struct load_loop {
    struct load_plan *plan;
    struct load_connection **connections; /* owned */
    int epoll_fd;
    int signal_fd; /* SIGTERM; its event has no connection */
    bool is_told_to_end;
    size_t next;       /* connection that the next call by the clock goes to */
    uint64_t first_us; /* when the first of `due` was due */
    uint64_t due;      /* calls by the clock that were begun so far */
};

static void die(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

static uint64_t due_us(const struct load_loop *loop)
{
    return loop->first_us + (uint64_t)((double)loop->due * 1e6 / loop->plan->rate);
}

static bool is_ending(const struct load_plan *plan)
{
    return plan->is_stopping || (plan->calls > 0 && plan->begun == plan->calls);
}

/* On the next connection with a free stream. */
static bool start_one(struct load_loop *loop, uint64_t at_us)
{
    size_t count = loop->plan->connections;
    for (size_t i = 0; i < count; i++) {
        struct load_connection *connection = loop->connections[loop->next];
        loop->next = (loop->next + 1) % count;
        if (load_connection_start(connection, at_us))
            return true;
    }
    return false;
}

/* Begins what is due; how long nothing more will be. */
static uint64_t start_due(struct load_loop *loop)
{
    if (loop->plan->rate == 0 || is_ending(loop->plan))
        return TURN_US;
    uint64_t now_us = monotonic_clock_us();
    bool has_room = true;
    for (unsigned int i = 0; i < BURST && due_us(loop) <= now_us && has_room; i++) {
        has_room = start_one(loop, due_us(loop));
        loop->due += has_room;
    }
    for (size_t i = 0; i < loop->plan->connections; i++)
        load_connection_flush(loop->connections[i]);
    if (!has_room)
        return TURN_US; /* only an answer makes room, and it wakes us */
    uint64_t next_us = due_us(loop);
    now_us = monotonic_clock_us();
    if (next_us <= now_us)
        return 0;
    return next_us - now_us < TURN_US ? next_us - now_us : TURN_US;
}

static size_t under_way(const struct load_loop *loop)
{
    size_t sum = 0;
    for (size_t i = 0; i < loop->plan->connections; i++)
        sum += load_connection_under_way(loop->connections[i]);
    return sum;
}

/* Turns until `end_us`, or, when no call is begun any more, until nothing is under way. */
static void run_until(struct load_loop *loop, uint64_t end_us)
{
    struct epoll_event events[MAX_EVENTS];
    uint64_t now_us = monotonic_clock_us();
    while (now_us < end_us && !(is_ending(loop->plan) && under_way(loop) == 0) &&
           !(loop->is_told_to_end && !loop->plan->is_stopping)) {
        uint64_t sleep_us = start_due(loop);
        const struct timespec timeout = {.tv_nsec = (long)sleep_us * 1000};
        int ready = epoll_pwait2(loop->epoll_fd, events, MAX_EVENTS, &timeout, NULL);
        for (int i = 0; i < ready; i++)
            if (events[i].data.ptr == NULL)
                loop->is_told_to_end = true;
            else
                load_connection_handle(events[i].data.ptr, events[i].events);
        now_us = monotonic_clock_us();
        for (size_t i = 0; i < loop->plan->connections && loop->plan->reconnects; i++)
            load_connection_retry(loop->connections[i], now_us);
    }
}

static void take_signals(struct load_loop *loop)
{
    sigset_t set;
    (void)signal(SIGPIPE, SIG_IGN);
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    loop->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    if (loop->signal_fd < 0 ||
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->signal_fd, &event) < 0)
        die("signals");
}

static uint64_t microseconds(double seconds)
{
    return (uint64_t)(seconds * (double)MONOTONIC_CLOCK_US_PER_S);
}

static void run(struct load_loop *loop)
{
    struct load_plan *plan = loop->plan;
    loop->first_us = monotonic_clock_us();
    run_until(loop, loop->first_us + microseconds(plan->warmup_s));
    plan->is_measuring = true;
    uint64_t start_us = monotonic_clock_us();
    run_until(loop, start_us + microseconds(plan->seconds));
    uint64_t end_us = monotonic_clock_us();
    load_report_end_time(plan->report, (double)(end_us - start_us) / 1e6);
    if (plan->rate > 0 && plan->calls == 0) {
        uint64_t wanted = (uint64_t)((double)(end_us - loop->first_us) * plan->rate / 1e6);
        plan->report->not_started = wanted > loop->due ? wanted - loop->due : 0;
    }
    plan->is_stopping = true;
    run_until(loop, monotonic_clock_us() + microseconds(DRAIN_S));
    plan->report->all.unanswered += under_way(loop);
    plan->is_measuring = false;
}

static void prepare(struct load_plan *plan)
{
    load_keys_init(&plan->keys);
    plan->name_salt = (uint32_t)monotonic_clock_us() ^ (uint32_t)plan->seed;
    if (!plan->verifies)
        return;
    plan->asked_by_id = calloc((size_t)plan->keys.count + 1, sizeof(uint32_t));
    if (plan->asked_by_id == NULL)
        die("calloc");
}

int main(int argc, char **argv)
{
    static struct load_report report;
    struct load_plan plan = {.report = &report};
    load_options_parse(&plan, argc, argv);
    prepare(&plan);
    (void)prctl(PR_SET_TIMERSLACK, 1UL); /* nanosecond: calls by the clock are to be in time */
    struct load_loop loop = {
        .plan = &plan,
        .epoll_fd = epoll_create1(EPOLL_CLOEXEC),
        .connections = calloc(plan.connections, sizeof(struct load_connection *)),
    };
    if (loop.epoll_fd < 0 || loop.connections == NULL)
        die("start");
    take_signals(&loop);
    for (size_t i = 0; i < plan.connections; i++)
        loop.connections[i] = load_connection_new(&plan, &plan.addresses[i % plan.address_count],
            plan.seed * UINT16_MAX + i, loop.epoll_fd);
    run(&loop);
    for (size_t i = 0; i < plan.connections; i++) /* first: each says what it has lost */
        (void)load_connection_free(loop.connections[i]);
    if (plan.prints_json)
        load_report_print_json(&report);
    else
        load_report_print(&report);
    free((void *)loop.connections);
    free(plan.asked_by_id);
    return report.all.unanswered == 0 && report.all.wrong == 0 ? EXIT_SUCCESS : 2;
}
