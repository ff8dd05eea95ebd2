/* A closed-loop load generator for unary gRPC calls, on nghttp2: so many connections with so many
 * calls under way on each, one thread. Ids are drawn at random. Counts every call by its gRPC
 * status, and every call that got none.
 *
 *   load_generator --address 127.0.0.1:PORT[,...] [--method PATH] [--connections N] [--streams N]
 *                  [--seconds S] [--warmup S] [--ids COUNT] [--ids-per-call N] [--timeout 20m]
 *                  [--cancel-mill N] [--verify] [--seed N]
 *
 * Connections go to the addresses in turn. Exit status: 0 when every call was answered.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#include "tests/bench/load_connection.h"

#define MAX_ADDRESSES 16
#define MAX_EVENTS    64
#define DRAIN_S       10.0 /* calls under way at the end have so long to be answered */

struct load_options {
    struct sockaddr_in addresses[MAX_ADDRESSES];
    size_t address_count;
    size_t connections;
    double seconds;
    double warmup_s;
    uint64_t seed;
    struct load_plan plan;
};

static double now_s(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void die(const char *what, const char *why)
{
    fprintf(stderr, "load: %s: %s\n", what, why);
    exit(EXIT_FAILURE);
}

static uint64_t parse_number(const char *text)
{
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0')
        die(text, "expected a number");
    return value;
}

static void parse_addresses(struct load_options *options, char *text)
{
    char *rest = NULL;
    for (char *one = strtok_r(text, ",", &rest); one != NULL; one = strtok_r(NULL, ",", &rest)) {
        char *colon = strrchr(one, ':');
        if (colon == NULL || options->address_count == MAX_ADDRESSES)
            die(one, "expected HOST:PORT");
        *colon = '\0';
        struct sockaddr_in *address = &options->addresses[options->address_count++];
        address->sin_family = AF_INET;
        address->sin_port = htons((uint16_t)parse_number(colon + 1));
        if (inet_pton(AF_INET, one, &address->sin_addr) != 1)
            die(one, "expected an IPv4 address");
    }
}

static void parse_option(struct load_options *options, int option, char *value)
{
    switch (option) {
    case 'a':
        parse_addresses(options, value);
        break;
    case 'm':
        options->plan.path = value;
        break;
    case 'c':
        options->connections = parse_number(value);
        break;
    case 's':
        options->plan.streams = parse_number(value);
        break;
    case 'd':
        options->seconds = strtod(value, NULL);
        break;
    case 'w':
        options->warmup_s = strtod(value, NULL);
        break;
    case 'i':
        options->plan.id_count = (uint32_t)parse_number(value);
        break;
    case 'n':
        options->plan.ids_per_call = parse_number(value);
        break;
    case 't':
        options->plan.timeout = value;
        break;
    case 'x':
        options->plan.cancel_mill = (unsigned int)parse_number(value);
        break;
    case 'v':
        options->plan.verifies = true;
        break;
    case 'r':
        options->seed = parse_number(value);
        break;
    default:
        exit(EXIT_FAILURE); /* getopt has said why */
    }
}

static void parse_options(struct load_options *options, int argc, char **argv)
{
    static const struct option names[] = {
        {"address", required_argument, NULL, 'a'},
        {"method", required_argument, NULL, 'm'},
        {"connections", required_argument, NULL, 'c'},
        {"streams", required_argument, NULL, 's'},
        {"seconds", required_argument, NULL, 'd'},
        {"warmup", required_argument, NULL, 'w'},
        {"ids", required_argument, NULL, 'i'},
        {"ids-per-call", required_argument, NULL, 'n'},
        {"timeout", required_argument, NULL, 't'},
        {"cancel-mill", required_argument, NULL, 'x'},
        {"verify", no_argument, NULL, 'v'},
        {"seed", required_argument, NULL, 'r'},
        {NULL, 0, NULL, 0},
    };
    for (;;) {
        int option = getopt_long(argc, argv, "", names, NULL);
        if (option < 0)
            break;
        parse_option(options, option, optarg);
    }
    if (options->address_count == 0 || options->connections == 0 || options->plan.streams == 0 ||
        options->plan.id_count == 0 || options->plan.ids_per_call == 0 ||
        options->plan.ids_per_call > 1000)
        die("usage", "see the head of tests/bench/load_generator.c");
}

/* Turns the loop until `end_s`, or, when stopping, until nothing is under way. */
static void run_until(int epoll_fd, double end_s, struct load_connection *const *connections,
    size_t count, bool is_stopping)
{
    struct epoll_event events[MAX_EVENTS];
    while (now_s() < end_s) {
        int ready = epoll_wait(epoll_fd, events, MAX_EVENTS, 10);
        for (int i = 0; i < ready; i++)
            load_connection_handle(events[i].data.ptr, events[i].events);
        size_t under_way = 0;
        for (size_t i = 0; i < count && is_stopping; i++)
            under_way += load_connection_under_way(connections[i]);
        if (is_stopping && under_way == 0)
            return;
    }
}

int main(int argc, char **argv)
{
    struct load_report report = {0};
    struct load_options options = {
        .connections = 8,
        .seconds = 5,
        .warmup_s = 1,
        .seed = 1,
        .plan = {.path = "/user.User/GetUser",
            .id_count = 100000,
            .ids_per_call = 1,
            .streams = 32,
            .report = &report},
    };
    parse_options(&options, argc, argv);
    (void)signal(SIGPIPE, SIG_IGN);
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct load_connection **connections =
        calloc(options.connections, sizeof(struct load_connection *));
    if (epoll_fd < 0 || connections == NULL)
        die("start", strerror(errno));
    for (size_t i = 0; i < options.connections; i++)
        connections[i] = load_connection_new(&options.plan,
            &options.addresses[i % options.address_count], options.seed * 1000 + i, epoll_fd);
    run_until(epoll_fd, now_s() + options.warmup_s, connections, options.connections, false);
    options.plan.is_measuring = true;
    double start_s = now_s();
    run_until(epoll_fd, start_s + options.seconds, connections, options.connections, false);
    double duration_s = now_s() - start_s;
    options.plan.is_stopping = true;
    run_until(epoll_fd, now_s() + DRAIN_S, connections, options.connections, true);
    load_report_print(&report, duration_s);
    uint64_t unanswered = report.unanswered;
    for (size_t i = 0; i < options.connections; i++) {
        unanswered += load_connection_under_way(connections[i]);
        (void)load_connection_free(connections[i]);
    }
    free((void *)connections);
    return unanswered == 0 && report.wrong == 0 ? EXIT_SUCCESS : 2;
}
