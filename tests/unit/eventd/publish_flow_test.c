#include <criterion/criterion.h>
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <netdb.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/ipc_channel.h"
#include "common/monotonic_clock.h"
#include "common/scoreboard.h"
#include "common/settings.h"
#include "eventd/publish_flow.h"
#include "eventd/worker_peers.h"

#define SLOT        1
#define EPOCH       7
#define LAST_ROW    100
#define DEADLINE_MS 20000
#define TURN_US     UINT64_C(20000)
#define ANSWERS_MS  60000 /* a broker's answers that do not come while a test runs */

#define API_PRODUCE 0

/* ---- a name server that does not answer: librdkafka's broker thread waits in getaddrinfo() ----
 */

static pthread_mutex_t resolver_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t resolver_condition = PTHREAD_COND_INITIALIZER;
static char resolver_hangs_for[16]; /* the port; "": for nobody */
static bool resolver_is_reached;

/* In the place of the C library's for everything in this program. Knows the mock cluster's
 * addresses only. */
/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name): names that say something */
int getaddrinfo(const char *restrict name, const char *restrict service,
    const struct addrinfo *restrict hints, struct addrinfo **restrict ret_addresses)
{
    (void)name;
    (void)hints;
    (void)pthread_mutex_lock(&resolver_mutex);
    while (resolver_hangs_for[0] != '\0' && strcmp(service, resolver_hangs_for) == 0) {
        resolver_is_reached = true;
        (void)pthread_cond_wait(&resolver_condition, &resolver_mutex);
    }
    (void)pthread_mutex_unlock(&resolver_mutex);
    struct resolved {
        struct addrinfo info;
        struct sockaddr_in address;
    } *resolved = calloc(1, sizeof(*resolved));
    if (resolved == NULL)
        return EAI_MEMORY;
    resolved->address.sin_family = AF_INET;
    resolved->address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    resolved->address.sin_port = htons((uint16_t)strtoul(service, NULL, 10));
    resolved->info.ai_family = AF_INET;
    resolved->info.ai_socktype = SOCK_STREAM;
    resolved->info.ai_addrlen = sizeof(resolved->address);
    resolved->info.ai_addr = (struct sockaddr *)&resolved->address;
    *ret_addresses = &resolved->info;
    return 0;
}

/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name): names that say something */
void freeaddrinfo(struct addrinfo *addresses)
{
    free(addresses);
}

static void resolver_hang_for(const char *port)
{
    (void)pthread_mutex_lock(&resolver_mutex);
    (void)snprintf(resolver_hangs_for, sizeof(resolver_hangs_for), "%s", port);
    resolver_is_reached = false;
    (void)pthread_cond_broadcast(&resolver_condition);
    (void)pthread_mutex_unlock(&resolver_mutex);
}

static bool is_resolver_reached(void)
{
    (void)pthread_mutex_lock(&resolver_mutex);
    bool is_reached = resolver_is_reached;
    (void)pthread_mutex_unlock(&resolver_mutex);
    return is_reached;
}

/* ---- two brokers, a flow, and the relay's end of a worker's channel ---- */

enum row_state { ROW_UNANSWERED, ROW_DELIVERED, ROW_FAILED };

static sd_event *event;
static struct settings settings;
static struct scoreboard_slot slot;
static rd_kafka_t *owner;
static rd_kafka_mock_cluster_t *cluster;
static struct worker_peers *peers;
static struct ipc_channel *relay;
static struct publish_flow *flow;
static enum row_state rows[LAST_ROW + 1];
static size_t answered;

static int on_worker_frame(struct worker_peer *peer, const Userd__Ipc__Frame *frame, void *userdata)
{
    (void)userdata;
    cr_assert_eq(frame->body_case, USERD__IPC__FRAME__BODY_PUBLISH_BATCH);
    return publish_flow_on_batch(flow, peer, frame->publish_batch);
}

static void on_worker(struct worker_peer *peer, void *userdata)
{
    (void)peer;
    (void)userdata;
}

static int on_relay_frame(
    struct ipc_channel *channel, const Userd__Ipc__Frame *frame, int *fd, void *userdata)
{
    (void)channel;
    (void)fd;
    (void)userdata;
    cr_assert_eq(frame->body_case, USERD__IPC__FRAME__BODY_PUBLISH_RESULT);
    const Userd__Ipc__PublishResult *result = frame->publish_result;
    cr_assert_eq(result->epoch, EPOCH);
    for (size_t i = 0; i < result->n_delivered_ids; i++)
        rows[result->delivered_ids[i]] = ROW_DELIVERED;
    for (size_t i = 0; i < result->n_failures; i++) {
        cr_expect_not(result->failures[i]->is_permanent, "%s", result->failures[i]->reason);
        rows[result->failures[i]->id] = ROW_FAILED;
    }
    answered += result->n_delivered_ids + result->n_failures;
    return 0;
}

static void on_relay_closed(struct ipc_channel *channel, int error, void *userdata)
{
    (void)channel;
    (void)userdata;
    cr_assert_fail("the channel has ended error=%d", error);
}

static const struct worker_peers_handlers worker_handlers = {
    .on_frame = on_worker_frame, .on_available = on_worker, .on_gone = on_worker};
static const struct ipc_channel_handlers relay_handlers = {
    .on_frame = on_relay_frame, .on_closed = on_relay_closed};

