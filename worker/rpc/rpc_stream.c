#include "worker/rpc/rpc_stream.h"

#include <assert.h>
#include <errno.h>
#include <grpc/byte_buffer.h>
#include <grpc/slice.h>
#include <grpc/support/time.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "worker/rpc/rpc_message.h"
#include "worker/rpc/rpc_tag.h"

/* Open streams of a worker, of which a connection may have as many as are free; more are answered
 * RESOURCE_EXHAUSTED. Nobody needs many: a client has one Watch open. */
#define STREAMS_MAX 1024

/* A stream's request names a service, a file or a symbol: no honest one comes near this. It is
 * held, and echoed by reflection, for as long as the answer is not read. */
#define REQUEST_LIMIT_BYTES ((size_t)8 * 1024)
#define DECODE_LIMIT_BYTES  ((size_t)64 * 1024)

/* What an open stream takes besides its messages: its object here, the C core's call and the header
 * fields that came with it. Counts in limits.held_megabytes. */
#define STREAM_BYTES ((size_t)12 * 1024)

struct rpc_stream {
    struct rpc_tag requested;
    struct rpc_tag closed;
    struct rpc_tag was_read;
    struct rpc_tag sent;
    struct rpc_tag finished;
    struct rpc_tag woken;
    struct rpc_stream_method *method;
    struct rpc_peer *peer;       /* a reference, once the stream has arrived */
    struct rpc_stream *previous; /* guarded */
    struct rpc_stream *next;     /* guarded */
    bool is_waking;              /* guarded: the woken tag is on its way */
    unsigned int references;     /* guarded: one for each tag that is to come back */
    /* filled in by the C core */
    grpc_call *core;
    gpr_timespec deadline;
    grpc_metadata_array metadata;
    grpc_byte_buffer *payload;
    int was_cancelled;
    /* rpc thread */
    bool has_sent_metadata;
    bool is_sending;
    bool has_end;         /* rpc_stream_finish() was called: `end_...` say how */
    bool is_gone;         /* the end is sent, or the client is gone: nothing more can be started */
    size_t request_bytes; /* counted as held: of the request that was read last, */
    size_t sending_bytes; /* and of the message that is being sent */
    grpc_status_code end_status;
    const char *end_message;
    grpc_metadata trailer;
    struct rpc_message_refusal refusal; /* of a request */
    _Alignas(max_align_t) unsigned char state[RPC_STREAM_STATE_BYTES];
    struct rpc_arena arena;
};

/* Declared ahead: a stream that arrives asks for the next one. */
static void request_stream(struct rpc_stream_method *method);

/* ---- life ---- */

static void free_stream(struct rpc_stream *stream)
{
    rpc_arena_reset(&stream->arena);
    grpc_byte_buffer_destroy(stream->payload);
    grpc_metadata_array_destroy(&stream->metadata);
    if (stream->core != NULL)
        grpc_call_unref(stream->core);
    free(stream);
}

/* Returns how many are open. No locked instruction: the rpc thread alone writes it. */
static unsigned int count_stream(struct rpc_peer *peer, int change)
{
    unsigned int count =
        atomic_load_explicit(&peer->streams, memory_order_relaxed) + (unsigned int)change;
    atomic_store_explicit(&peer->streams, count, memory_order_relaxed);
    return count;
}

/* Replaces what is counted as held. */
static void count_bytes(struct rpc_stream *stream, size_t *counted, size_t bytes)
{
    rpc_peer_remove_held(stream->peer, *counted);
    rpc_peer_add_held(stream->peer, bytes);
    *counted = bytes;
}

static void add_reference(struct rpc_stream *stream)
{
    struct rpc_stream_set *set = stream->method->set;
    (void)pthread_mutex_lock(&set->lock);
    stream->references++;
    (void)pthread_mutex_unlock(&set->lock);
}

/* A tag has come back: the last one frees. */
static void release_stream(struct rpc_stream *stream)
{
    struct rpc_stream_set *set = stream->method->set;
    (void)pthread_mutex_lock(&set->lock);
    bool is_last = --stream->references == 0;
    if (is_last) {
        if (stream->previous != NULL)
            stream->previous->next = stream->next;
        else
            set->first = stream->next;
        if (stream->next != NULL)
            stream->next->previous = stream->previous;
    }
    (void)pthread_mutex_unlock(&set->lock);
    if (is_last) {
        set->open_count--;
        count_stream(stream->peer, -1);
        count_bytes(stream, &stream->request_bytes, 0);
        count_bytes(stream, &stream->sending_bytes, 0);
        rpc_peer_remove_held(stream->peer, STREAM_BYTES);
        rpc_peer_release(stream->peer);
        free_stream(stream);
    }
}

