#include "eventd/kafka_client.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "eventd/kafka_options.h"

#define LOG_LINES_PER_SECOND   5
#define STATISTICS_INTERVAL_MS "5000"
#define POLL_INTERVAL_MS       30000
#define SYSLOG_ERROR           3
#define SYSLOG_WARNING         4
#define SYSLOG_NOTICE          5

struct property {
    const char *name;
    const char *value;
};

static const struct property shared_properties[] = {
    /* Logs come as events, on our thread. */
    {"log.queue", "true"},
    /* An idle broker connection that the broker closes is no news. */
    {"log.connection.close", "false"},
    /* A topic that is missing is made on purpose or waited for, never made by asking for it. */
    {"allow.auto.create.topics", "false"},
    /* New partitions and new leaders are seen within this time. */
    {"topic.metadata.refresh.interval.ms", "10000"},
    {"reconnect.backoff.ms", "100"},
    {"reconnect.backoff.max.ms", "5000"},
    {"socket.nagle.disable", "true"},
    {"socket.keepalive.enable", "true"},
    /* A broker that hangs is noticed by this. */
    {"socket.timeout.ms", "15000"},
};

static const struct property producer_properties[] = {
    /* A retry inside librdkafka must not double or reorder. */
    {"enable.idempotence", "true"},
    /* With more, one disconnect and one retriable error make the idempotent producer of 2.0.2 fatal
       (fixed in 2.3.0). */
    {"max.in.flight.requests.per.connection", "1"},
    /* A row has no deadline: it is sent when the broker is back. */
    {"message.timeout.ms", "0"},
    /* The key's partition is the one that the other clients of the platform would choose. */
    {"partitioner", "murmur2_random"},
    /* The size of one message is the broker's to judge; a batch stays far below what any broker
       refuses. */
    {"message.max.bytes", "67108864"},
    {"batch.size", "262144"},
    /* More than a relay ever has in flight; what is over it goes back to the relay at once. */
    {"queue.buffering.max.messages", "20000"},
    {"queue.buffering.max.kbytes", "131072"},
    /* For the scoreboard. */
    {"statistics.interval.ms", STATISTICS_INTERVAL_MS},
};

static const struct property consumer_properties[] = {
    /* PostgreSQL holds the position; what Kafka is told is advice, and it is told by hand. */
    {"enable.auto.commit", "false"},
    {"enable.auto.offset.store", "false"},
    /* A position that does not exist is an alarm, never a silent jump. */
    {"auto.offset.reset", "error"},
    /* roundrobin: so that a member of the legacy service, which knows nothing else, can be in the
       same group. */
    {"partition.assignment.strategy", "range,roundrobin"},
    {"isolation.level", "read_committed"},
    {"check.crcs", "true"},
    {"enable.partition.eof", "false"},
    /* A second of traffic, so that a full queue is not waited out; bounded in bytes for all
       partitions together. */
    {"queued.min.messages", "100000"},
    {"queued.max.messages.kbytes", "65536"},
    /* Brokers answer as soon as there is one byte; this bounds how long an empty answer takes. */
    {"fetch.wait.max.ms", "100"},
    {"fetch.error.backoff.ms", "200"},
    {"statistics.interval.ms", STATISTICS_INTERVAL_MS},
};

static int set_property(rd_kafka_conf_t *configuration, const char *name, const char *value)
{
    char reason[256];
    if (rd_kafka_conf_set(configuration, name, value, reason, sizeof(reason)) == RD_KAFKA_CONF_OK)
        return 0;
    log_error("kafka property refused property=%s reason=%s", name, reason);
    return -EINVAL;
}

static int set_number(rd_kafka_conf_t *configuration, const char *name, int number)
{
    char value[16];
    (void)snprintf(value, sizeof(value), "%d", number);
    return set_property(configuration, name, value);
}

static int set_table(rd_kafka_conf_t *configuration, const struct property *table, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int result = set_property(configuration, table[i].name, table[i].value);
        if (result < 0)
            return result;
    }
    return 0;
}

static int set_shared(rd_kafka_conf_t *configuration, const struct settings *settings)
{
    int result = set_table(configuration, shared_properties, ARRAY_LENGTH(shared_properties));
    if (result == 0)
        result =
            set_property(configuration, "bootstrap.servers", settings->kafka.bootstrap_servers);
    if (result == 0)
        result = set_property(configuration, "client.id", settings->kafka.client_id);
    return result;
}

