#include "master/peer_links.h"

#include <string.h>

#include "common/file_descriptor.h"
#include "common/log.h"

/* `slot` is the receiver; the link names the other side. */
static int send_end(
    struct child_table *children, uint32_t slot, const Userd__Ipc__PeerLink *link, int fd)
{
    Userd__Ipc__PeerLink end = *link;
    Userd__Ipc__Frame frame = USERD__IPC__FRAME__INIT;
    frame.body_case = USERD__IPC__FRAME__BODY_PEER_LINK;
    frame.peer_link = &end;
    int result = child_table_send(children, slot, &frame, fd);
    if (result < 0)
        log_warn("peer link not delivered slot=%u error=\"%s\"", slot, strerror(-result));
    return result;
}

/* 0, or negative errno with the slot of the one that has no end of it: `ready_slot` when neither
 * has. When the second end cannot be delivered the first receiver sees an end of file, as after a
 * death of its peer. */
static int link_pair(struct peer_links *links, struct child_table *children, uint32_t worker_slot,
    uint32_t *ret_slot)
{
    int pair[2];
    int result = ipc_channel_pair(pair);
    if (result < 0) {
        log_error("peer link failed worker=%u error=\"%s\"", worker_slot, strerror(-result));
        return result;
    }
    int eventd_fd CLEANUP(fd_close) = pair[0];
    int worker_fd CLEANUP(fd_close) = pair[1];
    Userd__Ipc__PeerLink link = USERD__IPC__PEER_LINK__INIT;
    link.number = ++links->last_number;
    link.slot = worker_slot;
    result = send_end(children, SCOREBOARD_SLOT_EVENTD, &link, eventd_fd);
    if (result < 0) {
        *ret_slot = SCOREBOARD_SLOT_EVENTD;
        return result;
    }
    link.slot = SCOREBOARD_SLOT_EVENTD;
    result = send_end(children, worker_slot, &link, worker_fd);
    if (result < 0) {
        *ret_slot = worker_slot;
        return result;
    }
    links->numbers[worker_slot] = link.number;
    log_debug("peer link made worker=%u number=%llu", worker_slot, (unsigned long long)link.number);
    return 0;
}

static void link_or_kill(
    struct peer_links *links, struct child_table *children, uint32_t worker_slot, uint32_t slot)
{
    if (link_pair(links, children, worker_slot, &slot) == 0)
        return;
    log_warn("child killed slot=%u reason=\"it has no link to its peer\"", slot);
    child_table_kill(children, slot);
}

void peer_links_on_ready(struct peer_links *links, struct child_table *children, uint32_t slot)
{
    if (child_table_role(slot) == CHILD_WORKER) {
        if (child_table_state(children, SCOREBOARD_SLOT_EVENTD) == PROCESS_READY)
            link_or_kill(links, children, slot, slot);
        return;
    }
    for (uint32_t worker = SCOREBOARD_SLOT_EVENTD + 1; worker < SCOREBOARD_SLOTS; worker++)
        if (child_table_state(children, worker) == PROCESS_READY)
            link_or_kill(links, children, worker, slot);
}

void peer_links_on_request(
    struct peer_links *links, struct child_table *children, uint32_t slot, uint64_t number)
{
    bool is_overtaken = number < links->numbers[slot];
    if (is_overtaken || child_table_role(slot) != CHILD_WORKER ||
        child_table_state(children, slot) != PROCESS_READY ||
        child_table_state(children, SCOREBOARD_SLOT_EVENTD) != PROCESS_READY)
        return;
    uint32_t without_end = slot;
    if (link_pair(links, children, slot, &without_end) == 0)
        log_info("peer link made again worker=%u", slot);
}