static void start_batch(
    struct rpc_stream *stream, const grpc_op *operations, size_t count, struct rpc_tag *tag)
{
    add_reference(stream);
    grpc_call_error error = grpc_call_start_batch(stream->core, operations, count, tag, NULL);
    assert(error == GRPC_CALL_OK);
}

/* ---- what handlers use ---- */

void *rpc_stream_userdata(const struct rpc_stream *stream)
{
    return stream->method->userdata;
}

void *rpc_stream_state(struct rpc_stream *stream)
{
    return stream->state;
}

bool rpc_stream_is_sending(const struct rpc_stream *stream)
{
    return stream->is_sending;
}

bool rpc_stream_is_finished(const struct rpc_stream *stream)
{
    return stream->has_end || stream->is_gone;
}

void rpc_stream_forget_request(struct rpc_stream *stream)
{
    rpc_arena_reset(&stream->arena);
    count_bytes(stream, &stream->request_bytes, 0);
}

void rpc_stream_read(struct rpc_stream *stream)
{
    if (rpc_stream_is_finished(stream))
        return;
    rpc_stream_forget_request(stream);
    grpc_op operation;
    memset(&operation, 0, sizeof(operation));
    operation.op = GRPC_OP_RECV_MESSAGE;
    operation.data.recv_message.recv_message = &stream->payload;
    start_batch(stream, &operation, 1, &stream->was_read);
}

/* The first thing that is sent begins with the initial metadata. */
static size_t put_metadata(struct rpc_stream *stream, grpc_op *operations)
{
    if (stream->has_sent_metadata)
        return 0;
    stream->has_sent_metadata = true;
    operations[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    return 1;
}

static void send_end(struct rpc_stream *stream)
{
    if (stream->is_gone || stream->is_sending)
        return;
    stream->is_gone = true;
    grpc_slice details = stream->end_message == NULL
                             ? grpc_empty_slice()
                             : grpc_slice_from_copied_string(stream->end_message);
    grpc_op operations[2];
    memset(operations, 0, sizeof(operations));
    size_t count = put_metadata(stream, operations);
    grpc_op *last = &operations[count++];
    last->op = GRPC_OP_SEND_STATUS_FROM_SERVER;
    last->data.send_status_from_server.status = stream->end_status;
    last->data.send_status_from_server.status_details =
        stream->end_message == NULL ? NULL : &details;
    last->data.send_status_from_server.trailing_metadata_count =
        rpc_call_put_trailer(stream->end_status, &stream->trailer);
    last->data.send_status_from_server.trailing_metadata = &stream->trailer;
    start_batch(stream, operations, count, &stream->finished);
    grpc_slice_unref(details);
}

void rpc_stream_finish(struct rpc_stream *stream, grpc_status_code status, const char *message)
{
    if (rpc_stream_is_finished(stream))
        return;
    stream->has_end = true;
    stream->end_status = status;
    stream->end_message = message;
    send_end(stream);
}

void rpc_stream_send(struct rpc_stream *stream, const ProtobufCMessage *message)
{
    assert(!stream->is_sending);
    if (rpc_stream_is_finished(stream))
        return;
    size_t size = protobuf_c_message_get_packed_size(message);
    if (!rpc_peer_has_room(stream->peer, size)) {
        rpc_stream_finish(stream, GRPC_STATUS_RESOURCE_EXHAUSTED,
            "too many answers of this connection are not read");
        return;
    }
    grpc_slice slice = rpc_message_encode(message);
    grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);

    grpc_op operations[2];
    memset(operations, 0, sizeof(operations));
    size_t count = put_metadata(stream, operations);
    operations[count].op = GRPC_OP_SEND_MESSAGE;
    operations[count++].data.send_message.send_message = buffer;
    stream->is_sending = true;
    count_bytes(stream, &stream->sending_bytes, size);
    start_batch(stream, operations, count, &stream->sent);
    grpc_byte_buffer_destroy(buffer); /* its slices are the C core's now */
}

