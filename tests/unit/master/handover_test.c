/* What one program writes for the next is read back, or refused before anything else is read. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/file_descriptor.h"
#include "common/settings_transfer.h"
#include "master/handover.h"

#define FORMAT_OFFSET 8

static int given_handover(void)
{
    struct settings settings;
    Userd__Ipc__Start *start = NULL;
    struct handover *handover = handover_new();
    int fd = -1;
    cr_assert_eq(settings_init(&settings), 0);
    cr_assert_eq(settings_transfer_pack(&settings, SETTING_FOR_WORKER, 0, 0, &start), 0);
    handover->state.settings = start;
    handover->state.generation = 7;
    handover->state.n_children = 1;
    handover->children[0].slot = 3;
    handover->children[0].pid = 1234;
    handover->children[0].control_fd = -1;
    cr_assert_eq(handover_write(&handover->state, &fd), 0);
    settings_transfer_free(start);
    settings_cleanup(&settings);
    free(handover);
    return fd;
}

static int when_read_with(int fd, size_t offset, uint32_t value, uint32_t *ret_format)
{
    char bytes[65536];
    ssize_t length = pread(fd, bytes, sizeof(bytes), 0);
    cr_assert_gt(length, 16);
    memcpy(bytes + offset, &value, sizeof(value));
    int copy CLEANUP(fd_close) = memfd_create("copy", MFD_CLOEXEC);
    cr_assert_eq(write(copy, bytes, (size_t)length), length);
    Userd__Handover__State *state = NULL;
    int result = handover_read(copy, &state, ret_format);
    cr_assert_null(state);
    return result;
}

Test(handover, is_read_as_it_was_written)
{
    int fd CLEANUP(fd_close) = given_handover();
    Userd__Handover__State *state = NULL;
    uint32_t format = 0;
    cr_assert_eq(handover_read(fd, &state, &format), 0);
    cr_assert_eq(format, HANDOVER_FORMAT);
    cr_assert_eq(state->generation, 7);
    cr_assert_eq(state->n_children, 1);
    cr_assert_eq(state->children[0]->slot, 3);
    cr_assert_eq(state->children[0]->pid, 1234);
    cr_assert_eq(state->run_directory_fd, -1);
    userd__handover__state__free_unpacked(state, NULL);
}

Test(handover, of_another_format_is_refused_by_its_number)
{
    int fd CLEANUP(fd_close) = given_handover();
    uint32_t format = 0;
    cr_assert_eq(when_read_with(fd, FORMAT_OFFSET, HANDOVER_FORMAT + 1, &format), -EPROTONOSUPPORT);
    cr_assert_eq(format, HANDOVER_FORMAT + 1);
}

Test(handover, that_is_none_is_refused)
{
    int fd CLEANUP(fd_close) = given_handover();
    uint32_t format = 0;
    cr_assert_eq(when_read_with(fd, 0, 0, &format), -EPROTO);
    cr_assert_eq(when_read_with(fd, FORMAT_OFFSET + 4, 1U << 30, &format), -EPROTO);
    cr_assert_eq(when_read_with(fd, FORMAT_OFFSET + 4, 60000, &format), -EPROTO);
}

Test(handover, cannot_be_changed_on_its_way)
{
    int fd CLEANUP(fd_close) = given_handover();
    cr_assert_lt(pwrite(fd, "x", 1, 0), 0);
    cr_assert_neq(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
}
