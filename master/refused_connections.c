#include "master/refused_connections.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "common/file_descriptor.h"
#include "common/log.h"
#include "common/monotonic_clock.h"

#define TIMER_ACCURACY_US    50000
#define PART_OF_DESCRIPTORS  8    /* of this process's limit, for those that are held */
#define RECEIVE_BUFFER_BYTES 2048 /* the kernel's least: what comes is not read */

struct refused_connection {
    int fd; /* owned */
    uint64_t until_us;
};

struct refused_connections {
    sd_event *event;        /* owned: a reference */
    sd_event_source *timer; /* owned: for the oldest */
    size_t first;           /* the oldest */
    size_t count;
    struct refused_connection ring[REFUSED_CONNECTIONS_MAX];
};

static void end_oldest(struct refused_connections *connections)
{
    fd_close(&connections->ring[connections->first].fd);
    connections->first = (connections->first + 1) % REFUSED_CONNECTIONS_MAX;
    connections->count--;
}

static int arm_timer(struct refused_connections *connections)
{
    if (connections->count == 0)
        return sd_event_source_set_enabled(connections->timer, SD_EVENT_OFF);
    int result = sd_event_source_set_time(
        connections->timer, connections->ring[connections->first].until_us);
    if (result >= 0)
        result = sd_event_source_set_enabled(connections->timer, SD_EVENT_ONESHOT);
    return result;
}

static int on_timer(sd_event_source *source, uint64_t time_us, void *userdata)
{
    (void)source;
    (void)time_us;
    struct refused_connections *connections = userdata;
    uint64_t now_us = monotonic_clock_us();
    while (connections->count > 0 && connections->ring[connections->first].until_us <= now_us)
        end_oldest(connections);
    if (arm_timer(connections) < 0)
        refused_connections_end_all(connections);
    return 0;
}

/* An eighth of the descriptors at most. */
static size_t room(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return REFUSED_CONNECTIONS_MAX;
    size_t part = (size_t)limit.rlim_cur / PART_OF_DESCRIPTORS;
    return part < REFUSED_CONNECTIONS_MAX ? part : REFUSED_CONNECTIONS_MAX;
}

/* It ends by RST, which leaves nothing of it with the kernel. */
static void make_small(int fd)
{
    const int bytes = RECEIVE_BUFFER_BYTES;
    const struct linger at_once = {.l_onoff = 1};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
}

void refused_connections_hold(struct refused_connections *connections, int *fd)
{
    size_t most = room();
    while (connections->count > 0 && connections->count >= most)
        end_oldest(connections);
    make_small(*fd);
    bool is_first = connections->count == 0;
    size_t place = (connections->first + connections->count) % REFUSED_CONNECTIONS_MAX;
    connections->ring[place] = (struct refused_connection){.fd = fd_take(fd),
        .until_us = monotonic_clock_turn_us(connections->event) + REFUSED_CONNECTIONS_HOLD_US};
    connections->count++;
    if (is_first && arm_timer(connections) < 0)
        end_oldest(connections);
}

void refused_connections_end_all(struct refused_connections *connections)
{
    while (connections->count > 0)
        end_oldest(connections);
}

size_t refused_connections_count(const struct refused_connections *connections)
{
    return connections->count;
}

int refused_connections_new(sd_event *event, struct refused_connections **ret_connections)
{
    struct refused_connections *connections = calloc(1, sizeof(*connections));
    if (connections == NULL)
        return -ENOMEM;
    connections->event = sd_event_ref(event);
    int result = sd_event_add_time(
        event, &connections->timer, CLOCK_MONOTONIC, 0, TIMER_ACCURACY_US, on_timer, connections);
    if (result >= 0)
        result = sd_event_source_set_enabled(connections->timer, SD_EVENT_OFF);
    if (result < 0) {
        (void)refused_connections_free(connections);
        return result;
    }
    *ret_connections = connections;
    return 0;
}

struct refused_connections *refused_connections_free(struct refused_connections *connections)
{
    if (connections == NULL)
        return NULL;
    refused_connections_end_all(connections);
    (void)sd_event_source_disable_unref(connections->timer);
    (void)sd_event_unref(connections->event);
    free(connections);
    return NULL;
}
