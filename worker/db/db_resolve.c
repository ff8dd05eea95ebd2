#include "worker/db/db_resolve.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "common/crash_report.h"
#include "common/file_descriptor.h"
#include "worker/db/db_target.h"

#define ADDRESSES_MAX    32
#define LIST_SEPARATOR   ','
#define THREAD_STACK     ((size_t)1024 * 1024)
#define ADDRESS_TEXT_MAX 64 /* IPv6 with a scope */

/* What the thread works on: outlives a db_resolve that gave up waiting. The last of the two to
 * leave frees it. */
struct lookup {
    atomic_uint references;
    int done_fd;
    char *hosts;
    char *ports;
    size_t found;
    struct db_addresses addresses;
};

struct db_resolve {
    struct lookup *lookup; /* shared with the thread */
    sd_event_source *source;
    void (*on_done)(const struct db_addresses *addresses, void *userdata);
    void *userdata;
};

static void lookup_release(struct lookup *lookup)
{
    if (atomic_fetch_sub(&lookup->references, 1) > 1)
        return;
    fd_close(&lookup->done_fd);
    free(lookup->hosts);
    free(lookup->ports);
    free(lookup->addresses.hosts);
    free(lookup->addresses.host_addresses);
    free(lookup->addresses.ports);
    free(lookup->addresses.unknown);
    free(lookup);
}

static bool is_name(const char *host)
{
    if (host[0] == '\0' || host[0] == '/' || host[0] == '@')
        return false;
    unsigned char address[sizeof(struct in6_addr)];
    return inet_pton(AF_INET, host, address) != 1 && inet_pton(AF_INET6, host, address) != 1;
}

bool db_resolve_is_needed(const char *hosts)
{
    char *copy = strdup(hosts);
    if (!copy)
        return false;
    bool is_needed = false;
    char *rest = copy;
    for (const char *host = strsep(&rest, ","); host; host = strsep(&rest, ","))
        is_needed |= is_name(host);
    free(copy);
    return is_needed;
}

/* Appends one element to a comma separated list, which is NULL at first. */
static bool append_element(char **list, const char *element)
{
    char *longer = NULL;
    int length = *list ? asprintf(&longer, "%s%c%s", *list, LIST_SEPARATOR, element)
                       : asprintf(&longer, "%s", element);
    if (length < 0)
        return false;
    free(*list);
    *list = longer;
    return true;
}

static bool append_address(
    struct lookup *lookup, const char *host, const char *address, const char *port)
{
    if (lookup->found >= ADDRESSES_MAX)
        return true;
    struct db_addresses *addresses = &lookup->addresses;
    if (!append_element(&addresses->hosts, host) || !append_element(&addresses->ports, port) ||
        !append_element(&addresses->host_addresses, address)) {
        addresses->error = "out of memory";
        return false;
    }
    lookup->found++;
    return true;
}

static void look_up_host(struct lookup *lookup, const char *host, const char *port)
{
    if (!is_name(host)) {
        (void)append_address(lookup, host, "", port);
        return;
    }
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *results = NULL;
    int error = getaddrinfo(host, NULL, &hints, &results);
    if (error) {
        struct db_addresses *addresses = &lookup->addresses;
        addresses->error = gai_strerror(error);
        if (!addresses->unknown &&
            asprintf(&addresses->unknown, "%s: %s", host, addresses->error) < 0)
            addresses->unknown = NULL;
        return;
    }
    for (const struct addrinfo *result = results; result; result = result->ai_next) {
        char address[ADDRESS_TEXT_MAX];
        error = getnameinfo(
            result->ai_addr, result->ai_addrlen, address, sizeof(address), NULL, 0, NI_NUMERICHOST);
        if (!error && !append_address(lookup, host, address, port))
            break;
    }
    freeaddrinfo(results);
}

/* The thread. */
static void *look_up(void *argument)
{
    struct lookup *lookup = argument;
    char *hosts = lookup->hosts;
    char *ports = lookup->ports;
    const char *port = DB_TARGET_DEFAULT_PORT;
    for (const char *host = strsep(&hosts, ","); host; host = strsep(&hosts, ",")) {
        /* One port serves all hosts; an empty one is the default. */
        const char *next_port = ports ? strsep(&ports, ",") : NULL;
        if (next_port)
            port = next_port[0] ? next_port : DB_TARGET_DEFAULT_PORT;
        look_up_host(lookup, host, port);
    }
    if (lookup->found > 0)
        lookup->addresses.error = NULL; /* one of several hosts is enough */
    else if (!lookup->addresses.error)
        lookup->addresses.error = "no address";
    (void)eventfd_write(lookup->done_fd, 1);
    lookup_release(lookup);
    return NULL;
}

static int on_looked_up(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct db_resolve *resolve = userdata;
    (void)fd;
    (void)revents;
    (void)sd_event_source_set_enabled(source, SD_EVENT_OFF);
    resolve->on_done(&resolve->lookup->addresses, resolve->userdata);
    return 0;
}

static int start_thread(struct lookup *lookup)
{
    pthread_attr_t attributes;
    sigset_t all_signals;
    pthread_t thread;
    int error = pthread_attr_init(&attributes);
    if (error)
        return -error;
    crash_report_fill_mask(&all_signals);
    (void)pthread_attr_setsigmask_np(&attributes, &all_signals);
    (void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    (void)pthread_attr_setstacksize(&attributes, THREAD_STACK);
    atomic_fetch_add(&lookup->references, 1);
    error = pthread_create(&thread, &attributes, look_up, lookup);
    if (error)
        atomic_fetch_sub(&lookup->references, 1);
    (void)pthread_attr_destroy(&attributes);
    return -error;
}

int db_resolve_new(sd_event *event, const char *hosts, const char *ports,
    void (*on_done)(const struct db_addresses *addresses, void *userdata), void *userdata,
    struct db_resolve **ret_resolve)
{
    struct db_resolve *resolve = calloc(1, sizeof(*resolve));
    struct lookup *lookup = calloc(1, sizeof(*lookup));
    if (!resolve || !lookup) {
        free(resolve);
        free(lookup);
        return -ENOMEM;
    }
    *resolve = (struct db_resolve){.lookup = lookup, .on_done = on_done, .userdata = userdata};
    atomic_init(&lookup->references, 1);
    lookup->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    lookup->hosts = strdup(hosts);
    lookup->ports = strdup(ports ? ports : "");
    int error = lookup->done_fd < 0 || !lookup->hosts || !lookup->ports ? -ENOMEM : 0;
    if (!error)
        error = sd_event_add_io(
            event, &resolve->source, lookup->done_fd, EPOLLIN, on_looked_up, resolve);
    if (error >= 0)
        error = start_thread(lookup);
    if (error < 0) {
        db_resolve_free(resolve);
        return error;
    }
    *ret_resolve = resolve;
    return 0;
}

struct db_resolve *db_resolve_free(struct db_resolve *resolve)
{
    if (!resolve)
        return NULL;
    sd_event_source_disable_unref(resolve->source);
    lookup_release(resolve->lookup);
    free(resolve);
    return NULL;
}
