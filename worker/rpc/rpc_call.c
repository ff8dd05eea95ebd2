#include "worker/rpc/rpc_call.h"

#include <assert.h>
#include <grpc/byte_buffer.h>
#include <grpc/slice.h>
#include <grpc/slice_buffer.h>
#include <grpc/support/time.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/monotonic_clock.h"
#include "common/trace_context.h"
#include "worker/rpc/rpc_allowance.h"
#include "worker/rpc/rpc_call_life.h"
#include "worker/rpc/rpc_message.h"
#include "worker/rpc/rpc_meter.h"
#include "worker/rpc/rpc_method.h"

/* Free objects that are kept; above that they are given back to malloc. */
#define FREE_CALLS_MAX 1024

/* A decoded message may take this many times the limit of its bytes (rpc_arena_init): packed
 * one-byte numbers, the densest thing that we accept, become four bytes each. */
#define DECODE_GROWTH      4
#define DECODE_EXTRA_BYTES ((size_t)1024 * 1024)

/* A client that gives a call less time than this does not want its answer. */
#define PATIENCE_US 20000

/* The hint of gRPC's retry design (A6): not before so many milliseconds. */
#define RETRY_PUSHBACK_MS "200"

/* ---- what handlers use ---- */

void *rpc_call_allocate(struct rpc_call *call, size_t size)
{
    void *memory = rpc_arena_allocate(&call->arena, size);
    memset(memory, 0, size);
    return memory;
}

ProtobufCAllocator *rpc_call_allocator(struct rpc_call *call)
{
    return &call->arena.allocator;
}

int64_t rpc_call_deadline_us(const struct rpc_call *call)
{
    return call->deadline_us;
}

const atomic_bool *rpc_call_is_cancelled(const struct rpc_call *call)
{
    return &call->is_cancelled;
}

uint32_t rpc_call_source(const struct rpc_call *call)
{
    return call->peer->number;
}

const char *rpc_call_traceparent(struct rpc_call *call)
{
    const grpc_slice *found = NULL;
    for (size_t i = 0; i < call->metadata.count; i++) {
        if (grpc_slice_str_cmp(call->metadata.metadata[i].key, TRACE_CONTEXT_NAME) != 0)
            continue;
        if (found != NULL)
            return NULL; /* two say that one of them lies */
        found = &call->metadata.metadata[i].value;
    }
    if (found == NULL)
        return NULL;
    char *traceparent = rpc_call_allocate(call, TRACE_CONTEXT_SIZE);
    bool is_valid = trace_context_read(
        (const char *)GRPC_SLICE_START_PTR(*found), GRPC_SLICE_LENGTH(*found), traceparent);
    return is_valid ? traceparent : NULL;
}

/* ---- the pool ---- */

static void free_call(struct rpc_call *call)
{
    rpc_arena_reset(&call->arena);
    grpc_slice_buffer_destroy(&call->reply.data.raw.slice_buffer);
    grpc_metadata_array_destroy(&call->metadata);
    free(call);
}

void rpc_call_pool_init(struct rpc_call_pool *pool, grpc_completion_queue *queue,
    const struct core_bridge *bridge, struct scoreboard_slot *slot, const struct settings *settings)
{
    *pool = (struct rpc_call_pool){
        .queue = queue,
        .bridge = bridge,
        .slot = slot,
        .message_limit_bytes = (size_t)settings->limits.message_bytes,
    };
    rpc_peer_set_init(&pool->peers, settings);
}

size_t rpc_call_pool_in_progress(const struct rpc_call_pool *pool)
{
    const struct rpc_peer_use *use = &pool->peers.use;
    return rpc_peer_use_waiting(use) + rpc_peer_use_unsent(use);
}

void rpc_call_pool_count_late(struct rpc_call_pool *pool)
{
    atomic_store_explicit(&pool->is_late, true, memory_order_relaxed);
}

size_t rpc_call_pool_late(const struct rpc_call_pool *pool)
{
    return atomic_load_explicit(&pool->late, memory_order_relaxed);
}

