#include "worker/events/event_peer.h"

#include <errno.h>
#include <stdlib.h>

#include "common/file_descriptor.h"
#include "common/ipc_channel.h"
#include "common/log.h"
#include "common/monotonic_clock.h"
#include "common/retry_delay.h"
#include "worker/events/event_channel.h"
#include "worker/events/event_intake.h"
#include "worker/events/outbox_relay.h"

#define STABLE_US         UINT64_C(10000000) /* a channel that held so long starts the delays anew */
#define TIMER_ACCURACY_US 10000
/* How long no events are asked for after the database has refused some for what it is. */
#define UNABLE_US        UINT64_C(15000000)
#define UNABLE_DOUBLINGS 2

struct event_peer {
    struct event_peer_options options;
    struct ipc_channel *channel; /* owned; NULL: no eventd */
    uint64_t serial;             /* of the channel */
    sd_event_source *reaper;     /* owned: ends a channel that did not take a frame */
    struct outbox_relay *relay;  /* owned */
    struct event_intake *intake; /* owned */
    sd_event_source *asker;      /* owned: armed while there is no channel */
    unsigned int asked;          /* since the last channel that held */
    uint64_t opened_at_us;
    bool is_available;      /* the database */
    bool is_unable;         /* to apply events, though the database is there */
    unsigned int unable;    /* times in a row */
    sd_event_source *trier; /* owned: armed while it is unable */
    bool is_draining;
};

uint64_t event_channel_serial(const struct event_peer *peer)
{
    return peer->channel == NULL || !ipc_channel_is_open(peer->channel) ? 0 : peer->serial;
}

size_t event_channel_queued_bytes(const struct event_peer *peer)
{
    return peer->channel == NULL ? 0 : ipc_channel_queued_bytes(peer->channel);
}

int event_channel_send(struct event_peer *peer, uint64_t serial, const Userd__Ipc__Frame *frame)
{
    if (peer->channel == NULL || serial != peer->serial)
        return -EPIPE;
    int result = ipc_channel_send(peer->channel, frame, -1);
    if (result < 0 && result != -EPIPE) {
        log_warn("eventd does not take frames error=%d: channel ended", result);
        (void)sd_event_source_set_enabled(peer->reaper, SD_EVENT_ONESHOT);
    }
    return result;
}

static void ask_later(struct event_peer *peer)
{
    if (peer->is_draining)
        return;
    uint64_t delay_us = (uint64_t)retry_delay_ms(peer->asked) * MONOTONIC_CLOCK_US_PER_MS;
    int result = sd_event_source_set_time_relative(peer->asker, delay_us);
    if (result >= 0)
        result = sd_event_source_set_enabled(peer->asker, SD_EVENT_ONESHOT);
    if (result < 0)
        log_error("timer failed where=event_peer error=%d", -result);
}

static int on_asker(sd_event_source *source, uint64_t time_us, void *userdata)
{
    (void)source;
    (void)time_us;
    struct event_peer *peer = userdata;
    peer->asked++;
    peer->options.ask_for_channel(peer->options.userdata);
    ask_later(peer);
    return 0;
}

static void end_channel(struct event_peer *peer)
{
    peer->channel = ipc_channel_free(peer->channel);
    if (monotonic_clock_us() - peer->opened_at_us >= STABLE_US)
        peer->asked = 0;
    ask_later(peer);
    outbox_relay_on_channel(peer->relay);
}

static int on_reap(sd_event_source *source, void *userdata)
{
    (void)source;
    struct event_peer *peer = userdata;
    if (peer->channel != NULL)
        end_channel(peer);
    return 0;
}

static int on_frame(
    struct ipc_channel *channel, const Userd__Ipc__Frame *frame, int *fd, void *userdata)
{
    (void)channel;
    (void)fd;
    struct event_peer *peer = userdata;
    switch ((int)frame->body_case) {
    case USERD__IPC__FRAME__BODY_PUBLISH_RESULT:
        outbox_relay_on_result(peer->relay, frame->publish_result);
        return 0;
    case USERD__IPC__FRAME__BODY_DELIVER_BATCH:
        return event_intake_on_batch(peer->intake, peer->serial, frame->deliver_batch);
    case USERD__IPC__FRAME__BODY_POSITION_REQUEST:
        return event_intake_on_positions(peer->intake, peer->serial, frame->position_request);
    default:
        log_error("eventd sent a frame that is none of its kind kind=%d", (int)frame->body_case);
        return -EPROTO;
    }
}

static void on_closed(struct ipc_channel *channel, int error, void *userdata)
{
    (void)channel;
    struct event_peer *peer = userdata;
    log_info("channel to eventd ended error=%d", error);
    end_channel(peer);
}

static const struct ipc_channel_handlers channel_handlers = {
    .on_frame = on_frame,
    .on_closed = on_closed,
};

