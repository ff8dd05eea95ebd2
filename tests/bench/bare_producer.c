/* The yardstick for what userd publishes, and the filler of topics: an idempotent librdkafka
 * producer with eventd's own settings (eventd/kafka_client.c) and nothing behind it.
 *
 *   bare_producer publish SERVERS TOPIC FIRST COUNT   as fast as the broker takes them, messages
 *                                                     like those of the topic `delete`
 *   bare_producer latency SERVERS TOPIC FIRST COUNT   one at a time, with a pause after each
 *   bare_producer fill SERVERS TOPIC FIRST COUNT      registrations, without key and headers
 *
 * FIRST is the first id. Prints one line of key=value: how long it took, and how long each message
 * took from the call to its delivery report.
 */
#include <errno.h>
#include <inttypes.h>
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/attributes.h"
#include "common/monotonic_clock.h"
#include "common/settings.h"
#include "eventd/kafka_client.h"

#include "tests/bench/load_report.h"

#define REPORT_TIMEOUT_S 60
#define PAUSE_US         20000
#define POLL_MS          100
#define VALUE_SIZE       64
#define BAD_USAGE        64

enum kind { KIND_PUBLISH, KIND_LATENCY, KIND_FILL };

struct run {
    enum kind kind;
    const char *topic;
    rd_kafka_t *producer;
    rd_kafka_queue_t *queue;
    uint64_t *sent_us; /* by message */
    uint64_t reported;
    uint64_t failed;
    struct load_report report;
};

static void die(const char *what, const char *why)
{
    (void)fprintf(stderr, "bare_producer: %s: %s\n", what, why);
    exit(EXIT_FAILURE);
}

/* As many and as long as a `delete` of userd's has. */
static rd_kafka_headers_t *make_headers(const char *subject)
{
    static const char *const texts[][2] = {
        {"ce_specversion", "1.0"},
        {"ce_id", "0b4fb6a4-7c8a-4f0e-9a53-1a2f6f6f9f61"},
        {"ce_source", "/userd"},
        {"ce_type", "user.deleted"},
        {"ce_time", "2026-01-01T00:00:00.000000Z"},
        {"content-type", "application/json"},
    };
    rd_kafka_headers_t *headers = rd_kafka_headers_new(ARRAY_LENGTH(texts) + 1);
    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++)
        (void)rd_kafka_header_add(headers, texts[i][0], -1, texts[i][1], -1);
    (void)rd_kafka_header_add(headers, "ce_subject", -1, subject, -1);
    return headers;
}

/* Waits for the next event so long, and takes what it says. */
static void take_reports(struct run *run, int timeout_ms)
{
    rd_kafka_event_t *event = rd_kafka_queue_poll(run->queue, timeout_ms);
    if (event == NULL)
        return;
    const rd_kafka_message_t *message = NULL;
    uint64_t now = monotonic_clock_us();
    while (rd_kafka_event_type(event) == RD_KAFKA_EVENT_DR &&
           (message = rd_kafka_event_message_next(event)) != NULL) {
        const uint64_t *sent_us = message->_private;
        if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR)
            run->failed++;
        else
            load_report_add_latency(&run->report.all, now - *sent_us);
        run->reported++;
    }
    rd_kafka_event_destroy(event);
}

static void produce(struct run *run, uint64_t *sent_us, uint64_t id)
{
    char key[24];
    char value[VALUE_SIZE];
    bool is_delete = run->kind != KIND_FILL;
    int key_length = snprintf(key, sizeof(key), "%" PRIu64, id);
    int value_length =
        is_delete ? snprintf(value, sizeof(value), "{\"id\": %" PRIu64 "}", id)
                  : snprintf(value, sizeof(value),
                        "{\"id\": %" PRIu64 ", \"username\": \"user%" PRIu64 "\"}", id, id);
    rd_kafka_headers_t *headers = is_delete ? make_headers(key) : rd_kafka_headers_new(0);
    for (;;) {
        *sent_us = monotonic_clock_us();
        rd_kafka_resp_err_t error = rd_kafka_producev(run->producer, RD_KAFKA_V_TOPIC(run->topic),
            RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
            RD_KAFKA_V_KEY(is_delete ? key : NULL, is_delete ? (size_t)key_length : 0),
            RD_KAFKA_V_VALUE(value, (size_t)value_length), RD_KAFKA_V_HEADERS(headers),
            RD_KAFKA_V_OPAQUE(sent_us), RD_KAFKA_V_END);
        if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
            return;
        if (error != RD_KAFKA_RESP_ERR__QUEUE_FULL)
            die(run->topic, rd_kafka_err2name(error));
        take_reports(run, POLL_MS);
    }
}

static void wait_for_reports(struct run *run, uint64_t count)
{
    uint64_t deadline_us = monotonic_clock_us() + REPORT_TIMEOUT_S * MONOTONIC_CLOCK_US_PER_S;
    while (run->reported < count) {
        take_reports(run, POLL_MS);
        if (monotonic_clock_us() > deadline_us)
            die("delivery reports", "not in time");
    }
}

static void run_all(struct run *run, uint64_t first, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        produce(run, &run->sent_us[i], first + i);
        if (run->kind != KIND_LATENCY) {
            take_reports(run, 0);
            continue;
        }
        wait_for_reports(run, i + 1);
        const struct timespec pause = {.tv_nsec = PAUSE_US * INT64_C(1000)};
        (void)nanosleep(&pause, NULL);
    }
    wait_for_reports(run, count);
}

static enum kind parse_kind(const char *text)
{
    if (strcmp(text, "publish") == 0)
        return KIND_PUBLISH;
    if (strcmp(text, "latency") == 0)
        return KIND_LATENCY;
    if (strcmp(text, "fill") == 0)
        return KIND_FILL;
    die(text, "expected publish, latency or fill");
    return KIND_PUBLISH;
}

static uint64_t parse_number(const char *text)
{
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value == 0)
        die(text, "expected a positive number");
    return value;
}

/* eventd's defaults, but for whom it speaks to. */
static void open_producer(struct run *run, char *servers)
{
    struct settings settings CLEANUP(settings_cleanup) = {0};
    if (settings_init(&settings) < 0)
        die("settings", "no memory");
    free(settings.kafka.bootstrap_servers);
    settings.kafka.bootstrap_servers = strdup(servers);
    if (kafka_client_new_producer(&settings, false, &run->producer) < 0)
        die("producer", "refused, see above");
    run->queue = rd_kafka_queue_get_main(run->producer);
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        (void)fputs(
            "usage: bare_producer publish|latency|fill SERVERS TOPIC FIRST COUNT\n", stderr);
        return BAD_USAGE;
    }
    static struct run run;
    uint64_t first = parse_number(argv[4]);
    uint64_t count = parse_number(argv[5]);
    run.kind = parse_kind(argv[1]);
    run.topic = argv[3];
    run.sent_us = calloc(count, sizeof(*run.sent_us));
    if (run.sent_us == NULL)
        die("calloc", strerror(errno));
    open_producer(&run, argv[2]);
    uint64_t begun_us = monotonic_clock_us();
    run_all(&run, first, count);
    run.report.all.by_status[0] = run.reported - run.failed;
    run.report.all.by_status[2] = run.failed;
    load_report_end_time(
        &run.report, (double)(monotonic_clock_us() - begun_us) / (double)MONOTONIC_CLOCK_US_PER_S);
    load_report_print(&run.report);
    rd_kafka_queue_destroy(run.queue);
    rd_kafka_destroy(run.producer);
    free(run.sent_us);
    return run.failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
