#include "tests/harness/test_proxy.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAIRS_MAX   64
#define CHUNK_SIZE  65536
#define BACKLOG     64
#define FIRST_PAIRS 2 /* the listener and the signal come first */

struct pair {
    int fds[2]; /* client, server; -1: ended */
    int is_frozen;
};

struct proxy {
    int listener;
    int signal_fd;
    int target_port;
    struct pair pairs[PAIRS_MAX];
    size_t count;
};

int test_proxy_silent_listener(const char *address, int *port)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)*port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)*port)};
    int is_v6 = inet_pton(AF_INET6, address, &v6.sin6_addr) == 1;
    cr_assert(is_v6 || inet_pton(AF_INET, address, &v4.sin_addr) == 1, "%s", address);
    struct sockaddr *name = is_v6 ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4;
    socklen_t length = is_v6 ? sizeof(v6) : sizeof(v4);
    int fd = socket(is_v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(fd >= 0);
    cr_assert_eq(bind(fd, name, length), 0, "cannot bind %s port %d", address, *port);
    cr_assert_eq(listen(fd, BACKLOG), 0);
    cr_assert_eq(getsockname(fd, name, &length), 0);
    *port = ntohs(is_v6 ? v6.sin6_port : v4.sin_port);
    return fd;
}

static void accept_pair(struct proxy *proxy)
{
    struct pair *pair = &proxy->pairs[proxy->count];
    const struct sockaddr_in target = {.sin_family = AF_INET,
        .sin_port = htons((uint16_t)proxy->target_port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int client = accept(proxy->listener, NULL, NULL);
    int server = socket(AF_INET, SOCK_STREAM, 0);
    if (client < 0 || server < 0 || proxy->count == PAIRS_MAX ||
        connect(server, (const struct sockaddr *)&target, sizeof(target)) < 0) {
        (void)close(client);
        (void)close(server);
        return;
    }
    *pair = (struct pair){.fds = {client, server}};
    proxy->count++;
}

static void pass_on(struct pair *pair, int side)
{
    static char buffer[CHUNK_SIZE];
    ssize_t length = read(pair->fds[side], buffer, sizeof(buffer));
    if (length > 0 && send(pair->fds[1 - side], buffer, (size_t)length, MSG_NOSIGNAL) == length)
        return;
    (void)close(pair->fds[0]);
    (void)close(pair->fds[1]);
    pair->fds[0] = -1;
    pair->fds[1] = -1;
}

static void turn(struct proxy *proxy)
{
    struct pollfd entries[FIRST_PAIRS + 2 * PAIRS_MAX] = {
        {.fd = proxy->listener, .events = POLLIN}, {.fd = proxy->signal_fd, .events = POLLIN}};
    for (size_t i = 0; i < proxy->count; i++)
        for (size_t side = 0; side < 2; side++)
            entries[FIRST_PAIRS + 2 * i + side] = (struct pollfd){
                .fd = proxy->pairs[i].is_frozen ? -1 : proxy->pairs[i].fds[side], .events = POLLIN};
    size_t count = proxy->count;
    if (poll(entries, (nfds_t)(FIRST_PAIRS + 2 * count), -1) < 0)
        _exit(1);
    for (size_t i = 0; i < count; i++)
        for (size_t side = 0; side < 2; side++)
            if (entries[FIRST_PAIRS + 2 * i + side].revents != 0 && proxy->pairs[i].fds[0] >= 0)
                pass_on(&proxy->pairs[i], (int)side);
    if (entries[1].revents != 0) {
        struct signalfd_siginfo info;
        (void)!read(proxy->signal_fd, &info, sizeof(info));
        for (size_t i = 0; i < proxy->count; i++)
            proxy->pairs[i].is_frozen = 1;
    }
    if (entries[0].revents != 0)
        accept_pair(proxy);
}

void test_proxy_start(struct test_proxy *proxy, int target_port)
{
    struct proxy state = {.target_port = target_port};
    sigset_t freeze;
    (void)sigemptyset(&freeze);
    (void)sigaddset(&freeze, SIGUSR1);
    proxy->port = 0;
    state.listener = test_proxy_silent_listener("127.0.0.1", &proxy->port);
    proxy->pid = fork();
    cr_assert(proxy->pid >= 0);
    if (proxy->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)sigprocmask(SIG_BLOCK, &freeze, NULL);
        state.signal_fd = signalfd(-1, &freeze, 0);
        for (;;)
            turn(&state);
    }
    (void)close(state.listener);
}

void test_proxy_freeze(const struct test_proxy *proxy)
{
    cr_assert_eq(kill(proxy->pid, SIGUSR1), 0);
}

void test_proxy_stop(struct test_proxy *proxy)
{
    if (proxy->pid <= 0)
        return;
    (void)kill(proxy->pid, SIGKILL);
    (void)waitpid(proxy->pid, NULL, 0);
    proxy->pid = 0;
}
