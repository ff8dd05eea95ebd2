/* The worker's own recvmsg(), on real sockets. */
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/net_tstamp.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
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
    rpc_reader_add(pair[0], 0, NULL);
    send_block(pair[1], 8);
    cr_assert_eq(receive(pair[0]), 24 + 80);
    cr_assert_eq(slot.connections_reset, 0);
}

Test(rpc_reader, ends_a_connection_before_its_reader_knows)
{
    rpc_reader_add(pair[0], 0, NULL);
    send_block(pair[1], 9);
    cr_assert_eq(receive(pair[0]), -1);
    cr_assert_eq(errno, ECONNRESET);
    cr_assert_eq(slot.connections_reset, 1);
    char byte = 0;
    cr_assert_eq(recv(pair[1], &byte, 1, 0), 0, "the other end sees it");
}

Test(rpc_reader, ends_a_connection_that_takes_back_too_much_at_a_time)
{
    rpc_reader_add(pair[0], 0, NULL);
    send_block(pair[1], 1);
    send_resets(pair[1], 21);
    cr_assert_eq(receive(pair[0]), -1);
    cr_assert_eq(slot.connections_reset, 1);
}

Test(rpc_reader, lets_as_much_be_taken_back_by_and_by)
{
    rpc_reader_add(pair[0], 0, NULL);
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
    rpc_reader_add(pair[0], 0, NULL);
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
    rpc_reader_add(old[0], 0, NULL);
    cr_assert_eq(dup2(pair[0], old[0]), old[0]);
    send_block(pair[1], 100);
    cr_assert_eq(receive(old[0]), 24 + 1000);
    cr_assert_eq(slot.connections_reset, 0);
    (void)close(old[0]);
    (void)close(old[1]);
}

/* Sends a datagram, and reads it back from the error queue, where it comes with its time stamp. */
static ssize_t receive_from_error_queue(int fd, const char *bytes, size_t length)
{
    char packet[4096];
    char control[512];
    struct iovec part = {packet, sizeof(packet)};
    struct msghdr message = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = control,
        .msg_controllen = sizeof(control),
    };
    struct pollfd waits = {.fd = fd};
    cr_assert_eq(send(fd, bytes, length, 0), (ssize_t)length);
    cr_assert_eq(poll(&waits, 1, 10000), 1);
    return recvmsg(fd, &message, MSG_ERRQUEUE);
}

/* What is read from there is no bytes of the client's, and the C core does so on another thread
 * than the one that reads the connection. */
Test(rpc_reader, passes_the_error_queue_through)
{
    int udp[2] = {socket(AF_INET, SOCK_DGRAM, 0), socket(AF_INET, SOCK_DGRAM, 0)};
    struct sockaddr_in addresses[2] = {{.sin_family = AF_INET}, {.sin_family = AF_INET}};
    const int on = SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE;
    for (int i = 0; i < 2; i++) {
        socklen_t size = sizeof(addresses[i]);
        addresses[i].sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        cr_assert_eq(bind(udp[i], (struct sockaddr *)&addresses[i], size), 0);
        cr_assert_eq(getsockname(udp[i], (struct sockaddr *)&addresses[i], &size), 0);
    }
    for (int i = 0; i < 2; i++)
        cr_assert_eq(
            connect(udp[i], (struct sockaddr *)&addresses[1 - i], sizeof(addresses[i])), 0);
    cr_assert_eq(setsockopt(udp[0], SOL_SOCKET, SO_TIMESTAMPING, &on, sizeof(on)), 0);

    char block[1000]; /* heads of CONTINUATION that promise too much */
    memset(block, 9, sizeof(block));
    ssize_t packet = receive_from_error_queue(udp[0], block, sizeof(block));
    cr_assert_geq(packet, (ssize_t)sizeof(block));
    /* The client's bytes end with a frame that reaches to where the block begins in the packet. */
    char start[24 + 9] = {0};
    start[24 + 2] = (char)(packet - (ssize_t)sizeof(block));
    rpc_reader_add(udp[0], 0, NULL);
    cr_assert_eq(send(udp[1], start, sizeof(start), 0), sizeof(start));
    cr_assert_eq(receive(udp[0]), sizeof(start));

    cr_assert_eq(receive_from_error_queue(udp[0], block, sizeof(block)), packet);
    cr_assert_eq(slot.connections_reset, 0);
    (void)close(udp[0]);
    (void)close(udp[1]);
}

