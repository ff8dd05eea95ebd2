#include "worker/events/dead_letter.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/user/username_rules.h"

/* The name itself, or a copy with '?' for every byte beyond ASCII: PostgreSQL takes UTF-8 only, and
 * Kafka asks nothing of a header's name. NULL without memory. */
static const char *mend_name(struct dead_letter *memory, const char *name)
{
    if (username_rules_is_text(name, strlen(name)))
        return name;
    char *copy = strdup(name);
    if (copy == NULL)
        return NULL;
    for (char *byte = copy; *byte != '\0'; byte++) {
        if ((unsigned char)*byte > 0x7f)
            *byte = '?';
    }
    memory->names[memory->name_count++] = copy;
    return copy;
}

static void add_text(struct event_header *header, const char *name, const char *text)
{
    *header = (struct event_header){.name = name, .value = text, .value_length = strlen(text)};
}

/* How many there are. */
static size_t add_origin(struct dead_letter *memory, const Userd__Ipc__DeliverBatch *batch,
    const Userd__Ipc__Record *record, const char *const reason[2], struct event_header *headers)
{
    size_t size = sizeof(memory->numbers[0]);
    (void)snprintf(memory->numbers[0], size, "%" PRIi32, batch->partition);
    (void)snprintf(memory->numbers[1], size, "%" PRIi64, record->offset);
    (void)snprintf(memory->numbers[2], size, "%" PRIi64, record->timestamp_ms);
    (void)snprintf(memory->numbers[3], size, "%" PRIu32, record->attempts + 1);
    (void)snprintf(memory->error, sizeof(memory->error), "%s", reason[1]);
    add_text(&headers[0], "dlq-original-topic", batch->topic);
    add_text(&headers[1], "dlq-original-partition", memory->numbers[0]);
    add_text(&headers[2], "dlq-original-offset", memory->numbers[1]);
    add_text(&headers[3], "dlq-original-timestamp", memory->numbers[2]);
    add_text(&headers[4], "dlq-reason", reason[0]);
    add_text(&headers[5], "dlq-error", memory->error);
    add_text(&headers[6], "dlq-attempts", memory->numbers[3]);
    if (record->dropped_headers == 0)
        return DEAD_LETTER_HEADERS - 1;
    (void)snprintf(memory->numbers[4], size, "%" PRIu32, record->dropped_headers);
    add_text(&headers[7], "dlq-headers-dropped", memory->numbers[4]);
    return DEAD_LETTER_HEADERS;
}

void dead_letter_cleanup(struct dead_letter *memory)
{
    for (size_t i = 0; i < memory->name_count; i++)
        free(memory->names[i]);
    free(memory->names);
    free(memory->headers);
    *memory = (struct dead_letter){0};
}

static const char *bytes_of(const ProtobufCBinaryData *data, protobuf_c_boolean has)
{
    if (!has)
        return NULL;
    return data->data == NULL ? "" : (const char *)data->data;
}

int dead_letter_fill(struct dead_letter *memory, const Userd__Ipc__DeliverBatch *batch,
    const Userd__Ipc__Record *record, const char *const reason[2],
    struct user_dead_letter *ret_letter)
{
    size_t own = record->n_headers;
    *memory = (struct dead_letter){0};
    memory->headers = calloc(own + DEAD_LETTER_HEADERS, sizeof(*memory->headers));
    memory->names = calloc(own + 1, sizeof(char *));
    if (memory->headers == NULL || memory->names == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < own; i++) {
        const Userd__Ipc__Header *header = record->headers[i];
        memory->headers[i].name = mend_name(memory, header->name);
        if (memory->headers[i].name == NULL)
            return -ENOMEM;
        memory->headers[i].value = bytes_of(&header->value, !header->is_null);
        memory->headers[i].value_length = header->value.len;
    }
    size_t added = add_origin(memory, batch, record, reason, memory->headers + own);
    *ret_letter = (struct user_dead_letter){
        .key = bytes_of(&record->key, record->has_key),
        .key_length = record->key.len,
        .value = bytes_of(&record->value, record->has_value),
        .value_length = record->value.len,
        .headers = memory->headers,
        .header_count = own + added,
    };
    return 0;
}
