/* A Kafka-protocol broker in one process: librdkafka's mock cluster, for development and tests.
 *
 *   embedded_broker [--topic NAME:PARTITIONS]... [--brokers N] [--stdin]
 *
 * Prints "bootstrap.servers=127.0.0.1:PORT" when it is ready and stays until SIGTERM or SIGINT.
 * With --stdin it also reads fault commands, one a line, answers each with "ok" or "error: why",
 * and leaves at the end of its input:
 *
 *   down [BROKER]               refuses and drops connections; without a number, every broker
 *   up [BROKER]                 takes connections again
 *   rtt MILLISECONDS            delays every answer
 *   error KEY CODE COUNT        the next COUNT requests with this API key (0: Produce) are answered
 * with this error; code -195 (_TRANSPORT) drops the connection instead slow KEY MILLISECONDS COUNT
 * the next COUNT requests with this API key are answered late by broker 1 clear KEY forgets what
 * `error` queued topic NAME PARTITIONS       creates a topic leader NAME PARTITION BROKER moves a
 * partition; broker -1: no leader
 *
 * Nothing is persistent: a partition keeps 5 MiB, then the oldest batches go. A group whose members
 * name different assignors first ends the process, by an assertion of librdkafka's. Never a
 * stand-in for Kafka in production.
 */
#include <errno.h>
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/attributes.h"
#include "common/file_descriptor.h"

#define MS_PER_S        1000
#define NS_PER_MS       1000000
#define MAX_TOPICS      64
#define MAX_BROKERS     9
#define MAX_PARTITIONS  1000
#define MAX_ERRORS      100000
#define MAX_WORDS       4
#define MAX_LINE        512
#define TOPIC_NAME_SIZE 250

struct topic {
    char name[TOPIC_NAME_SIZE];
    int partitions;
};

struct options {
    struct topic topics[MAX_TOPICS];
    size_t topic_count;
    int brokers;
    bool reads_stdin;
};

/* The topics of the service that this broker stands beside. */
static const struct topic default_topics[] = {
    {"registration", 3},
    {"admin_delete_user", 3},
    {"delete", 3},
    {"user_service.dead_letter", 3},
};

struct command {
    const char *name;
    int minimum_words; /* without the name */
    int maximum_words;
    /* NULL on success, else static text. */
    const char *(*run)(rd_kafka_mock_cluster_t *cluster, int word_count, char *const *words);
};

/* In the place of the C library's for everything in this program: says that a peer has closed its
 * connection, also of a connection that nobody wants to read from now.
 *
 * The mock cluster reads nothing from a connection whose JoinGroup or SyncGroup it has not
 * answered, and so does not see its end, since the end of what a peer sends is something to be
 * read. The member then joins again on another connection (a request that waits behind the
 * JoinGroup times out after socket.timeout.ms, which is less than a long session), and
 * librdkafka 2.0.2 finds that it owes this member an answer already: "Assertion `!member->resp'
 * failed", and the process aborts. As POLLHUP it hears of the end in time. */
/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name): names that say something */
int poll(struct pollfd *waits, nfds_t count, int timeout_ms)
{
    for (nfds_t i = 0; i < count; i++) {
        if ((waits[i].events & POLLIN) == 0)
            waits[i].events |= POLLRDHUP;
    }
    struct timespec timeout = {
        .tv_sec = timeout_ms / MS_PER_S, .tv_nsec = timeout_ms % MS_PER_S * NS_PER_MS};
    int result = ppoll(waits, count, timeout_ms < 0 ? NULL : &timeout, NULL);
    for (nfds_t i = 0; i < count; i++) {
        waits[i].events &= (short)~POLLRDHUP;
        if (result > 0 && (waits[i].revents & POLLRDHUP) != 0)
            waits[i].revents |= POLLHUP;
    }
    return result;
}