/* ---- turns ---- */

#define SLICE_OVER_US (RPC_READER_SLICE_US * 2)

static void connect_tcp(int ret_pair[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    cr_assert_eq(listen(listener, 1), 0);
    cr_assert_eq(getsockname(listener, (struct sockaddr *)&address, &length), 0);
    ret_pair[1] = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(connect(ret_pair[1], (struct sockaddr *)&address, sizeof(address)), 0);
    ret_pair[0] = accept(listener, NULL, NULL);
    (void)close(listener);
}

static ssize_t receive_some(int fd)
{
    char bytes[16];
    struct iovec part = {bytes, sizeof(bytes)};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    return recvmsg(fd, &message, MSG_DONTWAIT);
}

/* Watches it as the C core does. */
static int watch(int fd)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.fd = fd};
    int epoll_fd = epoll_create1(0);
    cr_assert_geq(epoll_fd, 0);
    cr_assert_eq(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event), 0);
    return epoll_fd;
}

static bool is_told(int epoll_fd)
{
    struct epoll_event event = {0};
    return epoll_wait(epoll_fd, &event, 1, 5000) == 1 && (event.events & EPOLLIN) != 0;
}

static bool is_not_told(int epoll_fd)
{
    struct epoll_event event = {0};
    return epoll_wait(epoll_fd, &event, 1, 50) == 0;
}

/* A connection that has had the thread for its slice is read from in the next turn, and none of
 * its bytes is left behind, though it sends no more. */
static void read_in_turns(const int ends[2])
{
    rpc_reader_add(ends[0], 0, NULL);
    int epoll_fd = watch(ends[0]);
    rpc_reader_begin_turn();
    send_block(ends[1], 1);
    cr_assert(is_told(epoll_fd));
    cr_assert_eq(receive_some(ends[0]), 16);
    cr_assert(is_not_told(epoll_fd), "an edge is told of once");
    (void)usleep(SLICE_OVER_US);
    cr_assert_eq(receive_some(ends[0]), -1);
    cr_assert_eq(errno, EAGAIN);
    cr_assert(is_told(epoll_fd), "what waits is told of once more");
    cr_assert_eq(receive_some(ends[0]), 16, "the C core has been to its poller: a new turn");
    (void)usleep(SLICE_OVER_US);
    rpc_reader_begin_turn();
    cr_assert_eq(receive_some(ends[0]), 2);
    cr_assert_eq(receive_some(ends[0]), -1);
    cr_assert_eq(slot.connections_reset, 0);
    (void)close(epoll_fd);
}

Test(rpc_reader, gives_a_tcp_connection_its_slice_of_a_turn)
{
    int tcp[2];
    connect_tcp(tcp);
    read_in_turns(tcp);
    (void)close(tcp[0]);
    (void)close(tcp[1]);
}

Test(rpc_reader, gives_a_unix_connection_its_slice_of_a_turn)
{
    read_in_turns(pair);
}

Test(rpc_reader, keeps_the_size_of_a_unix_sockets_buffer)
{
    int before = 0;
    int after = 0;
    socklen_t length = sizeof(before);
    cr_assert_eq(getsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &before, &length), 0);
    read_in_turns(pair);
    cr_assert_eq(getsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &after, &length), 0);
    cr_assert_eq(before, after);
}