/* Takes the configuration. */
static int make_client(
    rd_kafka_type_t type, rd_kafka_conf_t *configuration, rd_kafka_t **ret_client)
{
    char reason[256];
    rd_kafka_t *client = rd_kafka_new(type, configuration, reason, sizeof(reason));
    if (client == NULL) {
        log_error("kafka client refused reason=%s", reason);
        rd_kafka_conf_destroy(configuration);
        return -EINVAL;
    }
    /* NULL: to the main queue. */
    (void)rd_kafka_set_log_queue(client, NULL);
    *ret_client = client;
    return 0;
}

static int configure_producer(
    const struct settings *settings, bool sends_singly, rd_kafka_conf_t *configuration)
{
    static const struct property singly[] = {
        {"batch.num.messages", "1"},
        {"statistics.interval.ms", "0"},
    };
    int result = set_shared(configuration, settings);
    if (result == 0)
        result = set_table(configuration, producer_properties, ARRAY_LENGTH(producer_properties));
    /* How long a message may wait for company in its batch. */
    if (result == 0)
        result = set_number(configuration, "linger.ms", settings->kafka.linger_ms);
    if (result == 0)
        result = kafka_options_apply(settings, RD_KAFKA_PRODUCER, configuration);
    if (result == 0 && sends_singly)
        result = set_table(configuration, singly, ARRAY_LENGTH(singly));
    return result;
}

int kafka_client_new_producer(
    const struct settings *settings, bool sends_singly, rd_kafka_t **ret_client)
{
    rd_kafka_conf_t *configuration = rd_kafka_conf_new();
    int result = configure_producer(settings, sends_singly, configuration);
    if (result < 0) {
        rd_kafka_conf_destroy(configuration);
        return result;
    }
    rd_kafka_conf_set_events(configuration,
        RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_LOG | RD_KAFKA_EVENT_STATS);
    return make_client(RD_KAFKA_PRODUCER, configuration, ret_client);
}

static int configure_consumer(
    const struct settings *settings, const char *group, rd_kafka_conf_t *configuration)
{
    int result = set_shared(configuration, settings);
    if (result == 0)
        result = set_table(configuration, consumer_properties, ARRAY_LENGTH(consumer_properties));
    if (result == 0)
        result = set_property(configuration, "group.id", group);
    if (result == 0)
        result =
            set_number(configuration, "session.timeout.ms", settings->kafka.session_timeout_ms);
    /* A third of the session: two heartbeats may be lost. */
    if (result == 0)
        result = set_number(
            configuration, "heartbeat.interval.ms", settings->kafka.session_timeout_ms / 3);
    /* Our loop tells librdkafka that it lives every second (consumer_group.c). This is also how
     * long a rebalance waits for a member, and how long an answer to JoinGroup is waited for that
     * was lost with its broker: with librdkafka's five minutes nothing would be read for as long.
     */
    if (result == 0)
        result = set_number(configuration, "max.poll.interval.ms",
            settings->kafka.session_timeout_ms > POLL_INTERVAL_MS
                ? settings->kafka.session_timeout_ms
                : POLL_INTERVAL_MS);
    if (result == 0)
        result = kafka_options_apply(settings, RD_KAFKA_CONSUMER, configuration);
    return result;
}

int kafka_client_new_consumer(const struct settings *settings, rd_kafka_t **ret_client)
{
    rd_kafka_conf_t *configuration = rd_kafka_conf_new();
    int result = configure_consumer(settings, settings->kafka.group, configuration);
    if (result < 0) {
        rd_kafka_conf_destroy(configuration);
        return result;
    }
    rd_kafka_conf_set_events(
        configuration, RD_KAFKA_EVENT_REBALANCE | RD_KAFKA_EVENT_OFFSET_COMMIT |
                           RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_LOG | RD_KAFKA_EVENT_STATS);
    rd_kafka_t *client = NULL;
    result = make_client(RD_KAFKA_CONSUMER, configuration, &client);
    if (result < 0)
        return result;
    rd_kafka_resp_err_t error = rd_kafka_poll_set_consumer(client);
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR) {
        log_error("kafka consumer refused reason=%s", rd_kafka_err2name(error));
        rd_kafka_destroy(client);
        return -EINVAL;
    }
    *ret_client = client;
    return 0;
}

static int try_client(const struct settings *settings, rd_kafka_type_t type,
    char ret_reason[KAFKA_CLIENT_REASON_SIZE])
{
    rd_kafka_conf_t *configuration = rd_kafka_conf_new();
    int result = type == RD_KAFKA_PRODUCER
                     ? configure_producer(settings, false, configuration)
                     : configure_consumer(settings, settings->kafka.group, configuration);
    (void)snprintf(ret_reason, KAFKA_CLIENT_REASON_SIZE, "is refused by librdkafka");
    rd_kafka_t *client =
        result == 0 ? rd_kafka_new(type, configuration, ret_reason, KAFKA_CLIENT_REASON_SIZE)
                    : NULL;
    if (client == NULL) {
        rd_kafka_conf_destroy(configuration);
        return -EINVAL;
    }
    return 0;
}