static bool parse_number(const char *text, long minimum, long maximum, long *ret_number)
{
    char *end = NULL;
    errno = 0;
    long number = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || number < minimum || number > maximum)
        return false;
    *ret_number = number;
    return true;
}

static const char *answer_of(rd_kafka_resp_err_t error)
{
    return error == RD_KAFKA_RESP_ERR_NO_ERROR ? NULL : rd_kafka_err2str(error);
}

static const char *run_down(rd_kafka_mock_cluster_t *cluster, int word_count, char *const *words)
{
    long broker = -1;
    if (word_count > 0 && !parse_number(words[0], 1, MAX_BROKERS, &broker))
        return "expected the number of a broker";
    return answer_of(rd_kafka_mock_broker_set_down(cluster, (int32_t)broker));
}

static const char *run_up(rd_kafka_mock_cluster_t *cluster, int word_count, char *const *words)
{
    long broker = -1;
    if (word_count > 0 && !parse_number(words[0], 1, MAX_BROKERS, &broker))
        return "expected the number of a broker";
    return answer_of(rd_kafka_mock_broker_set_up(cluster, (int32_t)broker));
}

static const char *run_rtt(rd_kafka_mock_cluster_t *cluster, int word_count, char *const *words)
{
    (void)word_count;
    long rtt_ms = 0;
    if (!parse_number(words[0], 0, 600000, &rtt_ms))
        return "expected milliseconds";
    return answer_of(rd_kafka_mock_broker_set_rtt(cluster, -1, (int)rtt_ms));
}

static const char *run_error(rd_kafka_mock_cluster_t *cluster, int word_count, char *const *words)
{
    (void)word_count;
    long key = 0;
    long code = 0;
    long count = 0;
    if (!parse_number(words[0], 0, 100, &key) || !parse_number(words[1], -200, 200, &code) ||
        !parse_number(words[2], 1, MAX_ERRORS, &count))
        return "expected an API key, an error code and a count";
    rd_kafka_resp_err_t *errors = calloc((size_t)count, sizeof(*errors));
    if (errors == NULL)
        return "no memory";
    for (long i = 0; i < count; i++)
        errors[i] = (rd_kafka_resp_err_t)code;
    rd_kafka_mock_push_request_errors_array(cluster, (int16_t)key, (size_t)count, errors);
    free(errors);
    return NULL;
}

static const char *run_slow(rd_kafka_mock_cluster_t *cluster, int word_count, char *const *words)
{
    (void)word_count;
    long key = 0;
    long rtt_ms = 0;
    long count = 0;
    if (!parse_number(words[0], 0, 100, &key) || !parse_number(words[1], 0, 600000, &rtt_ms) ||
        !parse_number(words[2], 1, MAX_ERRORS, &count))
        return "expected an API key, milliseconds and a count";
    for (long i = 0; i < count; i++) {
        rd_kafka_resp_err_t error = rd_kafka_mock_broker_push_request_error_rtts(
            cluster, 1, (int16_t)key, 1, RD_KAFKA_RESP_ERR_NO_ERROR, (int)rtt_ms);
        if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
            return rd_kafka_err2str(error);
    }
    return NULL;
}

static const char *run_clear(rd_kafka_mock_cluster_t *cluster, int word_count, char *const *words)
{
    (void)word_count;
    long key = 0;
    if (!parse_number(words[0], 0, 100, &key))
        return "expected an API key";
    rd_kafka_mock_clear_request_errors(cluster, (int16_t)key);
    return NULL;
}

static const char *run_topic(rd_kafka_mock_cluster_t *cluster, int word_count, char *const *words)
{
    (void)word_count;
    long partitions = 0;
    if (!parse_number(words[1], 1, MAX_PARTITIONS, &partitions))
        return "expected a name and a number of partitions";
    return answer_of(rd_kafka_mock_topic_create(cluster, words[0], (int)partitions, 1));
}

