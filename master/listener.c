#include "master/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "common/file_descriptor.h"
#include "common/log.h"
#include "master/socket_holder.h"

/* Connections that wait while no worker is ready; the kernel caps it at net.core.somaxconn. */
#define LISTEN_BACKLOG   4096
#define HOLDER_TEXT_SIZE 64

int listener_inheritance_take(struct listener_inheritance *ret_inheritance)
{
    char **names = NULL;
    int count = sd_listen_fds_with_names(true, &names);
    if (count < 0)
        return count;
    *ret_inheritance = (struct listener_inheritance){
        .first_fd = SD_LISTEN_FDS_START, .count = count, .names = names};
    return 0;
}

void listener_inheritance_cleanup(struct listener_inheritance *inheritance)
{
    for (int i = 0; i < inheritance->count; i++) {
        if (inheritance->names[i] == NULL)
            continue;
        log_warn("inherited socket closed name=%s reason=\"no listener has this name\"",
            inheritance->names[i]);
        (void)close(inheritance->first_fd + i);
        free(inheritance->names[i]);
    }
    free(inheritance->names);
    *inheritance = (struct listener_inheritance){0};
}

/* The inherited socket of that name, or -1. */
static int claim_inherited(struct listener_inheritance *inheritance, const char *name)
{
    for (int i = 0; i < inheritance->count; i++) {
        if (inheritance->names[i] == NULL || strcmp(inheritance->names[i], name) != 0)
            continue;
        free(inheritance->names[i]);
        inheritance->names[i] = NULL;
        return inheritance->first_fd + i;
    }
    return -1;
}

static int adopt_inherited(int fd)
{
    int is_listening = sd_is_socket(fd, AF_UNSPEC, SOCK_STREAM, 1);
    if (is_listening < 0)
        return is_listening;
    if (is_listening == 0)
        return -ENOTSOCK;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return -errno;
    return 0;
}

static int bind_socket(int family, const struct sockaddr *address, socklen_t length, int *ret_fd)
{
    int fd CLEANUP(fd_close) = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    const int on = 1;
    const int off = 0;
    if (family != AF_UNIX && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
        return -errno;
    /* "[::]" takes IPv4 clients too, whatever net.ipv6.bindv6only says. */
    if (family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) < 0)
        return -errno;
    if (bind(fd, address, length) < 0 || listen(fd, LISTEN_BACKLOG) < 0)
        return -errno;
    *ret_fd = fd_take(&fd);
    return 0;
}

/* A socket file that nobody answers on is left over from a killed process. A living one is not ours
 * to take. */
static int remove_stale_socket(const struct sockaddr_un *address)
{
    struct stat status;
    if (lstat(address->sun_path, &status) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(status.st_mode))
        return -EEXIST;
    int fd CLEANUP(fd_close) = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno == EAGAIN)
        return -EADDRINUSE;
    if (errno != ECONNREFUSED)
        return -errno;
    if (unlink(address->sun_path) < 0 && errno != ENOENT)
        return -errno;
    log_info("stale socket removed path=%s", address->sun_path);
    return 0;
}

static int open_unix(const struct listener_address *address, int *ret_fd)
{
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    memcpy(local.sun_path, address->path, sizeof(local.sun_path));
    int result = remove_stale_socket(&local);
    if (result < 0)
        return result;
    return bind_socket(AF_UNIX, (const struct sockaddr *)&local, sizeof(local), ret_fd);
}

static void free_addresses(struct addrinfo **addresses)
{
    if (*addresses != NULL)
        freeaddrinfo(*addresses);
}

/* This machine does not have the address, or not its family. Any other failure is about the address
 * that was asked for: another one in its place would not be what the operator meant. */
static bool is_absent(int error)
{
    return error == -EADDRNOTAVAIL || error == -EAFNOSUPPORT;
}

/* Tries the addresses of the host in one family, up to the first that this machine has.
 * -EADDRNOTAVAIL: it has none of them, or there is none. */
static int open_family(const struct addrinfo *addresses, int family, int *ret_fd)
{
    int result = -EADDRNOTAVAIL;
    for (const struct addrinfo *entry = addresses; entry != NULL && is_absent(result);
         entry = entry->ai_next)
        if (entry->ai_family == family)
            result = bind_socket(family, entry->ai_addr, entry->ai_addrlen, ret_fd);
    return result;
}