int kafka_client_try(const struct settings *settings, char ret_reason[KAFKA_CLIENT_REASON_SIZE])
{
    int result = try_client(settings, RD_KAFKA_PRODUCER, ret_reason);
    return result < 0 ? result : try_client(settings, RD_KAFKA_CONSUMER, ret_reason);
}

/* What a reader's librdkafka has said last, from whichever of its threads. */
static struct {
    pthread_mutex_t lock;
    char text[KAFKA_CLIENT_REASON_SIZE];
} reader_said = {.lock = PTHREAD_MUTEX_INITIALIZER};

void kafka_client_reader_said(char ret_text[KAFKA_CLIENT_REASON_SIZE])
{
    (void)pthread_mutex_lock(&reader_said.lock);
    (void)snprintf(ret_text, KAFKA_CLIENT_REASON_SIZE, "%s", reader_said.text);
    (void)pthread_mutex_unlock(&reader_said.lock);
}

/* Whether a lost connection matters is for whoever waits to say. */
static void on_reader_log(
    const rd_kafka_t *client, int level, const char *facility, const char *text)
{
    (void)client;
    (void)level;
    (void)pthread_mutex_lock(&reader_said.lock);
    (void)snprintf(reader_said.text, sizeof(reader_said.text), "%s", text);
    (void)pthread_mutex_unlock(&reader_said.lock);
    log_debug("librdkafka says facility=%s text=%s", facility, text);
}

static int make_reader(
    const struct settings *settings, const char *group, bool is_prober, rd_kafka_t **ret_client)
{
    rd_kafka_conf_t *configuration = rd_kafka_conf_new();
    /* With the consumer's settings: what is accepted for the one is accepted for the other. */
    int result = configure_consumer(settings, group, configuration);
    /* It has no loop that takes events. */
    if (result == 0)
        result = set_property(configuration, "log.queue", "false");
    if (result == 0)
        result = set_property(configuration, "statistics.interval.ms", "0");
    if (result == 0)
        result = set_property(configuration, "enable.partition.eof", "true");
    /* A broker sends a whole batch whatever this says. */
    if (result == 0 && is_prober)
        result = set_property(configuration, "fetch.message.max.bytes", "1024");
    if (result < 0) {
        rd_kafka_conf_destroy(configuration);
        return result;
    }
    rd_kafka_conf_set_log_cb(configuration, on_reader_log);
    char reason[256];
    rd_kafka_t *client = rd_kafka_new(RD_KAFKA_CONSUMER, configuration, reason, sizeof(reason));
    if (client == NULL) {
        log_error("kafka client refused reason=%s", reason);
        rd_kafka_conf_destroy(configuration);
        return -EINVAL;
    }
    (void)rd_kafka_poll_set_consumer(client);
    *ret_client = client;
    return 0;
}

int kafka_client_new_reader(
    const struct settings *settings, const char *group, rd_kafka_t **ret_client)
{
    return make_reader(settings, group, false, ret_client);
}

int kafka_client_new_prober(const struct settings *settings, rd_kafka_t **ret_client)
{
    return make_reader(settings, settings->kafka.group, true, ret_client);
}

void kafka_client_log(rd_kafka_event_t *event)
{
    static struct log_limit limit; /* of the one thread that the events come to */
    const char *facility = NULL;
    const char *text = NULL;
    int level = 0;
    if (rd_kafka_event_log(event, &facility, &text, &level) != 0)
        return;
    /* librdkafka calls every lost connection an error; whether that matters is kafka_watch's to
     * say. */
    enum log_level ours = level < SYSLOG_ERROR ? LOG_LEVEL_WARN : LOG_LEVEL_DEBUG;
    if (level == SYSLOG_WARNING || level == SYSLOG_NOTICE)
        ours = LOG_LEVEL_INFO;
    /* Said again and again by a broker that is too old to know the setting, though we name no
     * missing topic. */
    if (strcmp(facility, "AUTOCREATE") == 0)
        ours = LOG_LEVEL_DEBUG;
    unsigned int suppressed = 0;
    if (!log_is_enabled(ours) || !log_limit_allows(&limit, LOG_LINES_PER_SECOND, &suppressed))
        return;
    log_write(
        ours, "librdkafka says facility=%s text=%s suppressed=%u", facility, text, suppressed);
}