/* Its bytes have been read, and it was reset before: the one edge that said so is gone. */
Test(rpc_reader, says_that_a_connection_has_ended_whose_slice_is_over)
{
    int tcp[2];
    const struct linger at_once = {.l_onoff = 1};
    connect_tcp(tcp);
    rpc_reader_add(tcp[0], 0, NULL);
    int epoll_fd = watch(tcp[0]);
    rpc_reader_begin_turn();
    send_block(tcp[1], 1);
    cr_assert_eq(setsockopt(tcp[1], SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)), 0);
    (void)close(tcp[1]);
    cr_assert(is_told(epoll_fd));
    for (ssize_t left = 34; left > 0;) {
        ssize_t length = receive_some(tcp[0]);
        cr_assert_gt(length, 0);
        left -= length;
    }
    (void)usleep(SLICE_OVER_US);
    ssize_t length = receive_some(tcp[0]);
    if (length < 0 && errno == EAGAIN) {
        cr_assert(is_told(epoll_fd), "or nobody looks at it any more");
        length = receive_some(tcp[0]);
    }
    cr_assert_eq(length, -1);
    cr_assert_eq(errno, ECONNRESET);
    (void)close(epoll_fd);
    (void)close(tcp[0]);
}

Test(rpc_reader, is_a_sign_of_life_of_the_rpc_thread)
{
    rpc_reader_add(pair[0], 0, NULL);
    cr_assert_eq(receive_some(pair[0]), -1);
    cr_assert_eq(slot.rpc_heartbeat_us, 0, "not of any thread");
    rpc_reader_beat_here();
    cr_assert_eq(receive_some(pair[0]), -1);
    cr_assert_gt(slot.rpc_heartbeat_us, 0);
}

/* ---- budgets ---- */

static void send_headers(int fd, int count)
{
    static const char frame[10] = {0, 0, 1, 1, 4};
    for (int i = 0; i < count; i++)
        cr_assert_eq(send(fd, frame, sizeof(frame), 0), sizeof(frame));
}

/* Of ten streams a connection may have twenty calls under way or taken back; those that are
 * answered do not count. */
Test(rpc_reader, ends_a_connection_whose_calls_come_to_nothing)
{
    struct rpc_peer peer = {.number = 1};
    static const char acknowledged[9] = {0, 0, 0, 4, 1};
    rpc_reader_add(pair[0], 0, &peer);
    send_block(pair[1], 0);
    cr_assert_eq(send(pair[1], acknowledged, sizeof(acknowledged), 0), sizeof(acknowledged));
    for (int i = 0; i < 100; i++) {
        send_headers(pair[1], 10);
        cr_assert_gt(receive(pair[0]), 0);
        rpc_peer_add_served(&peer);
        atomic_fetch_add(&peer.use.served, 9);
    }
    send_headers(pair[1], 15);
    cr_assert_gt(receive(pair[0]), 0);
    send_headers(pair[1], 20);
    cr_assert_eq(receive(pair[0]), -1);
    cr_assert_eq(errno, ECONNRESET);
    cr_assert_eq(slot.connections_reset, 1);
}

/* ---- requests that are to come ---- */

#define OPEN_REQUESTS 64 /* of the worker; a quarter of them may begin in a short while */
#define OPEN_WINDOW   (OPEN_REQUESTS / 4)

static void allow_open_requests(int streams)
{
    struct settings settings = {0};
    settings.limits.streams_per_connection = streams;
    settings.limits.message_bytes = 1024;
    settings.limits.open_requests = OPEN_REQUESTS;
    rpc_reader_close();
    cr_assert_eq(rpc_reader_open(&settings, &slot), 0);
}

/* The preface, and that the number of streams is known. */
static void send_greeting(int fd)
{
    static const char acknowledged[9] = {0, 0, 0, 4, 1};
    send_block(fd, 0);
    cr_assert_eq(send(fd, acknowledged, sizeof(acknowledged), 0), sizeof(acknowledged));
}

/* HEADERS of so many streams from this one on, and no message. */
static void send_requests(int fd, int first, int count)
{
    for (int i = 0; i < count; i++) {
        const char frame[10] = {0, 0, 1, 1, 4, 0, 0, 0, (char)(first + i * 2)};
        cr_assert_eq(send(fd, frame, sizeof(frame), 0), sizeof(frame));
    }
}