static int open_tcp(const struct listener_address *address, int *ret_fd)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC,
        .ai_socktype = SOCK_STREAM,
        .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    char port[8];
    (void)snprintf(port, sizeof(port), "%u", address->port);
    struct addrinfo *addresses CLEANUP(free_addresses) = NULL;
    int lookup = getaddrinfo(address->host, port, &hints, &addresses);
    if (lookup == EAI_SYSTEM)
        return -errno;
    if (lookup != 0)
        return -EADDRNOTAVAIL;

    /* A name may stand for both families and a listener is one socket: IPv4 is what every client
     * tries. */
    int result = open_family(addresses, AF_INET, ret_fd);
    if (is_absent(result))
        result = open_family(addresses, AF_INET6, ret_fd);
    if (!is_absent(result) || strcmp(address->host, "::") != 0)
        return result;

    /* The machine has no IPv6: "every address" is every IPv4 address then. */
    struct listener_address any = {.host = "0.0.0.0", .port = address->port};
    return open_tcp(&any, ret_fd);
}

static int remember_bound_address(struct listener *listener)
{
    struct sockaddr_storage bound = {0};
    socklen_t length = sizeof(bound);
    if (getsockname(listener->fd, (struct sockaddr *)&bound, &length) < 0)
        return -errno;
    listener->is_unix = bound.ss_family == AF_UNIX;
    listener_address_format((const struct sockaddr *)&bound, length, listener->bound_text);
    return 0;
}

/* " by NAME, pid N", or nothing where it cannot be seen. */
static void describe_holder(const struct listener_address *address, char ret_text[HOLDER_TEXT_SIZE])
{
    struct socket_holder holder;
    ret_text[0] = '\0';
    if (socket_holder_find(address, &holder) == 0)
        (void)snprintf(
            ret_text, HOLDER_TEXT_SIZE, " by %s, pid %d", holder.program, (int)holder.pid);
}

static int open_address(const struct settings_listener *setting, const char *file,
    struct settings_complaints *complaints, int *ret_fd)
{
    const char *place = setting->file != NULL ? setting->file : file;
    struct listener_address address;
    const char *expected = NULL;
    int result = listener_address_parse(setting->address, &address, &expected);
    if (result < 0) {
        settings_complaints_add(complaints, place, setting->line,
            "listener %s: address \"%s\" cannot be read, expected %s", setting->name,
            setting->address, expected);
        return result;
    }
    result = address.is_unix ? open_unix(&address, ret_fd) : open_tcp(&address, ret_fd);
    if (result == 0)
        return 0;
    char holder[HOLDER_TEXT_SIZE] = "";
    if (result == -EADDRINUSE)
        describe_holder(&address, holder);
    settings_complaints_add(complaints, place, setting->line,
        "listener %s: cannot listen on %s: %s%s", setting->name, setting->address,
        strerror(-result), holder);
    return result;
}

static int open_socket(const struct settings_listener *setting, const char *file,
    struct listener_inheritance *inheritance, struct settings_complaints *complaints,
    struct listener *listener)
{
    listener->fd = inheritance != NULL ? claim_inherited(inheritance, setting->name) : -1;
    listener->is_inherited = listener->fd >= 0;
    if (!listener->is_inherited)
        return open_address(setting, file, complaints, &listener->fd);
    int adopted = adopt_inherited(listener->fd);
    if (adopted < 0)
        settings_complaints_add(complaints, setting->file != NULL ? setting->file : file,
            setting->line, "listener %s: the socket from systemd is of no use: %s", setting->name,
            strerror(-adopted));
    return adopted;
}

int listener_open(const struct settings_listener *setting, const char *file,
    struct listener_inheritance *inheritance, struct settings_complaints *complaints,
    struct listener *ret_listener)
{
    struct listener listener = {.fd = -1};
    int result = open_socket(setting, file, inheritance, complaints, &listener);
    if (result == 0)
        result = remember_bound_address(&listener);
    if (result == 0) {
        listener.name = strdup(setting->name);
        listener.address = strdup(setting->address);
        result = listener.name == NULL || listener.address == NULL ? -ENOMEM : 0;
    }
    if (result < 0) {
        listener_close(&listener);
        return result;
    }
    log_info("listening listener=%s address=%s inherited=%s", listener.name, listener.bound_text,
        listener.is_inherited ? "yes" : "no");
    *ret_listener = listener;
    return 0;
}

int listener_adopt(
    int fd, const char *name, const char *address, bool is_inherited, struct listener *ret_listener)
{
    struct listener listener = {.fd = fd, .is_inherited = is_inherited};
    int result = remember_bound_address(&listener);
    listener.name = strdup(name);
    listener.address = strdup(address);
    if (result == 0 && (listener.name == NULL || listener.address == NULL))
        result = -ENOMEM;
    if (result < 0) {
        listener_close(&listener);
        return result;
    }
    *ret_listener = listener;
    return 0;
}

void listener_close(struct listener *listener)
{
    bool is_our_file = listener->fd >= 0 && listener->is_unix && !listener->is_inherited;
    if (is_our_file)
        (void)unlink(listener->bound_text + strlen("unix:"));
    fd_close(&listener->fd);
    free(listener->name);
    free(listener->address);
    listener->name = NULL;
    listener->address = NULL;
}
