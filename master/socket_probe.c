#include "master/socket_probe.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#define ALL_STATES UINT32_MAX
#define REPLY_MAX  1024

struct probe_request {
    struct nlmsghdr header;
    struct inet_diag_req_v2 body;
};

int socket_probe_open(int *ret_fd)
{
    int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_SOCK_DIAG);
    if (fd < 0)
        return -errno;
    *ret_fd = fd;
    return 0;
}

static int put_address(
    const struct sockaddr_storage *address, __be32 ret_words[4], __be16 *ret_port)
{
    if (address->ss_family == AF_INET) {
        struct sockaddr_in ipv4;
        memcpy(&ipv4, address, sizeof(ipv4));
        ret_words[0] = ipv4.sin_addr.s_addr;
        *ret_port = ipv4.sin_port;
        return 0;
    }
    if (address->ss_family != AF_INET6)
        return -EAFNOSUPPORT;
    struct sockaddr_in6 ipv6;
    memcpy(&ipv6, address, sizeof(ipv6));
    memcpy(ret_words, &ipv6.sin6_addr, sizeof(ipv6.sin6_addr));
    *ret_port = ipv6.sin6_port;
    return 0;
}

int socket_probe_identify(int fd, struct socket_identity *ret_identity)
{
    struct sockaddr_storage local = {0};
    struct sockaddr_storage peer = {0};
    socklen_t local_length = sizeof(local);
    socklen_t peer_length = sizeof(peer);
    uint64_t cookie = 0;
    socklen_t cookie_length = sizeof(cookie);
    if (getsockname(fd, (struct sockaddr *)&local, &local_length) < 0 ||
        getpeername(fd, (struct sockaddr *)&peer, &peer_length) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &cookie_length) < 0)
        return -errno;
    struct socket_identity identity = {.family = (uint8_t)local.ss_family};
    int result = put_address(&local, identity.id.idiag_src, &identity.id.idiag_sport);
    if (result == 0)
        result = put_address(&peer, identity.id.idiag_dst, &identity.id.idiag_dport);
    if (result < 0)
        return result;
    identity.id.idiag_cookie[0] = (uint32_t)cookie;
    identity.id.idiag_cookie[1] = (uint32_t)(cookie >> 32);
    *ret_identity = identity;
    return 0;
}

/* A socket that nobody has open, while the kernel still says goodbye on it, has no inode. */
static int read_reply(const unsigned char *reply, size_t length)
{
    struct nlmsghdr header;
    if (length < sizeof(header))
        return -EBADMSG;
    memcpy(&header, reply, sizeof(header));
    if (header.nlmsg_type == NLMSG_ERROR && length >= NLMSG_HDRLEN + sizeof(struct nlmsgerr)) {
        struct nlmsgerr error;
        memcpy(&error, reply + NLMSG_HDRLEN, sizeof(error));
        return error.error == -ENOENT || error.error == -ESTALE ? 0 : error.error;
    }
    if (header.nlmsg_type != SOCK_DIAG_BY_FAMILY ||
        length < NLMSG_HDRLEN + sizeof(struct inet_diag_msg))
        return -EBADMSG;
    struct inet_diag_msg message;
    memcpy(&message, reply + NLMSG_HDRLEN, sizeof(message));
    return message.idiag_inode != 0 ? 1 : 0;
}

int socket_probe_is_held(int probe_fd, const struct socket_identity *identity)
{
    const struct probe_request request = {
        .header = {.nlmsg_len = sizeof(request),
            .nlmsg_type = SOCK_DIAG_BY_FAMILY,
            .nlmsg_flags = NLM_F_REQUEST},
        .body = {.sdiag_family = identity->family,
            .sdiag_protocol = IPPROTO_TCP,
            .idiag_states = ALL_STATES,
            .id = identity->id},
    };
    unsigned char reply[REPLY_MAX];
    const struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    if (sendto(probe_fd, &request, sizeof(request), 0, (const struct sockaddr *)&kernel,
            sizeof(kernel)) < 0)
        return -errno;
    /* The kernel answers such a question within the call that puts it: there is nothing to wait
     * for. */
    ssize_t length = recv(probe_fd, reply, sizeof(reply), 0);
    if (length < 0)
        return -errno;
    return read_reply(reply, (size_t)length);
}
