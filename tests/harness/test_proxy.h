/* A TCP proxy on loopback, in a process of its own, whose connections can be made to say nothing
 * any more while they stay open: what a silent network cut looks like from the inside. */
#ifndef USERD_TESTS_HARNESS_TEST_PROXY_H
#define USERD_TESTS_HARNESS_TEST_PROXY_H

#include <sys/types.h>

struct test_proxy {
    pid_t pid;
    int port;
};

void test_proxy_start(struct test_proxy *proxy, int target_port);
/* Nothing passes on the connections that there are, from now on; new ones work. */
void test_proxy_freeze(const struct test_proxy *proxy);
void test_proxy_stop(struct test_proxy *proxy);

/* A socket on a loopback address ("127.0.0.1", "::1") that lets clients connect and never answers;
 * *port 0: any, and it is told. The caller closes it. */
int test_proxy_silent_listener(const char *address, int *port);

#endif
