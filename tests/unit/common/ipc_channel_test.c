#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file_descriptor.h"
#include "common/ipc_channel.h"

struct receiver {
    size_t frames;
    size_t value_length;
    size_t last_id;
    int fd;
    size_t cut_off; /* frames */
    int closed;
    int error;
    int answer;
    bool frees_itself;
};

static sd_event *event;
static int fds[2];
static struct ipc_channel *left;
static struct ipc_channel *right;
static struct receiver received;

static int on_frame(
    struct ipc_channel *channel, const Userd__Ipc__Frame *frame, int *fd, void *userdata)
{
    struct receiver *receiver = userdata;
    receiver->frames++;
    if (frame->body_case == USERD__IPC__FRAME__BODY_PUBLISH_BATCH) {
        receiver->last_id = (size_t)frame->publish_batch->rows[0]->id;
        receiver->value_length = frame->publish_batch->rows[0]->value.len;
    }
    receiver->cut_off += *fd == IPC_FD_CUT_OFF ? 1 : 0;
    if (*fd >= 0)
        receiver->fd = fd_take(fd);
    if (receiver->frees_itself)
        right = ipc_channel_free(channel);
    return receiver->answer;
}

static void on_closed(struct ipc_channel *channel, int error, void *userdata)
{
    struct receiver *receiver = userdata;
    (void)channel;
    receiver->closed++;
    receiver->error = error;
}

static const struct ipc_channel_handlers handlers = {.on_frame = on_frame, .on_closed = on_closed};
static struct receiver ignored;

static void given_two_ends(void)
{
    received = (struct receiver){.fd = -1};
    cr_assert_geq(sd_event_new(&event), 0);
    cr_assert_eq(ipc_channel_pair(fds), 0);
    cr_assert_eq(ipc_channel_new(event, fds[0], "right", &handlers, &ignored, &left), 0);
    cr_assert_eq(ipc_channel_new(event, fds[1], "left", &handlers, &received, &right), 0);
}

static void cleanup(void)
{
    left = ipc_channel_free(left);
    right = ipc_channel_free(right);
    fd_close(&received.fd);
    event = sd_event_unref(event);
}

TestSuite(ipc_channel, .init = given_two_ends, .fini = cleanup);

static int when_row_is_sent(size_t id, const uint8_t *value, size_t length)
{
    Userd__Ipc__OutboxRow row;
    Userd__Ipc__PublishBatch batch;
    Userd__Ipc__Frame frame;
    userd__ipc__outbox_row__init(&row);
    userd__ipc__publish_batch__init(&batch);
    userd__ipc__frame__init(&frame);
    union {
        const uint8_t *read_only;
        uint8_t *plain;
    } alias = {.read_only = value};
    row.id = (int64_t)id;
    row.value.data = alias.plain;
    row.value.len = length;
    Userd__Ipc__OutboxRow *rows[] = {&row};
    batch.rows = rows;
    batch.n_rows = 1;
    frame.body_case = USERD__IPC__FRAME__BODY_PUBLISH_BATCH;
    frame.publish_batch = &batch;
    return ipc_channel_send(left, &frame, -1);
}

static int send_ready(struct ipc_channel *channel, int fd)
{
    Userd__Ipc__Ready ready;
    Userd__Ipc__Frame frame;
    userd__ipc__ready__init(&ready);
    userd__ipc__frame__init(&frame);
    frame.body_case = USERD__IPC__FRAME__BODY_READY;
    frame.ready = &ready;
    return ipc_channel_send(channel, &frame, fd);
}

static int when_ready_is_sent(int fd)
{
    return send_ready(left, fd);
}

static void run_until_quiet(void)
{
    while (sd_event_run(event, 20000) > 0)
        continue;
}

Test(ipc_channel, carries_a_frame)
{
    cr_assert_eq(when_row_is_sent(7, (const uint8_t *)"abc", 3), 0);
    run_until_quiet();
    cr_expect_eq(received.frames, 1);
    cr_expect_eq(received.last_id, 7);
    cr_expect_eq(received.value_length, 3);
}

Test(ipc_channel, carries_a_descriptor_and_leaves_the_senders_alone)
{
    int pipe_fds[2];
    cr_assert_eq(pipe2(pipe_fds, O_CLOEXEC), 0);
    cr_assert_eq(when_ready_is_sent(pipe_fds[1]), 0);
    run_until_quiet();
    cr_assert_geq(received.fd, 0);
    cr_expect_eq(write(received.fd, "x", 1), 1);
    char byte;
    cr_expect_eq(read(pipe_fds[0], &byte, 1), 1);
    cr_expect_eq(fcntl(pipe_fds[1], F_GETFD), FD_CLOEXEC);
    (void)close(pipe_fds[0]);
    (void)close(pipe_fds[1]);
}

