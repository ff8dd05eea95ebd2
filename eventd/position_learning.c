#include "eventd/position_learning.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/failpoint.h"
#include "common/log.h"
#include "eventd/partition_window.h"

#define NO_WORKER_DELAY_US  UINT64_C(1000000)
#define POSITION_TIMEOUT_US UINT64_C(5000000)
#define TIMER_ACCURACY_US   UINT64_C(10000)
#define NEVER_US            (UINT64_MAX / 4)

enum learning_phase {
    LEARNING_NOTHING,
    LEARNING_WAITING, /* will ask when the timer fires or a worker is there */
    LEARNING_ASKING_WORKER,
    LEARNING_ASKING_KAFKA,
};

/* What PostgreSQL says of a partition. */
struct learnt_position {
    int64_t offset; /* -1: none */
    struct log_mark record_below;
};

struct position_learning {
    struct position_learning_options options;
    sd_event_source *timer; /* owned */
    enum learning_phase phase;
    uint64_t id;           /* of the newest questions; answers to older ones are ignored */
    unsigned int failures; /* in a row */
    char *cluster;         /* owned */
    char database[COMMIT_NOTE_DATABASE_SIZE];
    rd_kafka_topic_partition_list_t *partitions; /* owned */
    struct learnt_position *positions;           /* owned; in the order of the partitions */
    bool has_said_no_worker;
};

struct logs_question {
    struct kafka_question question;
    struct position_learning *learning;
    uint64_t id;
};

static void wait_for(struct position_learning *learning, uint64_t delay_us)
{
    (void)sd_event_source_set_time_relative(learning->timer, delay_us);
    (void)sd_event_source_set_enabled(learning->timer, SD_EVENT_ONESHOT);
}

static void start_over(struct position_learning *learning, uint64_t delay_us)
{
    learning->phase = LEARNING_WAITING;
    learning->id++;
    wait_for(learning, delay_us);
}

static void retry(struct position_learning *learning)
{
    learning->failures++;
    start_over(learning, partition_window_delay_us(learning->failures, arc4random()));
}

/* ---- the end ---- */

/* Fills what is known of the partitions that Kafka has answered for; the others become missing.
 * Returns how many are known. */
static size_t gather_facts(struct position_learning *learning, const struct kafka_log *logs,
    size_t count, struct consumer_start_facts *facts)
{
    size_t known = 0;
    for (size_t i = 0; i < count; i++) {
        const struct kafka_log *log = &logs[i];
        struct audited_log *audited =
            log_audit_find(learning->options.audit, log->topic, log->partition);
        if (audited == NULL || log->error != RD_KAFKA_RESP_ERR_NO_ERROR) {
            log_warn("partition is left out topic=%s partition=%" PRIi32
                     " reason=%s: the others are read",
                log->topic, log->partition, rd_kafka_err2name(log->error));
            if (audited != NULL)
                audited->is_missing = true;
            continue;
        }
        facts[known++] = (struct consumer_start_facts){
            .stored = learning->positions[i].offset,
            .stored_record = learning->positions[i].record_below,
            .anchor = audited->anchor.offset == log->looks_at[1] ? audited->anchor : LOG_MARK_NONE,
            .is_recreated = audited->is_recreated,
            .log = log,
            .commit =
                commit_note_origin(log->note, log->note_length, log->committed, learning->database),
        };
    }
    return known;
}

static void choose_start(struct position_learning *learning,
    const struct consumer_start_facts *facts, bool has_rollback, struct consumer_start *ret_start)
{
    struct log_audit *audit = learning->options.audit;
    *ret_start = consumer_start_choose(facts, has_rollback);
    struct audited_log *audited = log_audit_find(audit, ret_start->topic, ret_start->partition);
    /* Once, however often it is learned before PostgreSQL has it. */
    if (audited->told_offset != ret_start->offset &&
        consumer_start_tell(ret_start, facts, learning->options.slot))
        audited->told_offset = ret_start->offset;
    audited->is_recreated = ret_start->reason == START_RECREATED;
    if (ret_start->offset != ret_start->stored)
        return; /* known when PostgreSQL has it */
    bool is_verified = facts->stored_record.offset >= 0 &&
                       facts->log->found[0].offset == facts->stored_record.offset;
    audited_log_start(
        audited, ret_start->offset, is_verified ? &facts->stored_record : &LOG_MARK_NONE);
}