static void send_state(struct event_peer *peer)
{
    Userd__Ipc__WorkerState state = USERD__IPC__WORKER_STATE__INIT;
    state.is_database_available = peer->is_available && !peer->is_unable && !peer->is_draining;
    Userd__Ipc__Frame frame = USERD__IPC__FRAME__INIT;
    frame.body_case = USERD__IPC__FRAME__BODY_WORKER_STATE;
    frame.worker_state = &state;
    if (peer->channel != NULL && event_channel_send(peer, peer->serial, &frame) < 0)
        log_debug("worker state is not sent: the channel has ended");
}

static int on_trier(sd_event_source *source, uint64_t time_us, void *userdata)
{
    (void)source;
    (void)time_us;
    struct event_peer *peer = userdata;
    peer->is_unable = false;
    send_state(peer);
    return 0;
}

void event_channel_set_unable(struct event_peer *peer)
{
    if (peer->is_unable)
        return;
    uint64_t pause_us =
        UNABLE_US << (peer->unable < UNABLE_DOUBLINGS ? peer->unable : UNABLE_DOUBLINGS);
    peer->unable++;
    int result = sd_event_source_set_time_relative(peer->trier, pause_us);
    if (result >= 0)
        result = sd_event_source_set_enabled(peer->trier, SD_EVENT_ONESHOT);
    if (result < 0) {
        log_error("timer failed where=event_peer error=%d", -result);
        return;
    }
    log_warn("database takes no events: trying again pause_s=%d", (int)(pause_us / 1000000));
    peer->is_unable = true;
    send_state(peer);
}

void event_channel_set_able(struct event_peer *peer)
{
    peer->unable = 0;
}

void event_peer_connect(struct event_peer *peer, int *fd)
{
    if (peer->channel != NULL)
        end_channel(peer);
    if (*fd < 0) {
        log_warn("channel to eventd not opened reason=\"no descriptor is left for it\"");
        return;
    }
    int result = ipc_channel_new(
        peer->options.event, fd_take(fd), "eventd", &channel_handlers, peer, &peer->channel);
    if (result < 0) {
        log_error("channel to eventd failed error=%d", result);
        return;
    }
    (void)sd_event_source_set_enabled(peer->asker, SD_EVENT_OFF);
    peer->opened_at_us = monotonic_clock_us();
    peer->serial++;
    send_state(peer);
    outbox_relay_on_channel(peer->relay);
}

void event_peer_set_available(struct event_peer *peer, bool is_available)
{
    if (peer->is_available == is_available)
        return;
    peer->is_available = is_available;
    send_state(peer);
}

void event_peer_drain(struct event_peer *peer)
{
    if (peer->is_draining)
        return;
    peer->is_draining = true;
    (void)sd_event_source_set_enabled(peer->asker, SD_EVENT_OFF);
    send_state(peer);
    outbox_relay_drain(peer->relay);
}

bool event_peer_is_idle(const struct event_peer *peer)
{
    return outbox_relay_is_idle(peer->relay) && event_intake_is_idle(peer->intake);
}

struct event_peer *event_peer_free(struct event_peer *peer)
{
    if (peer == NULL)
        return NULL;
    peer->channel = ipc_channel_free(peer->channel);
    peer->relay = outbox_relay_free(peer->relay);
    peer->intake = event_intake_free(peer->intake);
    (void)sd_event_source_disable_unref(peer->reaper);
    (void)sd_event_source_disable_unref(peer->asker);
    (void)sd_event_source_disable_unref(peer->trier);
    free(peer);
    return NULL;
}

int event_peer_new(const struct event_peer_options *options, struct event_peer **ret_peer)
{
    struct event_peer *peer = calloc(1, sizeof(*peer));
    if (peer == NULL)
        return -ENOMEM;
    peer->options = *options;
    int result = sd_event_add_defer(options->event, &peer->reaper, on_reap, peer);
    if (result >= 0)
        result = sd_event_source_set_enabled(peer->reaper, SD_EVENT_OFF);
    if (result >= 0)
        result = sd_event_add_time_relative(options->event, &peer->asker, CLOCK_MONOTONIC,
            (uint64_t)RETRY_DELAY_MAX_MS * MONOTONIC_CLOCK_US_PER_MS, TIMER_ACCURACY_US, on_asker,
            peer);
    if (result >= 0)
        result = sd_event_add_time_relative(options->event, &peer->trier, CLOCK_MONOTONIC,
            UNABLE_US, TIMER_ACCURACY_US, on_trier, peer);
    if (result >= 0)
        result = sd_event_source_set_enabled(peer->trier, SD_EVENT_OFF);
    if (result >= 0)
        result = event_intake_new(&peer->options, peer, &peer->intake);
    if (result >= 0)
        result = outbox_relay_new(&peer->options, peer, &peer->relay);
    if (result < 0) {
        (void)event_peer_free(peer);
        return result;
    }
    *ret_peer = peer;
    return 0;
}
