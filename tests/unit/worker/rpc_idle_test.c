/* When a connection without a call is told to go. */
#include <criterion/criterion.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker/rpc/rpc_idle.h"

#define SECOND  UINT64_C(1000000)
#define ANY_DAY (100000 * SECOND)

static const struct rpc_idle_rules rules = {
    .timeout_us = 3600 * SECOND, .shortage_timeout_us = 30 * SECOND};

Test(rpc_idle, stays_while_there_is_room)
{
    struct rpc_idle idle = {.used_us = ANY_DAY};
    cr_assert_eq(rpc_idle_judge(&idle, &rules, false, ANY_DAY + 3600 * SECOND), RPC_IDLE_STAY);
    cr_assert_eq(rpc_idle_judge(&idle, &rules, false, ANY_DAY + 3601 * SECOND), RPC_IDLE_TELL);
}

Test(rpc_idle, goes_soon_while_there_is_none)
{
    struct rpc_idle idle = {.used_us = ANY_DAY};
    cr_assert_eq(rpc_idle_judge(&idle, &rules, true, ANY_DAY + 30 * SECOND), RPC_IDLE_STAY);
    cr_assert_eq(rpc_idle_judge(&idle, &rules, true, ANY_DAY + 31 * SECOND), RPC_IDLE_TELL);
}

Test(rpc_idle, never_goes_with_a_timeout_of_0_unless_there_is_no_room)
{
    const struct rpc_idle_rules never = {.shortage_timeout_us = 30 * SECOND};
    struct rpc_idle idle = {.used_us = ANY_DAY};
    uint64_t late_us = ANY_DAY + 1000000 * SECOND;
    cr_assert_eq(rpc_idle_judge(&idle, &never, false, late_us), RPC_IDLE_STAY);
    cr_assert_eq(rpc_idle_judge(&idle, &never, true, late_us), RPC_IDLE_TELL);
}

Test(rpc_idle, is_closed_when_it_was_told_and_does_not_go)
{
    struct rpc_idle idle = {.used_us = ANY_DAY, .told_us = ANY_DAY + 40 * SECOND};
    cr_assert_eq(rpc_idle_judge(&idle, &rules, false, ANY_DAY + 45 * SECOND), RPC_IDLE_STAY);
    cr_assert_eq(rpc_idle_judge(&idle, &rules, false, ANY_DAY + 46 * SECOND), RPC_IDLE_CLOSE);
    /* A call that was on its way when it was told: its time counts anew. */
    idle.used_us = ANY_DAY + 44 * SECOND;
    cr_assert_eq(rpc_idle_judge(&idle, &rules, false, ANY_DAY + 46 * SECOND), RPC_IDLE_STAY);
}

Test(rpc_idle, is_told_by_one_whole_frame)
{
    int pair[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    cr_assert(rpc_idle_send_goaway(pair[0]));
    unsigned char bytes[64];
    cr_assert_eq(read(pair[1], bytes, sizeof(bytes)), 17);
    static const unsigned char expected[] = {
        0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0};
    cr_assert_eq(memcmp(bytes, expected, sizeof(expected)), 0);
    /* Something is unsent: the frame might stand in the middle of it. */
    cr_assert_eq(write(pair[0], "x", 1), 1);
    cr_assert_not(rpc_idle_send_goaway(pair[0]));
    (void)close(pair[0]);
    (void)close(pair[1]);
    cr_assert_not(rpc_idle_send_goaway(pair[0]));
}
