#include "worker/rpc/rpc_idle.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "common/monotonic_clock.h"

struct rpc_idle_rules rpc_idle_rules_of(const struct settings *settings)
{
    return (struct rpc_idle_rules){
        .timeout_us = (uint64_t)settings->limits.idle_timeout_ms * MONOTONIC_CLOCK_US_PER_MS,
        .shortage_timeout_us =
            (uint64_t)settings->limits.idle_shortage_timeout_ms * MONOTONIC_CLOCK_US_PER_MS,
    };
}

enum rpc_idle_verdict rpc_idle_judge(
    const struct rpc_idle *idle, const struct rpc_idle_rules *rules, bool is_short, uint64_t now_us)
{
    uint64_t since_us = idle->told_us > idle->used_us ? idle->told_us : idle->used_us;
    uint64_t idle_us = now_us > since_us ? now_us - since_us : 0;
    if (idle->told_us != 0)
        return idle_us > RPC_IDLE_GRACE_US ? RPC_IDLE_CLOSE : RPC_IDLE_STAY;
    if (rules->timeout_us != 0 && idle_us > rules->timeout_us)
        return RPC_IDLE_TELL;
    return is_short && idle_us > rules->shortage_timeout_us ? RPC_IDLE_TELL : RPC_IDLE_STAY;
}

/* The C core has no way to end one connection politely, so the frame is sent beside it. On a
 * connection without a call it sends small frames at most, each by one system call; with nothing
 * unsent in the socket each of them is taken whole, and so is this one, which therefore stands
 * between two frames. */
bool rpc_idle_send_goaway(int fd)
{
    /* RFC 9113, section 6.8: all streams up to the last possible one are served; NO_ERROR. */
    static const uint8_t goaway[] = {0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0};
    int unsent = 0;
    if (ioctl(fd, SIOCOUTQ, &unsent) != 0 || unsent != 0)
        return false;
    return send(fd, goaway, sizeof(goaway), MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)sizeof(goaway);
}
