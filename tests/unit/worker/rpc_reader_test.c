/* The worker's own recvmsg(), on real sockets. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/attributes.h"
#include "worker/rpc/rpc_reader.h"

#define WINDOW_US 110000 /* after which resets are counted anew */

static struct scoreboard_slot slot;
static int pair[2];

static void init(void)
{
    struct settings settings = {0};
    settings.limits.streams_per_connection = 10;
    settings.limits.cancels_per_second = 1;
    cr_assert_eq(rpc_reader_open(&settings, &slot), 0);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
}

static void fini(void)
{
    (void)close(pair[0]);
    (void)close(pair[1]);
    rpc_reader_close();
}

TestSuite(rpc_reader, .init = init, .fini = fini);

/* The preface and a header block of so many frames. */
static void send_block(int fd, int frames)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    cr_assert_eq(send(fd, preface, sizeof(preface) - 1, 0), sizeof(preface) - 1);
    for (int i = 0; i < frames; i++) {
        const char frame[10] = {0, 0, 1, i == 0 ? 1 : 9};
        cr_assert_eq(send(fd, frame, sizeof(frame), 0), sizeof(frame));
    }
}

static void send_resets(int fd, int count)
{
    static const char reset[13] = {0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8};
    for (int i = 0; i < count; i++)
        cr_assert_eq(send(fd, reset, sizeof(reset), 0), sizeof(reset));
}

/* Into two buffers, as the C core does. */
static ssize_t receive(int fd)
{
    char first[37];
    char second[4096];
    struct iovec parts[] = {{first, sizeof(first)}, {second, sizeof(second)}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = ARRAY_LENGTH(parts)};
    return recvmsg(fd, &message, 0);
}

Test(rpc_reader, lets_all_be_read_that_is_fine)
{
    rpc_reader_add(pair[0], 0);
    send_block(pair[1], 8);
    cr_assert_eq(receive(pair[0]), 24 + 80);
    cr_assert_eq(slot.connections_reset, 0);
}

Test(rpc_reader, ends_a_connection_before_its_reader_knows)
{
    rpc_reader_add(pair[0], 0);
    send_block(pair[1], 9);
    cr_assert_eq(receive(pair[0]), -1);
    cr_assert_eq(errno, ECONNRESET);
    cr_assert_eq(slot.connections_reset, 1);
    char byte = 0;
    cr_assert_eq(recv(pair[1], &byte, 1, 0), 0, "the other end sees it");
}

Test(rpc_reader, ends_a_connection_that_takes_back_too_much_at_a_time)
{
    rpc_reader_add(pair[0], 0);
    send_block(pair[1], 1);
    send_resets(pair[1], 21);
    cr_assert_eq(receive(pair[0]), -1);
    cr_assert_eq(slot.connections_reset, 1);
}

Test(rpc_reader, lets_as_much_be_taken_back_by_and_by)
{
    rpc_reader_add(pair[0], 0);
    send_block(pair[1], 1);
    for (int i = 0; i < 3; i++) {
        send_resets(pair[1], 20);
        cr_assert_gt(receive(pair[0]), 0);
        (void)usleep(WINDOW_US);
    }
    cr_assert_eq(slot.connections_reset, 0);
}

/* In one window, unless this program sleeps that long each time. */
Test(rpc_reader, counts_what_is_taken_back_over_all_reads)
{
    rpc_reader_add(pair[0], 0);
    send_block(pair[1], 1);
    ssize_t length = 1;
    for (int i = 0; i < 100 && length > 0; i++) {
        send_resets(pair[1], 7);
        length = receive(pair[0]);
    }
    cr_assert_eq(length, -1);
}

Test(rpc_reader, leaves_other_sockets_alone)
{
    send_block(pair[1], 100);
    cr_assert_eq(receive(pair[0]), 24 + 1000);
}

Test(rpc_reader, leaves_a_socket_alone_that_has_an_old_number)
{
    int old[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, old), 0);
    rpc_reader_add(old[0], 0);
    cr_assert_eq(dup2(pair[0], old[0]), old[0]);
    send_block(pair[1], 100);
    cr_assert_eq(receive(old[0]), 24 + 1000);
    cr_assert_eq(slot.connections_reset, 0);
    (void)close(old[0]);
    (void)close(old[1]);
}
