/* Reads a running userd's scoreboard as often as it is asked to, at the cost of a memory read: what
 * `userd status` says takes a process and a second.
 *
 *   event_meter MASTER_PID
 *
 * For each line on standard input one line of key=value: the time, what all workers together have
 * published and applied, and the buckets of the publish latency that are not empty, each as
 * LEAST_US:NEXT_US:COUNT. Ends with its input.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/attributes.h"
#include "common/file_descriptor.h"
#include "common/monotonic_clock.h"
#include "common/scoreboard.h"

#define BAD_USAGE 64
#define PATH_SIZE 300

/* One line of the meter. */
struct totals {
    uint64_t published;
    uint64_t parked;
    uint64_t backlog;
    uint64_t applied;
    uint64_t no_op;
    uint64_t dead_lettered;
    uint64_t latency_sum_us;
    uint64_t latency[LATENCY_HISTOGRAM_BUCKETS];
};

static void close_directory(DIR **directory)
{
    if (*directory != NULL)
        (void)closedir(*directory);
}

/* The master's own descriptor of it, opened anew for reading. */
static const struct scoreboard *find_scoreboard(const char *pid)
{
    char path[PATH_SIZE];
    (void)snprintf(path, sizeof(path), "/proc/%s/fd", pid);
    DIR *directory CLEANUP(close_directory) = opendir(path);
    if (directory == NULL)
        return NULL;
    const struct dirent *entry = NULL;
    while ((entry = readdir(directory)) != NULL) {
        char target[PATH_SIZE] = "";
        (void)snprintf(path, sizeof(path), "/proc/%s/fd/%s", pid, entry->d_name);
        if (readlink(path, target, sizeof(target) - 1) < 0 ||
            strstr(target, "memfd:userd-scoreboard") == NULL)
            continue;
        int fd CLEANUP(fd_close) = open(path, O_RDONLY | O_CLOEXEC);
        const struct scoreboard *scoreboard = NULL;
        uint32_t version = 0;
        if (fd >= 0 && scoreboard_open_readonly(fd, &scoreboard, &version) == 0)
            return scoreboard;
    }
    return NULL;
}

static uint64_t load(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static struct totals add_up(const struct scoreboard *scoreboard)
{
    struct totals totals = {0};
    for (size_t i = 1; i < SCOREBOARD_SLOTS; i++) {
        const struct scoreboard_slot *slot = &scoreboard->slots[i];
        totals.published += load(&slot->outbox_published);
        totals.parked += load(&slot->outbox_parked);
        totals.backlog += load(&slot->outbox_backlog);
        totals.applied += load(&slot->events_applied);
        totals.no_op += load(&slot->events_no_op);
        totals.dead_lettered += load(&slot->events_dead_lettered);
        totals.latency_sum_us += load(&slot->publish_latency_sum_us);
        for (size_t j = 0; j < LATENCY_HISTOGRAM_BUCKETS; j++)
            totals.latency[j] += load(&slot->publish_latency[j]);
    }
    return totals;
}

static void print_totals(const struct totals *totals)
{
    (void)printf("at_us=%" PRIu64 " published=%" PRIu64 " parked=%" PRIu64 " backlog=%" PRIu64
                 " applied=%" PRIu64 " no_op=%" PRIu64 " dead_lettered=%" PRIu64
                 " latency_sum_us=%" PRIu64 " latency=",
        monotonic_clock_us(), totals->published, totals->parked, totals->backlog, totals->applied,
        totals->no_op, totals->dead_lettered, totals->latency_sum_us);
    for (size_t i = 0; i < LATENCY_HISTOGRAM_BUCKETS; i++) {
        if (totals->latency[i] > 0)
            (void)printf("%" PRIu64 ":%" PRIu64 ":%" PRIu64 ",", latency_histogram_least_us(i),
                latency_histogram_least_us(i + 1), totals->latency[i]);
    }
    (void)printf("\n");
    (void)fflush(stdout);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        (void)fputs("usage: event_meter MASTER_PID\n", stderr);
        return BAD_USAGE;
    }
    const struct scoreboard *scoreboard = find_scoreboard(argv[1]);
    if (scoreboard == NULL) {
        (void)fprintf(
            stderr, "event_meter: process %s has no scoreboard that can be read\n", argv[1]);
        return EXIT_FAILURE;
    }
    char line[16];
    while (fgets(line, sizeof(line), stdin) != NULL) {
        struct totals totals = add_up(scoreboard);
        print_totals(&totals);
    }
    scoreboard_close_readonly(scoreboard);
    return EXIT_SUCCESS;
}
