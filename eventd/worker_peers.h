/* The channels to the workers: who is there, who can reach the database, who has the least to do.
 *
 * Owns the channels. A worker is known by the serial of its channel: slots are used again, serials
 * never. A channel that has ended is for the worker to ask for again: it sees each end, for
 * whatever reason.
 */
#ifndef USERD_EVENTD_WORKER_PEERS_H
#define USERD_EVENTD_WORKER_PEERS_H

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/attributes.h"
#include "common/ipc_channel.h"

struct worker_peers;

struct worker_peer {
    uint64_t serial;
    uint32_t slot;
    bool is_available;      /* it says that it can reach the database */
    unsigned int in_flight; /* batches that it works on; kept by those who send them */
    /* private */
    struct ipc_channel *channel; /* owned; NULL: nobody in this slot */
    struct worker_peers *peers;
};

struct worker_peers_handlers {
    /* Any frame but WorkerState. Negative errno ends the channel. */
    int (*on_frame)(struct worker_peer *peer, const Userd__Ipc__Frame *frame, void *userdata);
    void (*on_available)(struct worker_peer *peer, void *userdata);
    /* Everything that was in flight on it is unanswered for ever. The peer must not be used after
     * this. */
    void (*on_gone)(struct worker_peer *peer, void *userdata);
};

MUST_CHECK int worker_peers_new(sd_event *event, const struct worker_peers_handlers *handlers,
    void *userdata, struct worker_peers **ret_peers);
struct worker_peers *worker_peers_free(struct worker_peers *peers);

/* Takes *fd: the channel to the worker in `slot`, in the place of an earlier one. Negative: there
 * was no descriptor left for it. */
void worker_peers_add(struct worker_peers *peers, uint32_t slot, int *fd);
/* The available worker with the least in flight; NULL: none. */
struct worker_peer *worker_peers_pick(struct worker_peers *peers);
/* NULL when that channel has ended. */
struct worker_peer *worker_peers_find(struct worker_peers *peers, uint64_t serial);
/* 0 or negative errno; a channel that cannot take a frame is ended, and on_gone comes on a later
 * turn of the loop. */
MUST_CHECK int worker_peers_send(struct worker_peer *peer, const Userd__Ipc__Frame *frame);

#endif
