/* userd-eventd: the one process that owns Kafka.
 *
 * It must never: know the database or its credentials, decide what an event means, hold state that
 * is worth keeping (it may be killed at any instruction), or let its loop wait for a broker.
 *
 * Outbound: worker_peers -> publish_flow -> Kafka and back. Inbound: consumer_group -> deliver_flow
 * -> worker_peers and back. kafka_watch looks at the cluster and tells topic_setup, publish_flow
 * and consumer_group what there is.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "common/log.h"
#include "common/monotonic_clock.h"
#include "common/process_link.h"
#include "common/process_protocol.h"
#include "common/process_verdict.h"
#include "common/program_words.h"
#include "eventd/configuration_check.h"
#include "eventd/consumer_group.h"
#include "eventd/dead_letter_command.h"
#include "eventd/dead_letter_notes.h"
#include "eventd/deliver_flow.h"
#include "eventd/kafka_asker.h"
#include "eventd/kafka_client.h"
#include "eventd/kafka_statistics.h"
#include "eventd/kafka_watch.h"
#include "eventd/publish_flow.h"
#include "eventd/topic_setup.h"
#include "eventd/worker_peers.h"

#define DRAIN_STEP_US       UINT64_C(10000)
#define CLOSE_TIMEOUT_US    UINT64_C(2000000)
#define MICROSECONDS_PER_MS UINT64_C(1000)

enum drain_phase { DRAIN_NONE, DRAIN_IN_FLIGHT, DRAIN_CLOSING };

struct eventd {
    struct process_link link;
    rd_kafka_t *consumer;
    struct kafka_asker *watch_asker; /* its own: it says when Kafka is away */
    struct kafka_asker *log_asker;
    struct log_audit *audit;
    struct kafka_watch *watch;
    struct topic_setup *topics;
    struct dead_letter_notes *notes;
    struct worker_peers *peers;
    struct publish_flow *publish;
    struct consumer_group *group;
    struct deliver_flow *deliver;
    enum drain_phase drain_phase;
    uint64_t drain_deadline_us;
    uint64_t commit_deadline_us; /* of the drain */
    sd_event_source *drain_timer;
};

/* ---- between the workers and the flows ---- */

static int on_frame(struct worker_peer *peer, const Userd__Ipc__Frame *frame, void *userdata)
{
    struct eventd *eventd = userdata;
    switch ((int)frame->body_case) {
    case USERD__IPC__FRAME__BODY_PUBLISH_BATCH:
        return publish_flow_on_batch(eventd->publish, peer, frame->publish_batch);
    case USERD__IPC__FRAME__BODY_DELIVER_RESULT:
        deliver_flow_on_result(eventd->deliver, peer, frame->deliver_result);
        return 0;
    case USERD__IPC__FRAME__BODY_POSITION_RESULT:
        consumer_group_on_positions(eventd->group, frame->position_result);
        return 0;
    default:
        log_error("worker sent a frame that is none of its kind slot=%" PRIu32 " kind=%d",
            peer->slot, (int)frame->body_case);
        return -EPROTO;
    }
}

static void on_worker_available(struct worker_peer *peer, void *userdata)
{
    (void)peer;
    struct eventd *eventd = userdata;
    consumer_group_on_worker_available(eventd->group);
    deliver_flow_on_worker_available(eventd->deliver);
}

static void on_worker_gone(struct worker_peer *peer, void *userdata)
{
    struct eventd *eventd = userdata;
    deliver_flow_on_worker_gone(eventd->deliver, peer->serial);
}

static const struct worker_peers_handlers peers_handlers = {
    .on_frame = on_frame,
    .on_available = on_worker_available,
    .on_gone = on_worker_gone,
};

/* ---- between Kafka and the flows ---- */

static bool on_cluster(
    const char *cluster, const struct rd_kafka_metadata *metadata, void *userdata)
{
    struct eventd *eventd = userdata;
    const struct settings *settings = &eventd->link.settings;
    bool has_dead_letters = kafka_watch_has_topic(metadata, settings->kafka.dead_letter_topic);
    publish_flow_set_topics(eventd->publish,
        kafka_watch_has_topic(metadata, settings->kafka.delete_topic), has_dead_letters);
    dead_letter_notes_update(
        eventd->notes, has_dead_letters, monotonic_clock_turn_us(eventd->link.event));
    consumer_group_update(eventd->group, cluster, metadata);
    return topic_setup_update(
        eventd->topics, metadata, monotonic_clock_turn_us(eventd->link.event));
}

static void on_start(const struct consumer_start *starts, size_t count, void *userdata)
{
    struct eventd *eventd = userdata;
    deliver_flow_start(eventd->deliver, starts, count);
}

