#include "worker/rpc/rpc_burst.h"

#include <assert.h>

#include "common/log.h"
#include "worker/rpc/rpc_call_life.h"
#include "worker/rpc/rpc_reader.h"

static struct rpc_call *shift(struct rpc_burst *burst)
{
    struct rpc_call *call = burst->first;
    burst->first = call->next;
    if (burst->first == NULL)
        burst->last = NULL;
    call->next = NULL;
    return call;
}

static void send_all(void *burst_pointer)
{
    struct rpc_burst *burst = burst_pointer;
    while (burst->first != NULL)
        rpc_call_send_answer(shift(burst), burst->bridge);
}

void rpc_burst_flush(struct rpc_burst *burst)
{
    if (burst->first == NULL)
        return;
    rpc_reader_begin_turn();
    if (burst->source != NULL)
        (void)sd_event_source_set_enabled(burst->source, SD_EVENT_OFF);
    if (burst->first == burst->last) { /* alone: the context would cost more than it saves */
        rpc_call_send_answer(shift(burst), NULL);
        return;
    }
    bool has_run = core_bridge_run_burst(burst->bridge, send_all, burst);
    assert(has_run);
}

static int on_turn_over(sd_event_source *source, void *userdata)
{
    (void)source;
    rpc_burst_flush(userdata);
    return 0;
}

bool rpc_burst_is_loop_thread(const struct rpc_burst *burst)
{
    return pthread_equal(pthread_self(), burst->thread) != 0;
}

static bool wait_for_company(struct rpc_burst *burst)
{
    if (burst->source == NULL || !rpc_burst_is_loop_thread(burst))
        return false;
    if (burst->first != NULL)
        return true;
    int error = sd_event_source_set_enabled(burst->source, SD_EVENT_ONESHOT);
    if (error < 0)
        log_error("burst cannot be armed error=%d", -error);
    return error >= 0;
}

void rpc_burst_add(struct rpc_burst *burst, struct rpc_call *call)
{
    if (!wait_for_company(burst)) {
        rpc_call_send_answer(call, NULL);
        return;
    }
    call->next = NULL;
    if (burst->last != NULL)
        burst->last->next = call;
    else
        burst->first = call;
    burst->last = call;
}

int rpc_burst_open(struct rpc_burst *burst, sd_event *event, const struct core_bridge *bridge)
{
    burst->bridge = bridge;
    burst->thread = pthread_self();
    if (!bridge->has_burst)
        return 0;
    int error = sd_event_add_defer(event, &burst->source, on_turn_over, burst);
    if (error >= 0)
        error = sd_event_source_set_enabled(burst->source, SD_EVENT_OFF);
    return error;
}

void rpc_burst_close(struct rpc_burst *burst)
{
    rpc_burst_flush(burst);
    burst->source = sd_event_source_disable_unref(burst->source);
}
