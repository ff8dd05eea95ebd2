#include "eventd/consumer_start.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "common/log.h"

static bool is_recreated(const struct consumer_start_facts *facts)
{
    const struct kafka_log *log = facts->log;
    return facts->is_recreated || facts->stored > log->extent.high ||
           !log_mark_fits(&facts->stored_record, &log->found[0], &log->extent) ||
           !log_mark_fits(&facts->anchor, &log->found[1], &log->extent);
}

/* Of another program, and in the log. */
static bool has_foreign_commit(const struct consumer_start_facts *facts)
{
    const struct kafka_log *log = facts->log;
    return facts->commit == COMMIT_FOREIGN && log->committed >= log->extent.low &&
           log->committed <= log->extent.high;
}

bool consumer_start_shows_rollback(const struct consumer_start_facts *facts)
{
    return facts->commit == COMMIT_OURS && facts->log->committed > facts->stored &&
           facts->log->committed <= facts->log->extent.high && !is_recreated(facts);
}

static enum consumer_start_reason choose_reason(
    const struct consumer_start_facts *facts, bool has_rollback)
{
    if (is_recreated(facts))
        return START_RECREATED;
    if (has_foreign_commit(facts) && !has_rollback && facts->log->committed > facts->stored)
        return facts->stored < 0 ? START_COMMITTED : START_FOREIGN;
    if (facts->stored < 0)
        return START_EARLIEST;
    return facts->stored < facts->log->extent.low ? START_EXPIRED : START_STORED;
}

struct consumer_start consumer_start_choose(
    const struct consumer_start_facts *facts, bool has_rollback)
{
    struct consumer_start start = {
        .topic = facts->log->topic,
        .partition = facts->log->partition,
        .stored = facts->stored < 0 ? -1 : facts->stored,
        .offset = facts->log->extent.low,
        .reason = choose_reason(facts, has_rollback),
    };
    if (start.reason == START_COMMITTED || start.reason == START_FOREIGN)
        start.offset = facts->log->committed;
    else if (start.reason == START_STORED)
        start.offset = facts->stored;
    return start;
}

static bool shows_other_database(const struct consumer_start_facts *facts)
{
    return facts->commit == COMMIT_OTHER_DATABASE && facts->log->committed > facts->stored;
}

static void tell_reason(const struct consumer_start *start,
    const struct consumer_start_facts *facts, struct scoreboard_slot *slot)
{
    switch (start->reason) {
    case START_STORED:
        break;
    case START_EARLIEST:
    case START_COMMITTED:
        log_info("no position stored topic=%s partition=%" PRIi32 " start=%s offset=%" PRIi64,
            start->topic, start->partition,
            start->reason == START_COMMITTED ? "committed" : "earliest", start->offset);
        break;
    case START_FOREIGN:
        scoreboard_add(&slot->kafka_foreign_progress, 1);
        log_warn("another program has consumed further topic=%s partition=%" PRIi32
                 " position=%" PRIi64 " committed=%" PRIi64 ": going on from what it has committed",
            start->topic, start->partition, start->stored, start->offset);
        break;
    case START_RECREATED:
        scoreboard_add(&slot->kafka_log_recreated, 1);
        log_error("partition was made anew topic=%s partition=%" PRIi32 " position=%" PRIi64
                  " earliest=%" PRIi64 " end=%" PRIi64
                  ": its records are not those that the position counts; reading it from its start",
            start->topic, start->partition, start->stored, start->offset, facts->log->extent.high);
        break;
    case START_EXPIRED:
        log_error("records have expired unread topic=%s partition=%" PRIi32 " position=%" PRIi64
                  " earliest=%" PRIi64 ": reading from the earliest",
            start->topic, start->partition, start->stored, start->offset);
        break;
    }
}

bool consumer_start_tell(const struct consumer_start *start,
    const struct consumer_start_facts *facts, struct scoreboard_slot *slot)
{
    tell_reason(start, facts, slot);
    if (consumer_start_shows_rollback(facts)) {
        scoreboard_add(&slot->kafka_database_rollbacks, 1);
        log_error("database went back topic=%s partition=%" PRIi32 " position=%" PRIi64
                  " committed=%" PRIi64 ": what it has forgotten is read again",
            start->topic, start->partition, start->stored, facts->log->committed);
    }
    if (shows_other_database(facts))
        log_error("userd on another database commits in this group topic=%s partition=%" PRIi32
                  " position=%" PRIi64 " committed=%" PRIi64 ": its progress does not count here",
            start->topic, start->partition, start->stored, facts->log->committed);
    return start->reason != START_STORED || consumer_start_shows_rollback(facts) ||
           shows_other_database(facts);
}

int consumer_start_send_request(struct worker_peer *peer, Userd__Ipc__Frame *frame,
    const rd_kafka_topic_partition_list_t *partitions)
{
    size_t count = (size_t)partitions->cnt;
    Userd__Ipc__TopicPartition *asked = calloc(count + 1, sizeof(*asked));
    Userd__Ipc__TopicPartition **pointers = calloc(count + 1, sizeof(Userd__Ipc__TopicPartition *));
    int result = -ENOMEM;
    if (asked != NULL && pointers != NULL) {
        for (size_t i = 0; i < count; i++) {
            userd__ipc__topic_partition__init(&asked[i]);
            asked[i].topic = partitions->elems[i].topic;
            asked[i].partition = partitions->elems[i].partition;
            pointers[i] = &asked[i];
        }
        frame->position_request->n_partitions = count;
        frame->position_request->partitions = pointers;
        result = worker_peers_send(peer, frame);
    }
    free(asked);
    free(pointers);
    return result;
}