void rpc_call_pool_cleanup(struct rpc_call_pool *pool)
{
    assert(rpc_call_pool_in_progress(pool) == 0);
    while (pool->free_calls != NULL) {
        struct rpc_call *next = pool->free_calls->next;
        free_call(pool->free_calls);
        pool->free_calls = next;
    }
    pool->free_count = 0;
    rpc_peer_set_cleanup(&pool->peers);
}

void rpc_call_give_back(struct rpc_call *call)
{
    struct rpc_call_pool *pool = call->pool;
    if (pool->free_count >= FREE_CALLS_MAX) {
        free_call(call);
        return;
    }
    call->next = pool->free_calls;
    pool->free_calls = call;
    pool->free_count++;
}

/* ---- the end of a call ---- */

/* Of a call that ended at this time, or is still there. */
static bool has_expired(const struct rpc_call *call, uint64_t now_us)
{
    return rpc_deadline_has_passed(call->deadline_us, (int64_t)call->begun_us, (int64_t)now_us);
}

/* A tag has come back. */
static void release_call(struct rpc_call *call)
{
    assert(call->outstanding > 0);
    if (--call->outstanding > 0)
        return;
    rpc_meter_add(call->method->row, call->status, call->answered_us - call->begun_us);
    if (call->is_late)
        atomic_fetch_sub_explicit(&call->pool->late, 1, memory_order_relaxed);
    /* A deadline that has passed is a cancellation too, but no ill will; that of a call which
     * waited here for a while has passed because we are slow. */
    uint64_t now_us = call->was_cancelled == 0 ? 0 : monotonic_clock_us();
    bool is_expired = has_expired(call, now_us);
    if (call->was_cancelled == 0 || (is_expired && now_us - call->begun_us > PATIENCE_US))
        rpc_peer_add_served(call->peer);
    else if (!is_expired)
        rpc_peer_add_cancelled(call->peer);
    rpc_peer_add_finished(call->peer, call->reply_bytes);
    rpc_peer_release(call->peer);
    call->peer = NULL;
    grpc_slice_buffer_reset_and_unref(&call->reply.data.raw.slice_buffer);
    grpc_byte_buffer_destroy(call->payload);
    call->payload = NULL;
    /* The C core gives the next call an array of its own: this one would only be kept, at the size
     * that a hostile header gave it. */
    grpc_metadata_array_destroy(&call->metadata);
    grpc_metadata_array_init(&call->metadata);
    grpc_call_unref(call->core);
    call->core = NULL;
    rpc_call_give_back(call);
}

static void on_closed(struct rpc_tag *tag, bool is_ok)
{
    struct rpc_call *call = CONTAINER_OF(tag, struct rpc_call, closed);
    (void)is_ok;
    if (call->was_cancelled != 0)
        atomic_store_explicit(&call->is_cancelled, true, memory_order_relaxed);
    release_call(call);
}

static void on_finished(struct rpc_tag *tag, bool is_ok)
{
    (void)is_ok; /* the client may be gone: nothing more to do for it */
    release_call(CONTAINER_OF(tag, struct rpc_call, finished));
}

/* ---- the answer ---- */

