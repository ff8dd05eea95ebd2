/* The address of a listener as people write it, taken apart: "[::]:50053", "0.0.0.0:50053",
 * "localhost:50053", "unix:/run/userd/gateway.sock". Nothing is looked up here.
 */
#ifndef USERD_COMMON_LISTENER_ADDRESS_H
#define USERD_COMMON_LISTENER_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "common/attributes.h"

#define LISTENER_HOST_MAX 255
#define LISTENER_PATH_MAX 107 /* sun_path of unix(7) without its end */
#define LISTENER_TEXT_MAX 300 /* any address as text */

struct listener_address {
    bool is_unix;
    char path[LISTENER_PATH_MAX + 1]; /* is_unix: absolute */
    char host[LISTENER_HOST_MAX + 1]; /* otherwise; without brackets */
    uint16_t port;                    /* 0: any free one */
};

/* 0, or -EINVAL with *ret_expected saying what was expected (static text). */
MUST_CHECK int listener_address_parse(
    const char *text, struct listener_address *ret_address, const char **ret_expected);

/* The address of a bound socket in the same notation; at most LISTENER_TEXT_MAX bytes with the end.
 */
void listener_address_format(
    const struct sockaddr *address, socklen_t length, char ret_text[LISTENER_TEXT_MAX]);

#endif