static void on_stop(void *userdata)
{
    struct eventd *eventd = userdata;
    deliver_flow_stop(eventd->deliver);
}

static void on_trouble(void *userdata)
{
    struct eventd *eventd = userdata;
    kafka_watch_hurry(eventd->watch);
}

static void on_admin_event(rd_kafka_event_t *event, void *userdata)
{
    struct eventd *eventd = userdata;
    if (topic_setup_on_result(eventd->topics, event))
        kafka_watch_hurry(eventd->watch);
}

static void on_statistics(const char *json, void *userdata)
{
    struct eventd *eventd = userdata;
    kafka_statistics_show(eventd->link.slot, RD_KAFKA_CONSUMER, json, strlen(json));
}

static const struct consumer_group_handlers group_handlers = {
    .on_statistics = on_statistics,
    .on_start = on_start,
    .on_stop = on_stop,
    .on_trouble = on_trouble,
    .on_admin_event = on_admin_event,
};

static void on_log_changed(void *userdata)
{
    struct eventd *eventd = userdata;
    consumer_group_relearn(eventd->group);
}

static void on_log_mark(struct audited_log *log, void *userdata)
{
    struct eventd *eventd = userdata;
    deliver_flow_store_mark(eventd->deliver, log);
}

/* ---- the way out ---- */