static void send_messages(int fd, int first, int count)
{
    for (int i = 0; i < count; i++) {
        const char frame[14] = {0, 0, 5, 0, 1, 0, 0, 0, (char)(first + i * 2)};
        cr_assert_eq(send(fd, frame, sizeof(frame), 0), sizeof(frame));
    }
}

/* Its messages are known to come: it takes no room from a connection that is new. */
Test(rpc_reader, counts_no_requests_against_others_whose_messages_come)
{
    int other[2];
    allow_open_requests(OPEN_WINDOW);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, other), 0);
    rpc_reader_add(pair[0], 0, NULL);
    rpc_reader_add(other[0], 0, NULL);
    send_greeting(pair[1]);
    send_greeting(other[1]);
    send_requests(pair[1], 1, OPEN_WINDOW);
    send_messages(pair[1], 1, OPEN_WINDOW);
    cr_assert_gt(receive(pair[0]), 0);
    for (int i = 0; i < 2; i++) {
        int first = 1 + OPEN_WINDOW * 2;
        send_requests(pair[1], first, OPEN_WINDOW);
        cr_assert_gt(receive(pair[0]), 0, "HEADERS come ahead");
        send_messages(pair[1], first, OPEN_WINDOW);
        cr_assert_gt(receive(pair[0]), 0);
        if (i == 0)
            continue;
        send_requests(other[1], 1, OPEN_WINDOW);
        cr_assert_gt(receive(other[0]), 0);
    }
    cr_assert_eq(slot.connections_reset, 0);
    (void)close(other[0]);
    (void)close(other[1]);
}

/* All its streams at once, HEADERS first: more than a quarter of what the worker may have. */
Test(rpc_reader, lets_a_new_connection_begin_all_its_streams)
{
    allow_open_requests(OPEN_WINDOW * 2);
    rpc_reader_add(pair[0], 0, NULL);
    send_greeting(pair[1]);
    send_requests(pair[1], 1, OPEN_WINDOW * 2);
    cr_assert_gt(receive(pair[0]), 0);
}

Test(rpc_reader, ends_a_new_connection_that_begins_more_than_all_its_streams)
{
    allow_open_requests(OPEN_WINDOW * 2);
    rpc_reader_add(pair[0], 0, NULL);
    send_greeting(pair[1]);
    send_requests(pair[1], 1, OPEN_WINDOW * 2 + 1);
    cr_assert_eq(receive(pair[0]), -1);
    cr_assert_eq(slot.connections_open, 1);
}

/* The C core does not read from a connection again that it ends by itself. Until it has closed it,
 * its requests are there. */
static bool is_there_room_after(bool is_closed)
{
    enum { CONNECTIONS = OPEN_REQUESTS / OPEN_WINDOW + 1 };
    struct rpc_peer peers[CONNECTIONS] = {0};
    int ends[CONNECTIONS][2];
    bool has_room = true;
    allow_open_requests(OPEN_WINDOW);
    for (int i = 0; i < CONNECTIONS; i++)
        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends[i]), 0);
    for (int i = 0; i < CONNECTIONS; i++) {
        peers[i].number = (uint32_t)i + 1;
        rpc_reader_add(ends[i][0], 0, &peers[i]);
        send_greeting(ends[i][1]);
        send_requests(ends[i][1], 1, OPEN_WINDOW);
        (void)usleep(WINDOW_US);
        has_room = has_room && receive(ends[i][0]) > 0;
        if (is_closed)
            (void)close(ends[i][0]);
        rpc_reader_end(&peers[i]);
    }
    return has_room;
}

Test(rpc_reader, forgets_the_requests_of_a_connection_that_is_closed)
{
    cr_assert(is_there_room_after(true));
    cr_assert_eq(slot.connections_reset, 0);
}

Test(rpc_reader, counts_the_requests_of_a_connection_until_it_is_closed)
{
    cr_assert_not(is_there_room_after(false));
    cr_assert_eq(slot.connections_reset, 1);
}
