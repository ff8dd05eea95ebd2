#include "eventd/worker_peers.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/file_descriptor.h"
#include "common/log.h"
#include "common/scoreboard.h"

struct worker_peers {
    sd_event *event;
    const struct worker_peers_handlers *handlers;
    void *userdata;
    uint64_t last_serial;
    sd_event_source *reaper; /* owned: ends channels that could not take a frame */
    bool is_broken[SCOREBOARD_SLOTS];
    struct worker_peer slots[SCOREBOARD_SLOTS];
};

static void end_peer(struct worker_peer *peer)
{
    struct worker_peers *peers = peer->peers;
    peer->channel = ipc_channel_free(peer->channel);
    peer->is_available = false;
    peers->is_broken[peer->slot] = false;
    peers->handlers->on_gone(peer, peers->userdata);
    peer->serial = 0;
    peer->in_flight = 0;
}

static int on_frame(
    struct ipc_channel *channel, const Userd__Ipc__Frame *frame, int *fd, void *userdata)
{
    (void)channel;
    (void)fd;
    struct worker_peer *peer = userdata;
    struct worker_peers *peers = peer->peers;
    if (frame->body_case != USERD__IPC__FRAME__BODY_WORKER_STATE)
        return peers->handlers->on_frame(peer, frame, peers->userdata);
    bool was_available = peer->is_available;
    peer->is_available = frame->worker_state->is_database_available;
    if (peer->is_available && !was_available)
        peers->handlers->on_available(peer, peers->userdata);
    return 0;
}

static void on_closed(struct ipc_channel *channel, int error, void *userdata)
{
    (void)channel;
    struct worker_peer *peer = userdata;
    log_info("worker channel ended slot=%" PRIu32 " error=%d", peer->slot, error);
    end_peer(peer);
}

static const struct ipc_channel_handlers channel_handlers = {
    .on_frame = on_frame,
    .on_closed = on_closed,
};

void worker_peers_add(struct worker_peers *peers, uint32_t slot, int *fd)
{
    if (slot == SCOREBOARD_SLOT_EVENTD || slot >= SCOREBOARD_SLOTS) {
        log_error("worker channel refused slot=%" PRIu32, slot);
        fd_close(fd);
        return;
    }
    struct worker_peer *peer = &peers->slots[slot];
    if (peer->channel != NULL)
        end_peer(peer);
    if (*fd < 0) { /* the worker sees the end of the other end, and asks for another */
        log_warn("worker channel not opened slot=%" PRIu32
                 " reason=\"no descriptor is left for it\"",
            slot);
        return;
    }
    char name[32];
    (void)snprintf(name, sizeof(name), "worker-%" PRIu32, slot);
    int result =
        ipc_channel_new(peers->event, fd_take(fd), name, &channel_handlers, peer, &peer->channel);
    if (result < 0) {
        log_error("worker channel failed slot=%" PRIu32 " error=%d", slot, result);
        return;
    }
    peer->serial = ++peers->last_serial;
    peer->is_available = false;
    peer->in_flight = 0;
    log_debug("worker channel opened slot=%" PRIu32, slot);
}

struct worker_peer *worker_peers_pick(struct worker_peers *peers)
{
    struct worker_peer *best = NULL;
    for (size_t i = 0; i < SCOREBOARD_SLOTS; i++) {
        struct worker_peer *peer = &peers->slots[i];
        if (peer->channel == NULL || !peer->is_available || peers->is_broken[i])
            continue;
        if (best == NULL || peer->in_flight < best->in_flight)
            best = peer;
    }
    return best;
}

struct worker_peer *worker_peers_find(struct worker_peers *peers, uint64_t serial)
{
    for (size_t i = 0; i < SCOREBOARD_SLOTS; i++) {
        if (peers->slots[i].channel != NULL && peers->slots[i].serial == serial)
            return &peers->slots[i];
    }
    return NULL;
}

static int on_reap(sd_event_source *source, void *userdata)
{
    (void)source;
    struct worker_peers *peers = userdata;
    for (size_t i = 0; i < SCOREBOARD_SLOTS; i++) {
        if (peers->is_broken[i] && peers->slots[i].channel != NULL)
            end_peer(&peers->slots[i]);
    }
    return 0;
}

int worker_peers_send(struct worker_peer *peer, const Userd__Ipc__Frame *frame)
{
    struct worker_peers *peers = peer->peers;
    int result = ipc_channel_send(peer->channel, frame, -1);
    if (result < 0 && !peers->is_broken[peer->slot]) {
        log_warn("worker does not take frames slot=%" PRIu32 " error=%d: channel ended", peer->slot,
            result);
        peers->is_broken[peer->slot] = true;
        (void)sd_event_source_set_enabled(peers->reaper, SD_EVENT_ONESHOT);
    }
    return result;
}

struct worker_peers *worker_peers_free(struct worker_peers *peers)
{
    if (peers == NULL)
        return NULL;
    for (size_t i = 0; i < SCOREBOARD_SLOTS; i++)
        (void)ipc_channel_free(peers->slots[i].channel);
    (void)sd_event_source_disable_unref(peers->reaper);
    free(peers);
    return NULL;
}

int worker_peers_new(sd_event *event, const struct worker_peers_handlers *handlers, void *userdata,
    struct worker_peers **ret_peers)
{
    struct worker_peers *peers = calloc(1, sizeof(*peers));
    if (peers == NULL)
        return -ENOMEM;
    peers->event = event;
    peers->handlers = handlers;
    peers->userdata = userdata;
    for (uint32_t i = 0; i < SCOREBOARD_SLOTS; i++) {
        peers->slots[i].peers = peers;
        peers->slots[i].slot = i;
    }
    int result = sd_event_add_defer(event, &peers->reaper, on_reap, peers);
    if (result >= 0)
        result = sd_event_source_set_enabled(peers->reaper, SD_EVENT_OFF);
    if (result < 0) {
        (void)worker_peers_free(peers);
        return result;
    }
    *ret_peers = peers;
    return 0;
}
