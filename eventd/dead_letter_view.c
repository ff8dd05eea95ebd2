#include "eventd/dead_letter_view.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TEXT_SIZE   400
#define MS_PER_S    1000
#define LINE_FORMAT "%-10s %-20s %-34s %-12s %-8s %s\n"

bool dead_letter_view_header(
    const rd_kafka_message_t *message, const char *name, char *target, size_t size)
{
    rd_kafka_headers_t *headers = NULL;
    const void *value = NULL;
    size_t length = 0;
    target[0] = '\0';
    if (rd_kafka_message_headers(message, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR ||
        rd_kafka_header_get_last(headers, name, &value, &length) != RD_KAFKA_RESP_ERR_NO_ERROR ||
        value == NULL)
        return false;
    (void)snprintf(target, size, "%.*s", (int)length, (const char *)value);
    return true;
}

/* What a terminal might take for a command is shown, not sent. */
static void print_bytes(const void *bytes, size_t length)
{
    const unsigned char *byte = bytes;
    for (size_t i = 0; i < length; i++) {
        if (byte[i] >= ' ' && byte[i] < 0x7f && byte[i] != '\\')
            (void)putchar(byte[i]);
        else
            (void)printf("\\x%02x", byte[i]);
    }
}

static void make_harmless(char *text)
{
    for (; *text != '\0'; text++) {
        if (*text < ' ' || *text == 0x7f)
            *text = '?';
    }
}

static void format_time(const rd_kafka_message_t *message, char *target, size_t size)
{
    rd_kafka_timestamp_type_t type = RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    time_t seconds = (time_t)(rd_kafka_message_timestamp(message, &type) / 1000);
    struct tm when;
    if (type == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE || gmtime_r(&seconds, &when) == NULL ||
        strftime(target, size, "%Y-%m-%dT%H:%M:%SZ", &when) == 0)
        (void)snprintf(target, size, "unknown");
}

void dead_letter_view_title(void)
{
    (void)printf(LINE_FORMAT, "ID", "WHEN", "FROM", "REASON", "ATTEMPTS", "ERROR");
}

void dead_letter_view_line(const rd_kafka_message_t *message)
{
    char id[48];
    char when[32];
    char topic[TEXT_SIZE];
    char partition[16];
    char offset[32];
    char from[TEXT_SIZE + 64];
    char reason[32];
    char attempts[16];
    char error[TEXT_SIZE];
    (void)snprintf(id, sizeof(id), "%" PRIi32 ":%" PRIi64, message->partition, message->offset);
    format_time(message, when, sizeof(when));
    bool has_origin = dead_letter_view_header(message, DEAD_LETTER_TOPIC, topic, sizeof(topic));
    (void)dead_letter_view_header(message, DEAD_LETTER_PARTITION, partition, sizeof(partition));
    (void)dead_letter_view_header(message, DEAD_LETTER_OFFSET, offset, sizeof(offset));
    (void)dead_letter_view_header(message, DEAD_LETTER_REASON, reason, sizeof(reason));
    (void)dead_letter_view_header(message, DEAD_LETTER_ATTEMPTS, attempts, sizeof(attempts));
    (void)dead_letter_view_header(message, DEAD_LETTER_ERROR, error, sizeof(error));
    (void)snprintf(
        from, sizeof(from), has_origin ? "%s/%s@%s" : "unknown%s%s%s", topic, partition, offset);
    make_harmless(from);
    make_harmless(reason);
    make_harmless(attempts);
    make_harmless(error);
    (void)printf(LINE_FORMAT, id, when, from, reason, attempts, error);
}

/* What is no UTF-8 has '?' for every byte beyond ASCII; null when there is no such header. */
static json_t *header_as_text(const rd_kafka_message_t *message, const char *name)
{
    char text[TEXT_SIZE];
    if (!dead_letter_view_header(message, name, text, sizeof(text)))
        return json_null();
    json_t *value = json_string(text);
    if (value != NULL)
        return value;
    for (char *byte = text; *byte != '\0'; byte++) {
        if ((unsigned char)*byte > 0x7f)
            *byte = '?';
    }
    return json_string(text);
}

/* null when it is no number, and `missing` when there is no such header. */
static json_t *header_as_number(
    const rd_kafka_message_t *message, const char *name, json_t *missing)
{
    char text[32];
    char *end = NULL;
    if (!dead_letter_view_header(message, name, text, sizeof(text)))
        return missing;
    json_decref(missing);
    errno = 0;
    long long number = strtoll(text, &end, 10);
    return errno == 0 && end != text && *end == '\0' ? json_integer(number) : json_null();
}

static json_t *written_at(const rd_kafka_message_t *message)
{
    rd_kafka_timestamp_type_t type = RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    int64_t timestamp_ms = rd_kafka_message_timestamp(message, &type);
    return type == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE ? json_null()
                                                    : json_integer(timestamp_ms / MS_PER_S);
}

static json_t *origin_of(const rd_kafka_message_t *message)
{
    char topic[2];
    if (!dead_letter_view_header(message, DEAD_LETTER_TOPIC, topic, sizeof(topic)))
        return json_null();
    return json_pack("{so, so, so}", "topic", header_as_text(message, DEAD_LETTER_TOPIC),
        "partition", header_as_number(message, DEAD_LETTER_PARTITION, json_null()), "offset",
        header_as_number(message, DEAD_LETTER_OFFSET, json_null()));
}

void dead_letter_view_json_begin(const char *topic)
{
    /* A topic's name needs no escapes. */
    (void)printf("{\"topic\": \"%s\", \"letters\": [", topic);
}

int dead_letter_view_json(const rd_kafka_message_t *message, bool is_first)
{
    char id[48];
    (void)snprintf(id, sizeof(id), "%" PRIi32 ":%" PRIi64, message->partition, message->offset);
    json_t *letter =
        json_pack("{ss, so, so, so, so, so, so, so}", "id", id, "written_at", written_at(message),
            "from", origin_of(message), "reason", header_as_text(message, DEAD_LETTER_REASON),
            "error", header_as_text(message, DEAD_LETTER_ERROR), "attempts",
            header_as_number(message, DEAD_LETTER_ATTEMPTS, json_null()), "redrives",
            header_as_number(message, DEAD_LETTER_REDRIVE, json_integer(0)), "event_id",
            header_as_text(message, DEAD_LETTER_EVENT_ID));
    if (letter == NULL)
        return -ENOMEM;
    (void)printf("%s\n  ", is_first ? "" : ",");
    int result = json_dumpf(letter, stdout, JSON_PRESERVE_ORDER);
    json_decref(letter);
    /* What cannot be written is found when all is flushed. */
    return result < 0 && ferror(stdout) == 0 ? -ENOMEM : 0;
}

void dead_letter_view_json_end(size_t count)
{
    (void)printf("%s], \"pending\": %zu}\n", count > 0 ? "\n" : "", count);
}

static void print_headers(const rd_kafka_message_t *message)
{
    rd_kafka_headers_t *headers = NULL;
    if (rd_kafka_message_headers(message, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR)
        return;
    const char *name = NULL;
    const void *value = NULL;
    size_t length = 0;
    for (size_t i = 0;
         rd_kafka_header_get_all(headers, i, &name, &value, &length) == RD_KAFKA_RESP_ERR_NO_ERROR;
         i++) {
        (void)printf("header ");
        print_bytes(name, strlen(name));
        (void)printf(": ");
        if (value == NULL)
            (void)printf("(null)");
        else
            print_bytes(value, length);
        (void)putchar('\n');
    }
}

void dead_letter_view_whole(const rd_kafka_message_t *message, bool is_handled)
{
    char when[32];
    format_time(message, when, sizeof(when));
    (void)printf("id: %" PRIi32 ":%" PRIi64 "\nwritten: %s\nstate: %s\n", message->partition,
        message->offset, when, is_handled ? "handled" : "pending");
    print_headers(message);
    (void)printf("key: ");
    if (message->key == NULL)
        (void)printf("(null)");
    else
        print_bytes(message->key, message->key_len);
    (void)printf("\nvalue: ");
    if (message->payload == NULL)
        (void)printf("(null)");
    else
        print_bytes(message->payload, message->len);
    (void)putchar('\n');
}