/* In flight first, then the group: each with a deadline, none of it waiting inside librdkafka. */
static int on_drain_step(sd_event_source *source, uint64_t usec, void *userdata)
{
    (void)usec;
    struct eventd *eventd = userdata;
    uint64_t now = monotonic_clock_turn_us(eventd->link.event);
    bool is_late = now >= eventd->drain_deadline_us;
    bool is_idle = deliver_flow_is_idle(eventd->deliver) && publish_flow_is_idle(eventd->publish);
    if (eventd->drain_phase == DRAIN_IN_FLIGHT && is_idle && !is_late &&
        now < eventd->commit_deadline_us && !deliver_flow_is_committed(eventd->deliver)) {
        deliver_flow_commit(eventd->deliver);
    } else if (eventd->drain_phase == DRAIN_IN_FLIGHT && (is_late || is_idle)) {
        eventd->drain_phase = DRAIN_CLOSING;
        uint64_t close_deadline_us = now + CLOSE_TIMEOUT_US;
        if (close_deadline_us < eventd->drain_deadline_us)
            eventd->drain_deadline_us = close_deadline_us;
        /* Commits what is applied, then tells the group. */
        consumer_group_close(eventd->group);
    } else if (eventd->drain_phase == DRAIN_CLOSING &&
               (is_late || consumer_group_is_closed(eventd->group))) {
        log_info("drained late=%d", is_late);
        process_link_exit(&eventd->link, 0);
        return 0;
    }
    (void)sd_event_source_set_time_relative(source, DRAIN_STEP_US);
    (void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
    return 0;
}

static void on_drain(struct process_link *link, unsigned int timeout_ms, void *userdata)
{
    struct eventd *eventd = userdata;
    log_info("draining timeout_ms=%u", timeout_ms);
    deliver_flow_drain(eventd->deliver);
    publish_flow_drain(eventd->publish);
    eventd->drain_phase = DRAIN_IN_FLIGHT;
    eventd->drain_deadline_us =
        monotonic_clock_turn_us(eventd->link.event) + timeout_ms * MICROSECONDS_PER_MS;
    /* Whoever goes on from the commits would read again what they miss. */
    eventd->commit_deadline_us = monotonic_clock_turn_us(eventd->link.event) + CLOSE_TIMEOUT_US;
    int result = sd_event_add_time_relative(link->event, &eventd->drain_timer, CLOCK_MONOTONIC, 0,
        DRAIN_STEP_US / 2, on_drain_step, eventd);
    if (result < 0)
        process_link_exit(link, 0);
}

static void on_peer_link(struct process_link *link, uint32_t slot, int *fd, void *userdata)
{
    (void)link;
    struct eventd *eventd = userdata;
    worker_peers_add(eventd->peers, slot, fd);
}

static const struct process_link_handlers link_handlers = {
    .on_peer_link = on_peer_link,
    .on_drain = on_drain,
};

/* ---- the way in ---- */

static int build_consumer(struct eventd *eventd)
{
    struct process_link *link = &eventd->link;
    struct deliver_flow_options deliver = {
        .event = link->event,
        .settings = &link->settings,
        .slot = link->slot,
        .consumer = eventd->consumer,
        .peers = eventd->peers,
        .audit = eventd->audit,
    };
    int result = deliver_flow_new(&deliver, &eventd->deliver);
    if (result < 0)
        return result;
    struct consumer_group_options group = {
        .event = link->event,
        .settings = &link->settings,
        .consumer = eventd->consumer,
        .asker = eventd->log_asker,
        .peers = eventd->peers,
        .audit = eventd->audit,
        .slot = link->slot,
        .handlers = &group_handlers,
        .userdata = eventd,
    };
    result = consumer_group_new(&group, &eventd->group);
    if (result < 0)
        return result;
    deliver_flow_set_group(eventd->deliver, eventd->group);
    return 0;
}

static int build_audit(struct eventd *eventd)
{
    struct process_link *link = &eventd->link;
    const struct log_audit_options audit = {
        .event = link->event,
        .settings = &link->settings,
        .consumer = eventd->consumer,
        .asker = eventd->log_asker,
        .slot = link->slot,
        .on_changed = on_log_changed,
        .on_mark = on_log_mark,
        .userdata = eventd,
    };
    return log_audit_new(&audit, &eventd->audit);
}

static int build(struct eventd *eventd)
{
    struct process_link *link = &eventd->link;
    int result = kafka_client_new_consumer(&link->settings, &eventd->consumer);
    if (result >= 0)
        result = kafka_asker_new(link->event, &link->settings, &eventd->watch_asker);
    if (result >= 0)
        result = kafka_asker_new(link->event, &link->settings, &eventd->log_asker);
    if (result >= 0)
        result = build_audit(eventd);
    if (result >= 0)
        result = worker_peers_new(link->event, &peers_handlers, eventd, &eventd->peers);
    if (result >= 0)
        result = publish_flow_new(
            link->event, &link->settings, eventd->peers, link->slot, &eventd->publish);
    if (result >= 0)
        result = build_consumer(eventd);
    if (result >= 0)
        result = topic_setup_new(&link->settings, eventd->consumer,
            consumer_group_queue(eventd->group), &eventd->topics);
    if (result >= 0)
        result = dead_letter_notes_new(&link->settings, &eventd->notes);
    if (result >= 0)
        result = kafka_watch_new(
            link->event, eventd->watch_asker, eventd->consumer, on_cluster, eventd, &eventd->watch);
    return result;
}

static int run(struct eventd *eventd)
{
    int result = build(eventd);
    if (result < 0) {
        log_error("eventd cannot start error=%d", result);
        return result == -EINVAL ? EX_CONFIG : EXIT_FAILURE;
    }
    /* Ready does not wait for Kafka: calls are served and the outbox keeps what happens. */
    kafka_watch_start(eventd->watch, eventd->link.slot);
    if (process_link_ready(&eventd->link) < 0)
        return EXIT_FAILURE;
    return process_link_run(&eventd->link);
}

static int run_dead_letters(int word_count, char **words)
{
    static const struct process_link_handlers handlers = {0};
    static struct process_link link;
    if (process_link_open(&link, PROCESS_ROLE_DEAD_LETTERS, &handlers, NULL) < 0)
        return EXIT_FAILURE;
    return dead_letter_command(&link, word_count, words);
}

static int run_check(bool connects)
{
    static const struct process_link_handlers handlers = {0};
    static struct process_link link;
    if (process_link_open(&link, PROCESS_ROLE_CHECK, &handlers, NULL) < 0)
        return EXIT_FAILURE;
    return configuration_check(&link, connects);
}

int main(int argc, char **argv)
{
    if (program_words_answer(argc, argv, "userd-eventd",
            "carries events between Kafka and the workers; started by userd alone, see userd help"))
        return EXIT_SUCCESS;
    /* As below: no client is closed. */
    if (argc > 1 && strcmp(argv[1], PROCESS_ROLE_DEAD_LETTERS) == 0)
        _exit(run_dead_letters(argc - 2, argv + 2));
    if (argc > 1 && strcmp(argv[1], PROCESS_ROLE_CHECK) == 0)
        _exit(run_check(argc > 2 && strcmp(argv[2], PROCESS_VERDICT_CONNECT) == 0));
    static struct eventd eventd;
    if (argc != 2 || strcmp(argv[1], PROCESS_ROLE_EVENTD) != 0)
        log_error("userd-eventd is started by userd");
    if (process_link_open(&eventd.link, PROCESS_ROLE_EVENTD, &link_handlers, &eventd) < 0)
        return EXIT_FAILURE;
    int status = run(&eventd);
    /* Closing librdkafka's clients can wait for ever on a hung broker, and nothing here is worth
     * keeping. */
    _exit(status);
}