/* ---- what the C core says ---- */

static bool has_expired(const struct rpc_stream *stream)
{
    gpr_timespec deadline = gpr_convert_clock_type(stream->deadline, GPR_CLOCK_MONOTONIC);
    return gpr_time_cmp(deadline, gpr_now(GPR_CLOCK_MONOTONIC)) <= 0;
}

static void on_closed(struct rpc_tag *tag, bool is_ok)
{
    struct rpc_stream *stream = CONTAINER_OF(tag, struct rpc_stream, closed);
    (void)is_ok;
    stream->is_gone = true;
    if (stream->was_cancelled == 0)
        rpc_peer_add_served(stream->peer);
    else if (!has_expired(stream))
        rpc_peer_add_cancelled(stream->peer);
    release_stream(stream);
}

static void on_finished(struct rpc_tag *tag, bool is_ok)
{
    (void)is_ok;
    release_stream(CONTAINER_OF(tag, struct rpc_stream, finished));
}

static void on_sent(struct rpc_tag *tag, bool is_ok)
{
    struct rpc_stream *stream = CONTAINER_OF(tag, struct rpc_stream, sent);
    stream->is_sending = false;
    count_bytes(stream, &stream->sending_bytes, 0);
    if (stream->has_end)
        send_end(stream);
    else if (is_ok && !stream->is_gone)
        stream->method->on_sent(stream);
    release_stream(stream);
}

static void take_message(struct rpc_stream *stream)
{
    const struct rpc_stream_method *method = stream->method;
    const struct rpc_call_pool *pool = method->set->pool;
    core_bridge_mark_compression(pool->bridge, stream->core, stream->payload);
    size_t limit_bytes = pool->message_limit_bytes < REQUEST_LIMIT_BYTES ? pool->message_limit_bytes
                                                                         : REQUEST_LIMIT_BYTES;
    const ProtobufCMessage *message = rpc_message_decode(
        method->input, stream->payload, limit_bytes, &stream->arena, &stream->refusal);
    grpc_byte_buffer_destroy(stream->payload);
    stream->payload = NULL;
    if (message == NULL) {
        rpc_stream_forget_request(stream);
        rpc_stream_finish(stream, stream->refusal.status, stream->refusal.text);
        return;
    }
    count_bytes(stream, &stream->request_bytes, stream->arena.used_bytes);
    method->on_message(stream, message);
}

static void on_read(struct rpc_tag *tag, bool is_ok)
{
    struct rpc_stream *stream = CONTAINER_OF(tag, struct rpc_stream, was_read);
    if (!rpc_stream_is_finished(stream)) {
        if (is_ok && stream->payload != NULL)
            take_message(stream);
        else if (grpc_call_failed_before_recv_message(stream->core) != 0)
            rpc_stream_finish(stream, GRPC_STATUS_CANCELLED, "request was cut off");
        else
            stream->method->on_half_closed(stream);
    }
    release_stream(stream);
}

static void on_woken(struct rpc_tag *tag, bool is_ok)
{
    struct rpc_stream *stream = CONTAINER_OF(tag, struct rpc_stream, woken);
    struct rpc_stream_set *set = stream->method->set;
    (void)is_ok;
    (void)pthread_mutex_lock(&set->lock);
    stream->is_waking = false;
    (void)pthread_mutex_unlock(&set->lock);
    if (atomic_load_explicit(&set->is_draining, memory_order_acquire))
        rpc_stream_finish(stream, GRPC_STATUS_UNAVAILABLE, "server is shutting down");
    else if (stream->method->on_wake != NULL && !rpc_stream_is_finished(stream))
        stream->method->on_wake(stream);
    release_stream(stream);
}