/* Soft alone, so that it can be raised again. */
static void when_descriptors_are_limited_to(rlim_t count)
{
    struct rlimit limit;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = count < limit.rlim_max ? count : limit.rlim_max;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

Test(ipc_channel, says_of_a_frame_that_its_descriptor_was_cut_off)
{
    cr_assert_eq(when_ready_is_sent(fds[0]), 0);
    cr_assert_eq(when_ready_is_sent(-1), 0);
    when_descriptors_are_limited_to(0);
    run_until_quiet();
    when_descriptors_are_limited_to(RLIM_INFINITY); /* before all else: Criterion needs some */
    cr_expect_eq(received.frames, 2);
    cr_expect_eq(received.cut_off, 1);
    cr_expect_eq(received.closed, 0);
    cr_assert_eq(when_ready_is_sent(fds[0]), 0);
    run_until_quiet();
    cr_expect_eq(received.frames, 3);
    cr_expect_eq(received.cut_off, 1);
    cr_expect_geq(received.fd, 0);
}

Test(ipc_channel, ends_when_there_is_no_descriptor_for_a_body)
{
    static uint8_t value[2 * IPC_RECORD_MAX];
    cr_assert_eq(when_row_is_sent(1, value, sizeof(value)), 0);
    when_descriptors_are_limited_to(0);
    run_until_quiet();
    when_descriptors_are_limited_to(RLIM_INFINITY); /* before all else: Criterion needs some */
    cr_expect_eq(received.frames, 0);
    cr_expect_eq(received.closed, 1);
    cr_expect_eq(received.error, -EMFILE);
}

Test(ipc_channel, carries_a_body_of_ten_megabytes)
{
    size_t length = 10 * 1024 * 1024;
    uint8_t *value = calloc(1, length);
    cr_assert_eq(when_row_is_sent(1, value, length), 0);
    run_until_quiet();
    free(value);
    cr_expect_eq(received.value_length, length);
}

Test(ipc_channel, refuses_a_body_over_the_bound)
{
    size_t length = (size_t)IPC_BODY_MAX + 1;
    uint8_t *value = calloc(1, length);
    cr_expect_eq(when_row_is_sent(1, value, length), -EMSGSIZE);
    free(value);
}

Test(ipc_channel, queues_in_order_what_the_socket_does_not_take_and_refuses_more_than_the_bound)
{
    static uint8_t value[32 * 1024];
    size_t sent = 0;
    int result;
    while ((result = when_row_is_sent(sent + 1, value, sizeof(value))) == 0)
        sent++;
    cr_expect_eq(result, -ENOBUFS);
    cr_expect_gt(ipc_channel_queued_bytes(left), (size_t)IPC_QUEUE_MAX_BYTES / 2);
    run_until_quiet();
    cr_expect_eq(received.frames, sent);
    cr_expect_eq(received.last_id, sent);
    cr_expect_eq(ipc_channel_queued_bytes(left), 0);
}

Test(ipc_channel, says_once_that_the_peer_has_gone)
{
    cr_assert_eq(when_ready_is_sent(-1), 0);
    left = ipc_channel_free(left);
    run_until_quiet();
    cr_expect_eq(received.frames, 1);
    cr_expect_eq(received.closed, 1);
    cr_expect_eq(received.error, 0);
    cr_expect_not(ipc_channel_is_open(right));
}

/* The kernel says ECONNRESET first, of a peer that had not read all. */
Test(ipc_channel, hears_the_last_words_of_a_peer_that_left_something_unread)
{
    cr_assert_eq(send_ready(right, -1), 0);
    cr_assert_eq(when_row_is_sent(1, NULL, 0), 0);
    cr_assert_eq(when_row_is_sent(2, NULL, 0), 0);
    left = ipc_channel_free(left);
    run_until_quiet();
    cr_assert_eq(received.frames, 2);
    cr_assert_eq(received.closed, 1);
    cr_assert_eq(received.error, 0);
}

Test(ipc_channel, receives_the_rest_at_once_when_asked)
{
    for (size_t i = 1; i <= 100; i++)
        cr_assert_eq(when_row_is_sent(i, NULL, 0), 0);
    left = ipc_channel_free(left);
    ipc_channel_receive_rest(right);
    cr_assert_eq(received.frames, 100);
    cr_assert_eq(received.closed, 1);
    cr_assert_not(ipc_channel_is_open(right));
    ipc_channel_receive_rest(right);
    cr_assert_eq(received.closed, 1);
}

Test(ipc_channel, ends_on_bytes_that_are_no_frame)
{
    cr_assert_eq(send(fds[0], "\x01garbage", 8, 0), 8);
    run_until_quiet();
    cr_expect_eq(received.frames, 0);
    cr_expect_eq(received.closed, 1);
    cr_expect_eq(received.error, -EPROTO);
}

Test(ipc_channel, ends_when_a_frame_has_no_business_there)
{
    received.answer = -EPROTO;
    cr_assert_eq(when_ready_is_sent(-1), 0);
    run_until_quiet();
    cr_expect_eq(received.closed, 1);
}

Test(ipc_channel, does_not_trust_an_unsealed_body)
{
    int body = memfd_create("test", MFD_CLOEXEC);
    cr_assert_eq(write(body, "xx", 2), 2);
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {0};
    uint8_t kind = 2; /* RECORD_MEMFD */
    struct iovec vector = {.iov_base = &kind, .iov_len = sizeof(kind)};
    struct msghdr message = {.msg_iov = &vector,
        .msg_iovlen = 1,
        .msg_control = control.space,
        .msg_controllen = sizeof(control.space)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &body, sizeof(body));
    cr_assert_eq(sendmsg(fds[0], &message, 0), 1);
    run_until_quiet();
    cr_expect_eq(received.closed, 1);
    (void)close(body);
}

Test(ipc_channel, may_be_freed_by_its_own_handler)
{
    received.frees_itself = true;
    cr_assert_eq(when_ready_is_sent(-1), 0);
    cr_assert_eq(when_ready_is_sent(-1), 0);
    run_until_quiet();
    cr_expect_eq(received.frames, 1);
    cr_expect_null(right);
}