static const char *run_leader(rd_kafka_mock_cluster_t *cluster, int word_count, char *const *words)
{
    (void)word_count;
    long partition = 0;
    long broker = 0;
    if (!parse_number(words[1], 0, MAX_PARTITIONS, &partition) ||
        !parse_number(words[2], -1, MAX_BROKERS, &broker))
        return "expected a topic, a partition and a broker";
    return answer_of(
        rd_kafka_mock_partition_set_leader(cluster, words[0], (int32_t)partition, (int32_t)broker));
}

static const struct command commands[] = {
    {"down", 0, 1, run_down},
    {"up", 0, 1, run_up},
    {"rtt", 1, 1, run_rtt},
    {"error", 3, 3, run_error},
    {"slow", 3, 3, run_slow},
    {"clear", 1, 1, run_clear},
    {"topic", 2, 2, run_topic},
    {"leader", 3, 3, run_leader},
};

static const char *run_command(rd_kafka_mock_cluster_t *cluster, char *line)
{
    char *words[MAX_WORDS] = {0};
    int word_count = 0;
    char *rest = NULL;
    for (char *word = strtok_r(line, " \t\r", &rest); word != NULL;
         word = strtok_r(NULL, " \t\r", &rest)) {
        if (word_count == MAX_WORDS)
            return "too many words";
        words[word_count++] = word;
    }
    if (word_count == 0)
        return "empty line";
    for (size_t i = 0; i < ARRAY_LENGTH(commands); i++) {
        if (strcmp(words[0], commands[i].name) != 0)
            continue;
        if (word_count - 1 < commands[i].minimum_words ||
            word_count - 1 > commands[i].maximum_words)
            return "wrong number of words";
        return commands[i].run(cluster, word_count - 1, words + 1);
    }
    return "unknown command";
}

/* Answers every complete line in `input`; returns the bytes that are left over, moved to its start.
 */
static size_t run_lines(rd_kafka_mock_cluster_t *cluster, char *input, size_t length)
{
    char *line = input;
    char *end = input + length;
    for (;;) {
        char *line_end = memchr(line, '\n', (size_t)(end - line));
        if (line_end == NULL)
            break;
        *line_end = '\0';
        const char *why = run_command(cluster, line);
        if (why == NULL)
            (void)puts("ok");
        else
            (void)printf("error: %s\n", why);
        (void)fflush(stdout);
        line = line_end + 1;
    }
    size_t left = (size_t)(end - line);
    memmove(input, line, left);
    return left;
}

static void serve(rd_kafka_mock_cluster_t *cluster, int signal_fd, bool reads_stdin)
{
    char input[MAX_LINE];
    size_t length = 0;
    struct pollfd waits[2] = {
        {.fd = signal_fd, .events = POLLIN},
        {.fd = reads_stdin ? STDIN_FILENO : -1, .events = POLLIN},
    };
    for (;;) {
        if (poll(waits, ARRAY_LENGTH(waits), -1) < 0 && errno != EINTR)
            return;
        if (waits[0].revents != 0)
            return;
        if (waits[1].revents == 0)
            continue;
        ssize_t count = read(STDIN_FILENO, input + length, sizeof(input) - length);
        if (count <= 0)
            return;
        length = run_lines(cluster, input, length + (size_t)count);
        if (length == sizeof(input)) {
            (void)puts("error: line too long");
            (void)fflush(stdout);
            length = 0;
        }
    }
}

static bool add_topic(struct options *options, const char *text)
{
    const char *colon = strrchr(text, ':');
    long partitions = 0;
    if (options->topic_count == MAX_TOPICS || colon == NULL || colon == text ||
        colon - text >= TOPIC_NAME_SIZE || !parse_number(colon + 1, 1, MAX_PARTITIONS, &partitions))
        return false;
    struct topic *topic = &options->topics[options->topic_count++];
    (void)snprintf(topic->name, sizeof(topic->name), "%.*s", (int)(colon - text), text);
    topic->partitions = (int)partitions;
    return true;
}