static void open_stream(struct rpc_stream *stream)
{
    struct rpc_stream_set *set = stream->method->set;
    stream->peer =
        rpc_peer_of_call(&set->pool->peers, stream->method->place.listener, stream->core);
    (void)pthread_mutex_lock(&set->lock);
    stream->next = set->first;
    if (set->first != NULL)
        set->first->previous = stream;
    set->first = stream;
    (void)pthread_mutex_unlock(&set->lock);
    set->open_count++;
    count_stream(stream->peer, 1);
    bool has_room = rpc_peer_has_room(stream->peer, STREAM_BYTES);
    rpc_peer_add_held(stream->peer, STREAM_BYTES);

    grpc_op operation;
    memset(&operation, 0, sizeof(operation));
    operation.op = GRPC_OP_RECV_CLOSE_ON_SERVER;
    operation.data.recv_close_on_server.cancelled = &stream->was_cancelled;
    start_batch(stream, &operation, 1, &stream->closed);
    if (set->open_count + count_stream(stream->peer, 0) > STREAMS_MAX)
        rpc_stream_finish(stream, GRPC_STATUS_RESOURCE_EXHAUSTED, "too many streams");
    else if (!has_room)
        rpc_stream_finish(stream, GRPC_STATUS_RESOURCE_EXHAUSTED,
            "too many bytes of this connection in progress");
    else if (atomic_load_explicit(&set->is_draining, memory_order_acquire))
        rpc_stream_finish(stream, GRPC_STATUS_UNAVAILABLE, "server is shutting down");
    else
        rpc_stream_read(stream);
}

static void on_requested(struct rpc_tag *tag, bool is_ok)
{
    struct rpc_stream *stream = CONTAINER_OF(tag, struct rpc_stream, requested);
    if (!is_ok) { /* the server is shutting down */
        free_stream(stream);
        return;
    }
    request_stream(stream->method);
    open_stream(stream);
}

static void request_stream(struct rpc_stream_method *method)
{
    struct rpc_stream *stream = aligned_alloc(_Alignof(struct rpc_stream), sizeof(*stream));
    if (stream == NULL) {
        log_error("out of memory where=rpc_stream");
        abort();
    }
    *stream = (struct rpc_stream){
        .requested = {.on_event = on_requested},
        .closed = {.on_event = on_closed},
        .was_read = {.on_event = on_read},
        .sent = {.on_event = on_sent},
        .finished = {.on_event = on_finished},
        .woken = {.on_event = on_woken},
        .method = method,
    };
    grpc_metadata_array_init(&stream->metadata);
    rpc_arena_init(&stream->arena, DECODE_LIMIT_BYTES);
    grpc_completion_queue *queue = method->set->pool->queue;
    grpc_call_error error =
        grpc_server_request_registered_call(method->place.server, method->registered, &stream->core,
            &stream->deadline, &stream->metadata, NULL, queue, queue, &stream->requested);
    assert(error == GRPC_CALL_OK);
}

/* ---- the set ---- */

void rpc_stream_set_init(struct rpc_stream_set *set, struct rpc_call_pool *pool)
{
    *set = (struct rpc_stream_set){.pool = pool};
    (void)pthread_mutex_init(&set->lock, NULL);
}

void rpc_stream_set_cleanup(struct rpc_stream_set *set)
{
    assert(set->first == NULL);
    (void)pthread_mutex_destroy(&set->lock);
}

void rpc_stream_set_wake(struct rpc_stream_set *set)
{
    (void)pthread_mutex_lock(&set->lock);
    for (struct rpc_stream *stream = set->first; stream != NULL; stream = stream->next) {
        /* No reference left to come back: it is about to be freed; none at all yet: it will look
         * for itself. */
        if (stream->is_waking || stream->references == 0)
            continue;
        stream->is_waking = true;
        stream->references++;
        /* An empty batch does nothing but send its tag to the rpc thread. */
        grpc_call_error error = grpc_call_start_batch(stream->core, NULL, 0, &stream->woken, NULL);
        assert(error == GRPC_CALL_OK);
    }
    (void)pthread_mutex_unlock(&set->lock);
}

void rpc_stream_set_drain(struct rpc_stream_set *set)
{
    atomic_store_explicit(&set->is_draining, true, memory_order_release);
    rpc_stream_set_wake(set);
}

int rpc_stream_method_register(struct rpc_stream_method *method, struct rpc_stream_set *set,
    const struct rpc_method_place *place)
{
    method->set = set;
    method->place = *place;
    method->registered =
        grpc_server_register_method(place->server, method->path, NULL, GRPC_SRM_PAYLOAD_NONE, 0);
    return method->registered == NULL ? -EEXIST : 0;
}

void rpc_stream_method_request(struct rpc_stream_method *method)
{
    request_stream(method);
}
