#include "master/peer_links.h"

#include <string.h>

#include "common/file_descriptor.h"
#include "common/log.h"

/* `slot` is the receiver; the frame names the other side. */
static int send_end(struct child_table *children, uint32_t slot, uint32_t other_slot, int fd)
{
    Userd__Ipc__PeerLink link = USERD__IPC__PEER_LINK__INIT;
    link.slot = other_slot;
    Userd__Ipc__Frame frame = USERD__IPC__FRAME__INIT;
    frame.body_case = USERD__IPC__FRAME__BODY_PEER_LINK;
    frame.peer_link = &link;
    int result = child_table_send(children, slot, &frame, fd);
    if (result < 0) {
        log_warn(
            "peer link not delivered, child killed slot=%u error=\"%s\"", slot, strerror(-result));
        child_table_kill(children, slot);
    }
    return result;
}

/* When the second end cannot be delivered the first receiver sees an end of file, as after a death
 * of its peer. */
static void link_pair(struct child_table *children, uint32_t worker_slot, uint32_t ready_slot)
{
    int pair[2];
    int result = ipc_channel_pair(pair);
    if (result < 0) {
        log_error(
            "peer link failed, child killed slot=%u error=\"%s\"", ready_slot, strerror(-result));
        child_table_kill(children, ready_slot);
        return;
    }
    int eventd_fd CLEANUP(fd_close) = pair[0];
    int worker_fd CLEANUP(fd_close) = pair[1];
    if (send_end(children, SCOREBOARD_SLOT_EVENTD, worker_slot, eventd_fd) < 0)
        return;
    if (send_end(children, worker_slot, SCOREBOARD_SLOT_EVENTD, worker_fd) < 0)
        return;
    log_debug("peer link made worker=%u", worker_slot);
}

void peer_links_on_ready(struct child_table *children, uint32_t slot)
{
    if (child_table_role(slot) == CHILD_WORKER) {
        if (child_table_state(children, SCOREBOARD_SLOT_EVENTD) == PROCESS_READY)
            link_pair(children, slot, slot);
        return;
    }
    for (uint32_t worker = SCOREBOARD_SLOT_EVENTD + 1; worker < SCOREBOARD_SLOTS; worker++)
        if (child_table_state(children, worker) == PROCESS_READY)
            link_pair(children, worker, slot);
}