static bool parse_options(int argc, char **argv, struct options *ret_options)
{
    struct options options = {.brokers = 1};
    for (int i = 1; i < argc; i++) {
        bool has_value = i + 1 < argc;
        long brokers = 0;
        if (strcmp(argv[i], "--stdin") == 0) {
            options.reads_stdin = true;
        } else if (strcmp(argv[i], "--topic") == 0 && has_value) {
            if (!add_topic(&options, argv[++i]))
                return false;
        } else if (strcmp(argv[i], "--brokers") == 0 && has_value) {
            if (!parse_number(argv[++i], 1, MAX_BROKERS, &brokers))
                return false;
            options.brokers = (int)brokers;
        } else {
            return false;
        }
    }
    if (options.topic_count == 0) {
        memcpy(options.topics, default_topics, sizeof(default_topics));
        options.topic_count = ARRAY_LENGTH(default_topics);
    }
    *ret_options = options;
    return true;
}

/* SIGTERM and SIGINT as a descriptor; blocked before librdkafka starts its threads, which inherit
 * that. */
static int open_signals(void)
{
    sigset_t signals;
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGINT);
    if (sigprocmask(SIG_BLOCK, &signals, NULL) < 0)
        return -1;
    (void)signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &signals, SFD_CLOEXEC);
}

/* The mock cluster needs a client instance for its book-keeping and its thread; it never connects
 * anywhere. */
static rd_kafka_t *new_owner(void)
{
    char reason[256];
    rd_kafka_conf_t *configuration = rd_kafka_conf_new();
    if (rd_kafka_conf_set(configuration, "log_level", "3", reason, sizeof(reason)) !=
        RD_KAFKA_CONF_OK) {
        (void)fprintf(stderr, "embedded_broker: %s\n", reason);
        rd_kafka_conf_destroy(configuration);
        return NULL;
    }
    rd_kafka_t *owner = rd_kafka_new(RD_KAFKA_PRODUCER, configuration, reason, sizeof(reason));
    if (owner == NULL) {
        (void)fprintf(stderr, "embedded_broker: %s\n", reason);
        rd_kafka_conf_destroy(configuration);
    }
    return owner;
}

/* Every topic is made before the address is known to anyone: a metadata request for a missing one
 * would make it with the mock cluster's own number of partitions. */
static bool create_topics(rd_kafka_mock_cluster_t *cluster, const struct options *options)
{
    for (size_t i = 0; i < options->topic_count; i++) {
        const struct topic *topic = &options->topics[i];
        rd_kafka_resp_err_t error =
            rd_kafka_mock_topic_create(cluster, topic->name, topic->partitions, 1);
        if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
            continue;
        (void)fprintf(
            stderr, "embedded_broker: topic %s: %s\n", topic->name, rd_kafka_err2str(error));
        return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    static struct options options;
    if (!parse_options(argc, argv, &options)) {
        (void)fputs("usage: embedded_broker [--topic NAME:PARTITIONS]... [--brokers N] [--stdin]\n",
            stderr);
        return 2;
    }
    int signal_fd CLEANUP(fd_close) = open_signals();
    if (signal_fd < 0) {
        perror("embedded_broker: signalfd");
        return 1;
    }
    rd_kafka_t *owner = new_owner();
    if (owner == NULL)
        return 1;
    rd_kafka_mock_cluster_t *cluster = rd_kafka_mock_cluster_new(owner, options.brokers);
    bool is_ready = cluster != NULL && create_topics(cluster, &options);
    if (is_ready) {
        (void)printf("bootstrap.servers=%s\n", rd_kafka_mock_cluster_bootstraps(cluster));
        (void)fflush(stdout);
        serve(cluster, signal_fd, options.reads_stdin);
    }
    if (cluster != NULL)
        rd_kafka_mock_cluster_destroy(cluster);
    rd_kafka_destroy(owner);
    return is_ready ? 0 : 1;
}
