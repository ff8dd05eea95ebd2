#include "eventd/deliver_batch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "eventd/log_mark.h"

#define RECORD_OVERHEAD 64
#define MAX_HEADERS     10000 /* of a record; what is over it is counted */
/* What fits into one frame beside everything else. A value over it cannot travel at all. */
#define VALUE_MAX_BYTES ((size_t)32 * 1024 * 1024)
#define REFUSAL_SIZE    96

/* All memory of one batch. */
struct batch_memory {
    Userd__Ipc__Record *records;
    Userd__Ipc__Record **pointers;
    Userd__Ipc__Header *headers;
    Userd__Ipc__Header **header_pointers;
    char too_large[REFUSAL_SIZE];
    char too_large_to_send[REFUSAL_SIZE];
};

static void batch_memory_cleanup(struct batch_memory *memory)
{
    free(memory->records);
    free(memory->pointers);
    free(memory->headers);
    free(memory->header_pointers);
}

static size_t count_all_headers(const rd_kafka_message_t *message, rd_kafka_headers_t **ret_headers)
{
    *ret_headers = NULL;
    if (rd_kafka_message_headers(message, ret_headers) != RD_KAFKA_RESP_ERR_NO_ERROR)
        return 0;
    return rd_kafka_header_cnt(*ret_headers);
}

/* Those that travel. */
static size_t count_headers(const rd_kafka_message_t *message, rd_kafka_headers_t **ret_headers)
{
    size_t count = count_all_headers(message, ret_headers);
    return count > MAX_HEADERS ? MAX_HEADERS : count;
}

size_t deliver_batch_record_size(const rd_kafka_message_t *message)
{
    size_t size = RECORD_OVERHEAD + message->len + message->key_len;
    rd_kafka_headers_t *headers = NULL;
    size_t count = count_headers(message, &headers);
    for (size_t i = 0; i < count; i++) {
        const char *name = NULL;
        const void *value = NULL;
        size_t length = 0;
        if (rd_kafka_header_get_all(headers, i, &name, &value, &length) ==
            RD_KAFKA_RESP_ERR_NO_ERROR)
            size += RECORD_OVERHEAD + length;
    }
    return size;
}

static int allocate(const struct deliver_batch *batch, struct batch_memory *ret_memory)
{
    size_t headers = 0;
    for (size_t i = 0; i < batch->count; i++) {
        rd_kafka_headers_t *unused = NULL;
        headers += count_headers(batch->records[i].message, &unused);
    }
    ret_memory->records = calloc(batch->count + 1, sizeof(*ret_memory->records));
    ret_memory->pointers = calloc(batch->count + 1, sizeof(struct Userd__Ipc__Record *));
    ret_memory->headers = calloc(headers + 1, sizeof(*ret_memory->headers));
    ret_memory->header_pointers = calloc(headers + 1, sizeof(struct Userd__Ipc__Header *));
    if (ret_memory->records == NULL || ret_memory->pointers == NULL ||
        ret_memory->headers == NULL || ret_memory->header_pointers == NULL)
        return -ENOMEM;
    (void)snprintf(ret_memory->too_large, REFUSAL_SIZE, "event is larger than %zu bytes",
        batch->event_bytes_max);
    (void)snprintf(ret_memory->too_large_to_send, REFUSAL_SIZE,
        "event is larger than %zu bytes; its value stays where it was read", VALUE_MAX_BYTES);
    return 0;
}

/* The record's headers, from number `first` of the batch's on; returns how many. */
static size_t fill_headers(
    const rd_kafka_message_t *message, struct batch_memory *memory, size_t first)
{
    rd_kafka_headers_t *headers = NULL;
    size_t count = count_headers(message, &headers);
    size_t filled = 0;
    for (size_t i = 0; i < count; i++) {
        const char *name = NULL;
        const void *value = NULL;
        size_t length = 0;
        if (rd_kafka_header_get_all(headers, i, &name, &value, &length) !=
            RD_KAFKA_RESP_ERR_NO_ERROR)
            continue;
        Userd__Ipc__Header *header = &memory->headers[first + filled];
        userd__ipc__header__init(header);
        /* The frame only reads them. */
        header->name = borrow_const(name);
        header->is_null = value == NULL;
        header->value.data = borrow_const(value);
        header->value.len = value == NULL ? 0 : length;
        memory->header_pointers[first + filled] = header;
        filled++;
    }
    return filled;
}

static void fill_record(const struct deliver_batch *batch, const rd_kafka_message_t *message,
    struct batch_memory *memory, Userd__Ipc__Record *record)
{
    rd_kafka_timestamp_type_t timestamp_type = RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    userd__ipc__record__init(record);
    record->offset = message->offset;
    record->timestamp_ms = rd_kafka_message_timestamp(message, &timestamp_type);
    record->checksum =
        log_mark_checksum(message->key, message->key_len, message->payload, message->len);
    record->attempts = batch->attempts;
    record->has_key = message->key != NULL;
    record->key.data = message->key;
    record->key.len = message->key_len;
    record->has_value = message->payload != NULL;
    record->value.data = message->payload;
    record->value.len = message->len;
    if (batch->refusal != NULL)
        record->refusal = borrow_const(batch->refusal);
    else if (message->len > batch->event_bytes_max)
        record->refusal = memory->too_large;
    if (message->len > VALUE_MAX_BYTES) {
        record->refusal = memory->too_large_to_send;
        record->has_value = false;
        record->value.data = NULL;
        record->value.len = 0;
    }
}

int deliver_batch_send(struct worker_peer *peer, const struct deliver_batch *batch)
{
    struct batch_memory memory CLEANUP(batch_memory_cleanup) = {0};
    int result = allocate(batch, &memory);
    if (result < 0)
        return result;
    size_t headers = 0;
    for (size_t i = 0; i < batch->count; i++) {
        const rd_kafka_message_t *message = batch->records[i].message;
        fill_record(batch, message, &memory, &memory.records[i]);
        memory.records[i].headers = memory.header_pointers + headers;
        memory.records[i].n_headers = fill_headers(message, &memory, headers);
        rd_kafka_headers_t *unused = NULL;
        memory.records[i].dropped_headers =
            (uint32_t)(count_all_headers(message, &unused) - memory.records[i].n_headers);
        headers += memory.records[i].n_headers;
        memory.pointers[i] = &memory.records[i];
    }
    batch->header->n_records = batch->count;
    batch->header->records = memory.pointers;
    Userd__Ipc__Frame frame = USERD__IPC__FRAME__INIT;
    frame.body_case = USERD__IPC__FRAME__BODY_DELIVER_BATCH;
    frame.deliver_batch = batch->header;
    return worker_peers_send(peer, &frame);
}