/* Partition 0 of the topic is broker 1's, partition 1 broker 2's. */
static void given_two_brokers(void)
{
    char reason[256];
    owner = rd_kafka_new(RD_KAFKA_PRODUCER, rd_kafka_conf_new(), reason, sizeof(reason));
    cr_assert_not_null(owner, "%s", reason);
    cluster = rd_kafka_mock_cluster_new(owner, 2);
    cr_assert_not_null(cluster);
    const char *topic = settings.kafka.delete_topic;
    cr_assert_eq(rd_kafka_mock_topic_create(cluster, topic, 2, 1), RD_KAFKA_RESP_ERR_NO_ERROR);
    for (int32_t i = 0; i < 2; i++)
        cr_assert_eq(rd_kafka_mock_partition_set_leader(cluster, topic, i, i + 1),
            RD_KAFKA_RESP_ERR_NO_ERROR);
    free(settings.kafka.bootstrap_servers);
    settings.kafka.bootstrap_servers = strdup(rd_kafka_mock_cluster_bootstraps(cluster));
}

static void given_a_flow(void)
{
    int fds[2];
    cr_assert_geq(sd_event_new(&event), 0);
    cr_assert_eq(settings_init(&settings), 0);
    given_two_brokers();
    cr_assert_eq(ipc_channel_pair(fds), 0);
    cr_assert_eq(worker_peers_new(event, &worker_handlers, NULL, &peers), 0);
    worker_peers_add(peers, SLOT, &fds[0]);
    cr_assert_eq(ipc_channel_new(event, fds[1], "eventd", &relay_handlers, NULL, &relay), 0);
    cr_assert_eq(publish_flow_new(event, &settings, peers, &slot, &flow), 0);
    publish_flow_set_topics(flow, true, true);
}

static void when_rows_are_sent(int64_t first, int64_t last)
{
    Userd__Ipc__OutboxRow sent[LAST_ROW];
    Userd__Ipc__OutboxRow *pointers[LAST_ROW];
    char keys[LAST_ROW][8];
    Userd__Ipc__PublishBatch batch = USERD__IPC__PUBLISH_BATCH__INIT;
    batch.epoch = EPOCH;
    batch.rows = pointers;
    for (int64_t id = first; id <= last; id++) {
        Userd__Ipc__OutboxRow *row = pointers[batch.n_rows] = &sent[batch.n_rows];
        userd__ipc__outbox_row__init(row);
        row->id = id;
        row->destination = USERD__IPC__DESTINATION__DESTINATION_DELETE;
        row->has_key = true;
        row->key.data = (uint8_t *)keys[batch.n_rows];
        row->key.len = (size_t)snprintf(keys[batch.n_rows], sizeof(keys[0]), "%d", (int)id);
        row->has_value = true;
        batch.n_rows++;
    }
    Userd__Ipc__Frame frame = USERD__IPC__FRAME__INIT;
    frame.body_case = USERD__IPC__FRAME__BODY_PUBLISH_BATCH;
    frame.publish_batch = &batch;
    cr_assert_eq(ipc_channel_send(relay, &frame, -1), 0);
}

static size_t count_rows(int64_t first, int64_t last, enum row_state state)
{
    size_t count = 0;
    for (int64_t id = first; id <= last; id++)
        count += rows[id] == state ? 1 : 0;
    return count;
}

#define WAIT_FOR(condition)                                                                        \
    do {                                                                                           \
        for (int64_t end_ms = monotonic_clock_ms() + DEADLINE_MS; !(condition);) {                 \
            cr_assert_lt(monotonic_clock_ms(), end_ms, "not in time: %s; %zu answers", #condition, \
                answered);                                                                         \
            cr_assert_geq(sd_event_run(event, TURN_US), 0);                                        \
        }                                                                                          \
    } while (0)

/* Rows 1 to 20 are delivered, some of 21 to 40 are on their way to broker 2, which has dropped the
 * connection, and whose name is looked up in vain. */
static void given_rows_on_their_way_to_a_broker_that_is_looked_for(void)
{
    when_rows_are_sent(1, 20);
    WAIT_FOR(count_rows(1, 20, ROW_DELIVERED) == 20);
    cr_assert_eq(rd_kafka_mock_broker_set_rtt(cluster, 2, ANSWERS_MS), RD_KAFKA_RESP_ERR_NO_ERROR);
    when_rows_are_sent(21, 40);
    WAIT_FOR(count_rows(21, 40, ROW_DELIVERED) > 0);
    const char *port = strchr(strchr(settings.kafka.bootstrap_servers, ','), ':') + 1;
    resolver_hang_for(port);
    cr_assert_eq(rd_kafka_mock_broker_set_down(cluster, 2), RD_KAFKA_RESP_ERR_NO_ERROR);
    WAIT_FOR(is_resolver_reached());
    cr_assert_gt(count_rows(21, 40, ROW_UNANSWERED), 0);
}

TestSuite(publish_flow, .init = given_a_flow, .timeout = 90);

Test(publish_flow, gives_back_the_rows_that_a_fatal_producer_does_not_report)
{
    given_rows_on_their_way_to_a_broker_that_is_looked_for();
    cr_assert_eq(rd_kafka_mock_broker_push_request_error_rtts(
                     cluster, 1, API_PRODUCE, 1, RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER, 0),
        RD_KAFKA_RESP_ERR_NO_ERROR);
    when_rows_are_sent(41, 60);
    WAIT_FOR(count_rows(1, 60, ROW_UNANSWERED) == 0);
    WAIT_FOR(publish_flow_is_idle(flow));
    cr_expect_gt(count_rows(21, 40, ROW_FAILED), 0);

    resolver_hang_for("");
    cr_assert_eq(rd_kafka_mock_broker_set_rtt(cluster, 2, 0), RD_KAFKA_RESP_ERR_NO_ERROR);
    cr_assert_eq(rd_kafka_mock_broker_set_up(cluster, 2), RD_KAFKA_RESP_ERR_NO_ERROR);
    when_rows_are_sent(61, 80);
    WAIT_FOR(count_rows(61, 80, ROW_DELIVERED) == 20);
}