static void count(_Atomic uint64_t *counter)
{
    /* The rpc thread and the loop thread both answer. */
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* Each call is counted in one place, so that the sum is the calls that were answered. */
static void count_answer(const struct rpc_call *call, grpc_status_code status)
{
    struct scoreboard_slot *slot = call->pool->slot;
    if (status == GRPC_STATUS_OK)
        count(&slot->calls_ok);
    else if (status == GRPC_STATUS_NOT_FOUND)
        count(&slot->calls_not_found);
    else if (call->is_conflict)
        count(&slot->calls_conflicted);
    else if (status == GRPC_STATUS_RESOURCE_EXHAUSTED)
        count(&slot->calls_refused);
    else if (status == GRPC_STATUS_DEADLINE_EXCEEDED)
        count(&slot->calls_expired);
    else if (status == GRPC_STATUS_CANCELLED)
        count(has_expired(call, monotonic_clock_us()) ? &slot->calls_expired
                                                      : &slot->calls_cancelled);
    else
        count(&slot->calls_failed);
}

size_t rpc_call_put_trailer(grpc_status_code status, grpc_metadata *ret_trailer)
{
    const char *key = NULL;
    const char *value = NULL;
    if (status == GRPC_STATUS_RESOURCE_EXHAUSTED || status == GRPC_STATUS_UNAVAILABLE) {
        key = "grpc-retry-pushback-ms";
        value = RETRY_PUSHBACK_MS;
    } else if (status == GRPC_STATUS_UNIMPLEMENTED) {
        /* The gRPC compression document wants it when an algorithm is not supported. */
        key = "grpc-accept-encoding";
        value = "identity, deflate, gzip";
    }
    if (key == NULL)
        return 0;
    ret_trailer->key = grpc_slice_from_static_string(key);
    ret_trailer->value = grpc_slice_from_static_string(value);
    return 1;
}

static size_t put_close(struct rpc_call *call, grpc_op *operation)
{
    operation->op = GRPC_OP_RECV_CLOSE_ON_SERVER;
    operation->data.recv_close_on_server.cancelled = &call->was_cancelled;
    return 1;
}

void rpc_call_watch(struct rpc_call *call)
{
    if (call->is_watched)
        return;
    call->is_watched = true;
    call->outstanding++;
    grpc_op operation;
    memset(&operation, 0, sizeof(operation));
    size_t count = put_close(call, &operation);
    grpc_call_error error =
        grpc_call_start_batch(call->core, &operation, count, &call->closed, NULL);
    assert(error == GRPC_CALL_OK);
}

/* One batch for everything that is left to say. */
void rpc_call_send_answer(struct rpc_call *call, const struct core_bridge *bridge)
{
    grpc_slice details = call->details;
    grpc_op operations[4];
    memset(operations, 0, sizeof(operations));
    size_t count = 0;
    operations[count++].op = GRPC_OP_SEND_INITIAL_METADATA;
    if (call->has_reply) {
        operations[count].op = GRPC_OP_SEND_MESSAGE;
        operations[count++].data.send_message.send_message = &call->reply;
    }
    grpc_op *last = &operations[count++];
    last->op = GRPC_OP_SEND_STATUS_FROM_SERVER;
    last->data.send_status_from_server.status = call->status;
    last->data.send_status_from_server.status_details =
        GRPC_SLICE_IS_EMPTY(details) ? NULL : &details;
    last->data.send_status_from_server.trailing_metadata_count =
        rpc_call_put_trailer(call->status, &call->trailer);
    last->data.send_status_from_server.trailing_metadata = &call->trailer;
    if (!call->is_watched)
        count += put_close(call, &operations[count]);
    /* From here on the object may be recycled at any moment. */
    grpc_call_error error =
        bridge == NULL
            ? grpc_call_start_batch(call->core, operations, count, &call->finished, NULL)
            : core_bridge_start_batch(bridge, call->core, operations, count, &call->finished);
    assert(error == GRPC_CALL_OK);
    grpc_slice_unref(details);
}

/* `reply` is taken, NULL: none. */
static void finish_call(
    struct rpc_call *call, grpc_status_code status, const char *message, const grpc_slice *reply)
{
    bool is_second_answer =
        atomic_flag_test_and_set_explicit(&call->is_answered, memory_order_relaxed);
    assert(!is_second_answer);
    call->reply_bytes = reply == NULL ? 0 : GRPC_SLICE_LENGTH(*reply);
    if (reply != NULL && !rpc_peer_has_room(call->peer, call->reply_bytes)) {
        grpc_slice_unref(*reply);
        reply = NULL;
        call->reply_bytes = 0;
        status = GRPC_STATUS_RESOURCE_EXHAUSTED;
        message = "too many answers of this connection are not read";
    }
    count_answer(call, status);
    rpc_peer_add_answered(call->peer, rpc_burst_is_loop_thread(&call->pool->burst),
        call->request_bytes, call->reply_bytes);
    call->status = status;
    call->answered_us = monotonic_clock_us();
    call->details = message == NULL ? grpc_empty_slice() : grpc_slice_from_copied_string(message);
    call->has_reply = reply != NULL;
    if (reply != NULL)
        grpc_slice_buffer_add(&call->reply.data.raw.slice_buffer, *reply);
    /* The answer may wait for its reader for long: all but its bytes goes now. */
    rpc_arena_reset(&call->arena);
    rpc_burst_add(&call->pool->burst, call);
}

void rpc_call_fail(struct rpc_call *call, grpc_status_code status, const char *message)
{
    assert(status != GRPC_STATUS_OK);
    finish_call(call, status, message, NULL);
}

void rpc_call_conflict(struct rpc_call *call, grpc_status_code status, const char *message)
{
    call->is_conflict = true;
    rpc_call_fail(call, status, message);
}

void rpc_call_answer(const ProtobufCMessage *message, void *call_pointer)
{
    struct rpc_call *call = call_pointer;
    if (message == NULL) {
        finish_call(call, GRPC_STATUS_INTERNAL, "internal error", NULL);
        return;
    }
    grpc_slice reply = rpc_message_encode(message);
    finish_call(call, GRPC_STATUS_OK, NULL, &reply);
}

/* ---- the beginning of a call ---- */

struct rpc_call *rpc_call_take(struct rpc_call_pool *pool)
{
    struct rpc_call *call = pool->free_calls;
    if (call != NULL) {
        pool->free_calls = call->next;
        pool->free_count--;
        return call;
    }
    call = aligned_alloc(_Alignof(struct rpc_call), sizeof(*call));
    if (call == NULL) {
        log_error("out of memory where=rpc_call");
        abort();
    }
    *call = (struct rpc_call){
        .closed = {.on_event = on_closed},
        .finished = {.on_event = on_finished},
        .pool = pool,
        .reply = {.type = GRPC_BB_RAW},
    };
    call->reply.data.raw.compression = GRPC_COMPRESS_NONE;
    grpc_slice_buffer_init(&call->reply.data.raw.slice_buffer);
    grpc_metadata_array_init(&call->metadata);
    rpc_arena_init(&call->arena, pool->message_limit_bytes * DECODE_GROWTH + DECODE_EXTRA_BYTES);
    return call;
}

static int64_t deadline_to_us(gpr_timespec deadline)
{
    /* The C core hands deadlines out on its monotonic clock, which is CLOCK_MONOTONIC. */
    gpr_timespec monotonic = gpr_convert_clock_type(deadline, GPR_CLOCK_MONOTONIC);
    if (monotonic.tv_sec >= INT64_MAX / 1000000)
        return INT64_MAX;
    return monotonic.tv_sec * 1000000 + monotonic.tv_nsec / 1000;
}

void rpc_call_begin(struct rpc_call *call, uint32_t listener)
{
    call->peer = rpc_peer_of_call(&call->pool->peers, listener, call->core);
    call->request_bytes = 0;
    call->is_conflict = false;
    rpc_peer_add_arrived(call->peer);
    scoreboard_add(&call->pool->slot->calls_started, 1);
    call->begun_us = monotonic_clock_us();
    call->deadline_us = deadline_to_us(call->deadline);
    atomic_store_explicit(&call->is_cancelled, false, memory_order_relaxed);
    atomic_flag_clear_explicit(&call->is_answered, memory_order_relaxed);
    call->was_cancelled = 0;
    call->is_late = atomic_load_explicit(&call->pool->is_late, memory_order_relaxed);
    if (call->is_late)
        atomic_fetch_add_explicit(&call->pool->late, 1, memory_order_relaxed);
    call->is_watched = false;
    call->outstanding = 1;
}
