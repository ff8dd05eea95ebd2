#include "worker/events/outbox_message.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/trace_context.h"
#include "worker/events/dead_letter.h"

#define STORED_HEADERS_MAX 10100 /* a record's, as eventd bounds them, and a dead letter's own */
#define OUR_HEADERS        8     /* those of add_cloud_event(), or DEAD_LETTER_EVENT_ID */

static char *text_of(const char *bytes, size_t length)
{
    return strndup(bytes, length);
}

/* Appends a header whose memory is all its own. */
static int add_header(
    Userd__Ipc__OutboxRow *message, char *taken_name, const char *value, size_t length)
{
    if (taken_name == NULL)
        return -ENOMEM;
    Userd__Ipc__Header *header = malloc(sizeof(*header));
    if (header == NULL) {
        free(taken_name);
        return -ENOMEM;
    }
    userd__ipc__header__init(header);
    header->name = taken_name;
    header->is_null = value == NULL;
    message->headers[message->n_headers++] = header;
    if (value == NULL || length == 0)
        return 0;
    header->value.data = malloc(length);
    if (header->value.data == NULL)
        return -ENOMEM;
    memcpy(header->value.data, value, length);
    header->value.len = length;
    return 0;
}

static int add_text_header(Userd__Ipc__OutboxRow *message, const char *name, const char *value)
{
    return add_header(message, strdup(name), value, strlen(value));
}

static int add_stored_headers(Userd__Ipc__OutboxRow *message, struct outbox_store_array *names,
    struct outbox_store_array *values)
{
    const char *name = NULL;
    const char *value = NULL;
    size_t name_length = 0;
    size_t value_length = 0;
    while (outbox_store_array_next(names, &name, &name_length)) {
        if (name == NULL || !outbox_store_array_next(values, &value, &value_length))
            return -EPROTO;
        int result = add_header(message, text_of(name, name_length), value, value_length);
        if (result < 0)
            return result;
    }
    return 0;
}

static int add_cloud_event(Userd__Ipc__OutboxRow *message, const struct outbox_store_row *row)
{
    char subject[16] = "";
    (void)snprintf(subject, sizeof(subject), "%" PRIi32, row->auth_id);
    int result = add_text_header(message, "ce_specversion", "1.0");
    if (result == 0)
        result = add_text_header(message, "ce_id", row->event_id);
    if (result == 0)
        result = add_text_header(message, "ce_source", "/userd");
    if (result == 0)
        result = add_text_header(message, "ce_type", "user.deleted");
    if (result == 0)
        result = add_text_header(message, "ce_time", row->created_at);
    if (result == 0 && row->has_auth_id)
        result = add_text_header(message, "ce_subject", subject);
    if (result == 0 && row->traceparent != NULL)
        result = add_header(
            message, strdup(TRACE_CONTEXT_NAME), row->traceparent, row->traceparent_length);
    if (result == 0)
        result = add_text_header(message, "content-type", "application/json");
    return result;
}

static int copy_bytes(
    const char *bytes, size_t length, ProtobufCBinaryData *ret_copy, protobuf_c_boolean *ret_has)
{
    *ret_has = bytes != NULL;
    if (bytes == NULL || length == 0)
        return 0;
    ret_copy->data = malloc(length);
    if (ret_copy->data == NULL)
        return -ENOMEM;
    memcpy(ret_copy->data, bytes, length);
    ret_copy->len = length;
    return 0;
}

static int fill(Userd__Ipc__OutboxRow *message, const struct outbox_store_row *row)
{
    struct outbox_store_array names;
    struct outbox_store_array values;
    if (outbox_store_array_open(row->header_names, row->header_names_length, &names) < 0 ||
        outbox_store_array_open(row->header_values, row->header_values_length, &values) < 0 ||
        names.left < 0 || names.left > STORED_HEADERS_MAX)
        return -EPROTO;
    message->headers = calloc((size_t)names.left + OUR_HEADERS, sizeof(Userd__Ipc__Header *));
    if (message->headers == NULL)
        return -ENOMEM;
    message->id = row->id;
    message->destination = (Userd__Ipc__Destination)row->destination;
    int result = copy_bytes(row->key, row->key_length, &message->key, &message->has_key);
    if (result == 0)
        result = copy_bytes(row->value, row->value_length, &message->value, &message->has_value);
    if (result == 0)
        result = add_stored_headers(message, &names, &values);
    if (result == 0 && message->destination == USERD__IPC__DESTINATION__DESTINATION_DELETE)
        result = add_cloud_event(message, row);
    /* Not ce_id: the record that was read may have one of its own, which stays. */
    if (result == 0 && message->destination == USERD__IPC__DESTINATION__DESTINATION_DEAD_LETTER)
        result = add_text_header(message, DEAD_LETTER_EVENT_ID, row->event_id);
    return result;
}

Userd__Ipc__OutboxRow *outbox_message_free(Userd__Ipc__OutboxRow *message)
{
    if (message != NULL)
        userd__ipc__outbox_row__free_unpacked(message, NULL);
    return NULL;
}

int outbox_message_new(const struct outbox_store_row *row, Userd__Ipc__OutboxRow **ret_message)
{
    Userd__Ipc__OutboxRow *message = malloc(sizeof(*message));
    if (message == NULL)
        return -ENOMEM;
    userd__ipc__outbox_row__init(message);
    int result = fill(message, row);
    if (result < 0) {
        (void)outbox_message_free(message);
        return result;
    }
    *ret_message = message;
    return 0;
}

size_t outbox_message_size(const Userd__Ipc__OutboxRow *message)
{
    return userd__ipc__outbox_row__get_packed_size(message);
}
