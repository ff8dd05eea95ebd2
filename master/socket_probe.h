/* Asks the kernel whether any process still has a TCP connection open (sock_diag(7)), without
 * holding a descriptor of it. */
#ifndef USERD_MASTER_SOCKET_PROBE_H
#define USERD_MASTER_SOCKET_PROBE_H

#include <linux/inet_diag.h>
#include <stdint.h>

#include "common/attributes.h"

/* Which connection: addresses, ports and the cookie that no other socket since boot has. */
struct socket_identity {
    uint8_t family;
    struct inet_diag_sockid id;
};

/* *ret_fd is the caller's. Negative errno where the kernel offers no such thing. */
MUST_CHECK int socket_probe_open(int *ret_fd);
/* For an accepted TCP connection. */
MUST_CHECK int socket_probe_identify(int fd, struct socket_identity *ret_identity);
/* 1: some process has it; 0: nobody has; negative errno: not known. */
MUST_CHECK int socket_probe_is_held(int probe_fd, const struct socket_identity *identity);

#endif
