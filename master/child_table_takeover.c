/* The children on their way from one program of the master to the next. */
#include <errno.h>

#include "common/file_descriptor.h"
#include "common/monotonic_clock.h"
#include "master/child_table_private.h"

bool child_table_save(
    const struct child_table *table, uint32_t slot, Userd__Handover__Child *ret_saved)
{
    const struct child *child = &table->children[slot];
    if (child->state == PROCESS_ABSENT)
        return false;
    ret_saved->slot = slot;
    ret_saved->pid = child->pid;
    ret_saved->generation = child->generation;
    ret_saved->state = child->state;
    ret_saved->ready_at_us = child->ready_at_us;
    ret_saved->was_asked = child->was_asked;
    ret_saved->control_fd = child->control != NULL ? ipc_channel_fd(child->control) : -1;
    ret_saved->files = child->files;
    ret_saved->deadline_us = 0;
    if (child->deadline != NULL)
        (void)sd_event_source_get_time(child->deadline, &ret_saved->deadline_us);
    ret_saved->program->device = child->program.device;
    ret_saved->program->inode = child->program.inode;
    ret_saved->program->size = child->program.size;
    ret_saved->program->modified_s = child->program.modified.tv_sec;
    ret_saved->program->modified_ns = child->program.modified.tv_nsec;
    return true;
}

int child_table_adopt(struct child_table *table, const Userd__Handover__Child *saved)
{
    int control_fd CLEANUP(fd_close) = saved->control_fd;
    if (saved->slot >= SCOREBOARD_SLOTS || saved->pid <= 0 || saved->program == NULL ||
        saved->state == PROCESS_ABSENT || saved->state > PROCESS_DRAINING)
        return -EPROTO;
    struct child *child = &table->children[saved->slot];
    child->state = (enum process_state)saved->state;
    child->pid = saved->pid;
    child->generation = saved->generation;
    child->ready_at_us = saved->ready_at_us;
    child->was_asked = saved->was_asked;
    child->files = saved->files;
    child->program = (struct child_program_identity){
        .device = saved->program->device,
        .inode = saved->program->inode,
        .size = saved->program->size,
        .modified = {.tv_sec = saved->program->modified_s, .tv_nsec = saved->program->modified_ns},
    };
    if (saved->deadline_us != 0) {
        uint64_t now_us = monotonic_clock_us();
        uint64_t left_us = saved->deadline_us > now_us ? saved->deadline_us - now_us : 0;
        child_table_set_deadline(child, left_us / MONOTONIC_CLOCK_US_PER_MS);
    }
    return control_fd < 0 ? 0 : child_table_open_control(child, fd_take(&control_fd));
}
