/* The scoreboard as a reader meets it: read-only, of its own version, or refused. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/file_descriptor.h"
#include "common/scoreboard.h"

static int reopen_for_reading(int fd)
{
    char path[32];
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return open(path, O_RDONLY | O_CLOEXEC);
}

Test(scoreboard, a_reader_with_a_read_only_descriptor_sees_what_is_written)
{
    struct scoreboard *writer = NULL;
    int fd CLEANUP(fd_close) = -1;
    cr_assert_eq(scoreboard_create(&writer, &fd), 0);
    int read_fd CLEANUP(fd_close) = reopen_for_reading(fd);
    cr_assert(read_fd >= 0);
    const struct scoreboard *reader = NULL;
    uint32_t version = 0;
    cr_assert_eq(scoreboard_open_readonly(read_fd, &reader, &version), 0);
    scoreboard_add(&writer->slots[1].calls_started, 17);
    cr_assert_eq(reader->slots[1].calls_started, 17);
    cr_assert_eq(version, SCOREBOARD_VERSION);
    /* such a descriptor can never be mapped for writing */
    struct scoreboard *second = NULL;
    cr_assert_eq(scoreboard_open(read_fd, &second), -EACCES);
    scoreboard_close_readonly(reader);
    scoreboard_close(writer);
}

Test(scoreboard, another_version_is_refused_by_its_number)
{
    struct scoreboard *writer = NULL;
    int fd CLEANUP(fd_close) = -1;
    cr_assert_eq(scoreboard_create(&writer, &fd), 0);
    writer->version = 4711;
    const struct scoreboard *reader = NULL;
    uint32_t version = 0;
    cr_assert_eq(scoreboard_open_readonly(fd, &reader, &version), -EPROTONOSUPPORT);
    cr_assert_eq(version, 4711);
    cr_assert(reader == NULL);
    scoreboard_close(writer);
}

Test(scoreboard, what_is_no_scoreboard_is_refused)
{
    int fd CLEANUP(fd_close) = memfd_create("test", MFD_CLOEXEC);
    const struct scoreboard *reader = NULL;
    uint32_t version = 1;
    cr_assert_eq(scoreboard_open_readonly(fd, &reader, &version), -EPROTO, "an empty one");
    cr_assert_eq(ftruncate(fd, sizeof(struct scoreboard)), 0);
    cr_assert_eq(scoreboard_open_readonly(fd, &reader, &version), -EPROTO, "one of zeroes");
    cr_assert_eq(version, 0);
}

Test(scoreboard, a_truncated_one_is_refused)
{
    const struct {
        uint64_t magic;
        uint32_t version;
        uint32_t slot_count;
    } head = {SCOREBOARD_MAGIC, SCOREBOARD_VERSION, SCOREBOARD_SLOTS};
    int fd CLEANUP(fd_close) = memfd_create("test", MFD_CLOEXEC);
    cr_assert_eq(write(fd, &head, sizeof(head)), (ssize_t)sizeof(head));
    const struct scoreboard *reader = NULL;
    uint32_t version = 0;
    cr_assert_eq(scoreboard_open_readonly(fd, &reader, &version), -EPROTO);
}

Test(scoreboard, an_absence_keeps_its_beginning_and_the_last_reason)
{
    struct scoreboard_absence absence = {0};
    char reason[SCOREBOARD_REASON_SIZE];
    uint64_t since_us = 1;
    scoreboard_absence_read(&absence, &since_us, reason);
    cr_expect_eq(since_us, 0);
    scoreboard_absence_set(&absence, "first");
    uint64_t first_us = 0;
    scoreboard_absence_read(&absence, &first_us, reason);
    cr_expect_neq(first_us, 0);
    cr_expect_str_eq(reason, "first");
    char text[SCOREBOARD_REASON_SIZE * 2];
    memset(text, 'a', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    scoreboard_absence_set(&absence, text);
    scoreboard_absence_read(&absence, &since_us, reason);
    cr_expect_eq(since_us, first_us);
    cr_expect_eq(strlen(reason), SCOREBOARD_REASON_SIZE - 1);
    scoreboard_absence_end(&absence);
    scoreboard_absence_read(&absence, &since_us, reason);
    cr_expect_eq(since_us, 0);
    cr_expect_str_eq(reason, "");
    atomic_store(&absence.sequence, 7); /* of a writer that died */
    scoreboard_absence_read(&absence, &since_us, reason);
    cr_expect_eq(since_us, 0);
}