static void finish(struct position_learning *learning, const struct kafka_log *logs, size_t count)
{
    struct consumer_start_facts *facts = calloc(count + 1, sizeof(*facts));
    struct consumer_start *starts = calloc(count + 1, sizeof(*starts));
    size_t known = 0;
    if (facts != NULL && starts != NULL)
        known = gather_facts(learning, logs, count, facts);
    bool has_rollback = false;
    for (size_t i = 0; i < known; i++)
        has_rollback |= consumer_start_shows_rollback(&facts[i]);
    for (size_t i = 0; i < known; i++)
        choose_start(learning, &facts[i], has_rollback, &starts[i]);
    if (known == 0 && count > 0) {
        retry(learning);
    } else {
        learning->phase = LEARNING_NOTHING;
        learning->failures = 0;
        learning->options.on_learned(starts, known, learning->options.userdata);
    }
    free(facts);
    free(starts);
}

/* ---- Kafka ---- */

static void on_logs(struct kafka_question *question, void *userdata)
{
    struct logs_question *asked = userdata;
    struct position_learning *learning = asked->learning;
    if (asked->id == learning->id && learning->phase == LEARNING_ASKING_KAFKA)
        finish(learning, question->logs, question->log_count);
    kafka_logs_free(question->logs, question->log_count);
    free(asked);
}

static void ask_kafka(struct position_learning *learning)
{
    size_t count = (size_t)learning->partitions->cnt;
    struct logs_question *asked = calloc(1, sizeof(*asked));
    struct kafka_log *logs = kafka_logs_new(learning->partitions);
    if (asked == NULL || logs == NULL) {
        free(asked);
        kafka_logs_free(logs, count);
        retry(learning);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        const struct audited_log *audited =
            log_audit_find(learning->options.audit, logs[i].topic, logs[i].partition);
        logs[i].looks_at[0] = learning->positions[i].record_below.offset;
        logs[i].looks_at[1] = audited == NULL ? -1 : audited->anchor.offset;
    }
    asked->learning = learning;
    asked->id = learning->id;
    asked->question = (struct kafka_question){
        .kind = KAFKA_QUESTION_LOGS,
        .client = learning->options.consumer,
        .logs = logs,
        .log_count = count,
        .with_commits = true,
        .on_answer = on_logs,
        .userdata = asked,
    };
    learning->phase = LEARNING_ASKING_KAFKA;
    kafka_asker_ask(learning->options.asker, &asked->question);
}

/* ---- PostgreSQL ---- */

static void take_position(struct position_learning *learning, const Userd__Ipc__Position *position)
{
    for (int i = 0; i < learning->partitions->cnt; i++) {
        if (learning->partitions->elems[i].partition != position->partition ||
            strcmp(learning->partitions->elems[i].topic, position->topic) != 0)
            continue;
        struct learnt_position *learnt = &learning->positions[i];
        learnt->offset = position->next_offset;
        const Userd__Ipc__RecordMark *mark = position->record_below;
        if (mark != NULL)
            learnt->record_below = (struct log_mark){.offset = mark->offset,
                .timestamp_ms = mark->timestamp_ms,
                .checksum = mark->checksum};
    }
}

void position_learning_on_positions(
    struct position_learning *learning, const Userd__Ipc__PositionResult *result)
{
    if (result->id != learning->id || learning->phase != LEARNING_ASKING_WORKER)
        return;
    if (!result->is_available) {
        retry(learning);
        return;
    }
    for (int i = 0; i < learning->partitions->cnt; i++)
        learning->positions[i] =
            (struct learnt_position){.offset = -1, .record_below = LOG_MARK_NONE};
    for (size_t i = 0; i < result->n_positions; i++)
        take_position(learning, result->positions[i]);
    (void)snprintf(learning->database, sizeof(learning->database), "%s", result->database);
    if (result->n_other_clusters > 0)
        log_warn(
            "positions of other kafka clusters are stored cluster=%s other=%s others=%zu: they "
            "do not count here",
            learning->cluster, result->other_clusters[0], result->n_other_clusters);
    ask_kafka(learning);
}

static void ask_worker(struct position_learning *learning)
{
    struct worker_peer *peer = worker_peers_pick(learning->options.peers);
    if (peer == NULL) {
        if (!learning->has_said_no_worker)
            log_info("waiting for a worker with a database");
        learning->has_said_no_worker = true;
        wait_for(learning, NO_WORKER_DELAY_US);
        return;
    }
    learning->has_said_no_worker = false;
    Userd__Ipc__PositionRequest request;
    userd__ipc__position_request__init(&request);
    request.id = learning->id;
    request.cluster = learning->cluster;
    Userd__Ipc__Frame frame = USERD__IPC__FRAME__INIT;
    frame.body_case = USERD__IPC__FRAME__BODY_POSITION_REQUEST;
    frame.position_request = &request;
    if (consumer_start_send_request(peer, &frame, learning->partitions) < 0) {
        retry(learning);
        return;
    }
    learning->phase = LEARNING_ASKING_WORKER;
    FAILPOINT("group.asked");
    wait_for(learning, POSITION_TIMEOUT_US);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    (void)source;
    (void)usec;
    struct position_learning *learning = userdata;
    if (learning->phase == LEARNING_ASKING_WORKER) {
        log_warn("worker does not answer with positions: asking again");
        retry(learning);
    } else if (learning->phase == LEARNING_WAITING) {
        ask_worker(learning);
    }
    return 0;
}

void position_learning_on_worker_available(struct position_learning *learning)
{
    if (learning->phase == LEARNING_WAITING && learning->failures == 0)
        wait_for(learning, 0);
}

/* ---- begin and cancel ---- */

static void forget(struct position_learning *learning)
{
    if (learning->partitions != NULL)
        rd_kafka_topic_partition_list_destroy(learning->partitions);
    learning->partitions = NULL;
    free(learning->positions);
    learning->positions = NULL;
    free(learning->cluster);
    learning->cluster = NULL;
}

void position_learning_cancel(struct position_learning *learning)
{
    learning->phase = LEARNING_NOTHING;
    learning->id++;
    learning->failures = 0;
}

void position_learning_begin(struct position_learning *learning, const char *cluster,
    const rd_kafka_topic_partition_list_t *partitions, uint64_t delay_us)
{
    position_learning_cancel(learning);
    forget(learning);
    learning->partitions = rd_kafka_topic_partition_list_copy(partitions);
    learning->positions = calloc((size_t)partitions->cnt + 1, sizeof(*learning->positions));
    learning->cluster = strdup(cluster);
    if (learning->positions == NULL || learning->cluster == NULL) {
        log_error("no memory for partitions count=%d: leaving", partitions->cnt);
        (void)sd_event_exit(learning->options.event, 1);
        return;
    }
    start_over(learning, delay_us);
}

const char *position_learning_database(const struct position_learning *learning)
{
    return learning->database;
}

int position_learning_new(
    const struct position_learning_options *options, struct position_learning **ret_learning)
{
    /* Lives as long as the process. */
    struct position_learning *learning = calloc(1, sizeof(*learning));
    if (learning == NULL)
        return -ENOMEM;
    learning->options = *options;
    int result = sd_event_add_time_relative(options->event, &learning->timer, CLOCK_MONOTONIC,
        NEVER_US, TIMER_ACCURACY_US, on_timer, learning);
    if (result < 0) {
        free(learning);
        return result;
    }
    *ret_learning = learning;
    return 0;
}
