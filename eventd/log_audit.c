#include "eventd/log_audit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

#define AUDIT_INTERVAL_US UINT64_C(2000000)
#define SHOW_INTERVAL_US  UINT64_C(1000000)
#define TIMER_ACCURACY_US UINT64_C(50000)

struct log_audit {
    struct log_audit_options options;
    struct audited_log *first;  /* owned, all of them */
    sd_event_source *timer;     /* owned: asks */
    sd_event_source *presenter; /* owned: puts the lag onto the scoreboard */
    bool is_asking;
};

/* One audit on its way. */
struct audit_round {
    struct kafka_question question;
    struct log_audit *audit;
    struct round_log {
        struct audited_log *log;
        unsigned int period;
        int64_t position;
        struct log_mark last; /* when it was asked: of the log, if the anchor is */
    } logs[];
};

static void arm(sd_event_source *source, uint64_t delay_us)
{
    (void)sd_event_source_set_time_relative(source, delay_us);
    (void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

struct audited_log *log_audit_find(struct log_audit *audit, const char *topic, int32_t partition)
{
    for (struct audited_log *log = audit->first; log != NULL; log = log->next) {
        if (log->partition == partition && strcmp(log->topic, topic) == 0)
            return log;
    }
    struct audited_log *log = calloc(1, sizeof(*log));
    char *copy = strdup(topic);
    if (log == NULL || copy == NULL) {
        free(log);
        free(copy);
        return NULL;
    }
    *log = (struct audited_log){
        .topic = copy,
        .partition = partition,
        .position = -1,
        .last = LOG_MARK_NONE,
        .anchor = LOG_MARK_NONE,
        .told_offset = -1,
        .committed = -1,
        .next = audit->first,
    };
    audit->first = log;
    return log;
}

void log_audit_watch(struct log_audit *audit, const rd_kafka_topic_partition_list_t *partitions)
{
    for (struct audited_log *log = audit->first; log != NULL; log = log->next)
        log->is_watched = false;
    for (int i = 0; i < partitions->cnt; i++) {
        struct audited_log *log =
            log_audit_find(audit, partitions->elems[i].topic, partitions->elems[i].partition);
        if (log == NULL)
            continue;
        log->is_watched = true;
        log->is_missing = false;
        log->position = -1;
        log->committed = -1;
        log->last = LOG_MARK_NONE;
        log->period++;
    }
    if (!audit->is_asking)
        arm(audit->timer, 0);
}

void log_audit_forget(struct log_audit *audit)
{
    for (struct audited_log *log = audit->first; log != NULL; log = log->next) {
        log->is_recreated = false;
        log->position = -1;
        log->last = LOG_MARK_NONE;
        log->anchor = LOG_MARK_NONE;
        log->told_offset = -1;
        log->has_extent = false;
        log->committed = -1;
        log->period++;
    }
}

void audited_log_start(struct audited_log *log, int64_t position, const struct log_mark *last)
{
    log->position = position;
    log->last = *last;
    if (log->anchor.offset < 0)
        log->anchor = *last;
    log->period++;
}

void audited_log_moved(struct audited_log *log, int64_t position)
{
    bool is_new_place = log->position != position;
    log->position = position;
    log->told_offset = -1;
    if (log->is_recreated)
        log->anchor = LOG_MARK_NONE;
    if (log->is_recreated || is_new_place)
        log->last = LOG_MARK_NONE;
    log->is_recreated = false;
    log->period++;
}

void audited_log_applied(struct audited_log *log, const struct log_mark *last)
{
    log->position = last->offset + 1;
    log->last = *last;
    if (log->anchor.offset < 0)
        log->anchor = *last;
}

/* ---- the lag ---- */

/* The end as the brokers said it with the last fetch, or when they were asked: the later one. */
static int64_t known_end(const struct log_audit *audit, const struct audited_log *log)
{
    int64_t low = 0;
    int64_t high = 0;
    rd_kafka_resp_err_t error = rd_kafka_get_watermark_offsets(
        audit->options.consumer, log->topic, log->partition, &low, &high);
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR || log->is_recreated || high < log->extent.high)
        return log->has_extent ? log->extent.high : -1;
    return high;
}

static uint64_t lag_of(const struct log_audit *audit, const struct audited_log *log)
{
    int64_t end = known_end(audit, log);
    int64_t position = log->position;
    /* While PostgreSQL cannot be asked, what the group has committed is the best that is known. */
    if (position < 0)
        position = log->committed >= 0 ? log->committed : log->extent.low;
    return end > position ? (uint64_t)(end - position) : 0;
}

static void set_row(struct scoreboard_lag *row, uint32_t topic, int32_t partition, uint64_t records)
{
    atomic_store_explicit(&row->topic, topic, memory_order_relaxed);
    atomic_store_explicit(&row->partition, partition, memory_order_relaxed);
    atomic_store_explicit(&row->records, records, memory_order_relaxed);
}

static void show_lag(const struct log_audit *audit)
{
    struct scoreboard_slot *slot = audit->options.slot;
    const char *registration = audit->options.settings->kafka.registration_topic;
    uint64_t total = 0;
    size_t rows = 0;
    for (const struct audited_log *log = audit->first; log != NULL; log = log->next) {
        if (!log->is_watched)
            continue;
        uint64_t lag = lag_of(audit, log);
        total += lag;
        if (rows < SCOREBOARD_LAGS)
            set_row(&slot->kafka_lags[rows++],
                strcmp(log->topic, registration) == 0 ? SCOREBOARD_TOPIC_REGISTRATION
                                                      : SCOREBOARD_TOPIC_ADMIN_DELETE,
                log->partition, lag);
    }
    while (rows < SCOREBOARD_LAGS)
        set_row(&slot->kafka_lags[rows++], 0, 0, 0);
    atomic_store_explicit(&slot->kafka_lag, total, memory_order_relaxed);
}

static int on_show(sd_event_source *source, uint64_t usec, void *userdata)
{
    (void)usec;
    show_lag(userdata);
    arm(source, SHOW_INTERVAL_US);
    return 0;
}

/* ---- the rounds ---- */

/* True: the log was made anew. */
static bool judge(struct audited_log *log, const struct round_log *asked,
    const struct kafka_log *answer, bool *ret_has_mark)
{
    if (log->is_recreated || asked->position < 0)
        return false;
    if (asked->position > answer->extent.high)
        return true;
    if (log->anchor.offset >= 0) {
        if (log->anchor.offset != answer->looks_at[0])
            return false; /* it has come since */
        if (!log_mark_fits(&log->anchor, &answer->found[0], &answer->extent))
            return true;
        if (asked->last.offset >= 0)
            log->anchor = asked->last;
        return false;
    }
    log->anchor = answer->found[0];
    if (answer->found[0].offset >= 0 && log->position == answer->found[0].offset + 1) {
        log->last = answer->found[0];
        *ret_has_mark = true;
    }
    return false;
}

/* True: what is read must be decided again. */
static bool take_answer(
    struct log_audit *audit, const struct round_log *asked, const struct kafka_log *answer)
{
    struct audited_log *log = asked->log;
    if (answer->error != RD_KAFKA_RESP_ERR_NO_ERROR || log->period != asked->period)
        return false;
    log->extent = answer->extent;
    log->has_extent = true;
    log->committed = answer->committed;
    if (log->is_missing) {
        log->is_missing = false;
        return true;
    }
    bool has_mark = false;
    if (judge(log, asked, answer, &has_mark)) {
        log_error("partition was made anew while it was read topic=%s partition=%" PRIi32
                  " position=%" PRIi64 " earliest=%" PRIi64 " end=%" PRIi64,
            log->topic, log->partition, log->position, answer->extent.low, answer->extent.high);
        log->is_recreated = true;
        return true;
    }
    if (has_mark)
        audit->options.on_mark(log, audit->options.userdata);
    return false;
}

static void on_answer(struct kafka_question *question, void *userdata)
{
    struct audit_round *round = userdata;
    struct log_audit *audit = round->audit;
    bool is_any_changed = false;
    for (size_t i = 0; i < question->log_count; i++)
        is_any_changed |= take_answer(audit, &round->logs[i], &question->logs[i]);
    kafka_logs_free(question->logs, question->log_count);
    free(round);
    audit->is_asking = false;
    arm(audit->timer, AUDIT_INTERVAL_US);
    show_lag(audit);
    if (is_any_changed)
        audit->options.on_changed(audit->options.userdata);
}

static rd_kafka_topic_partition_list_t *list_watched(const struct log_audit *audit)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(8);
    for (const struct audited_log *log = audit->first; log != NULL; log = log->next) {
        if (log->is_watched)
            (void)rd_kafka_topic_partition_list_add(list, log->topic, log->partition);
    }
    return list;
}

/* False: no memory, or nothing to ask. */
static bool ask(struct log_audit *audit, const rd_kafka_topic_partition_list_t *list)
{
    size_t count = (size_t)list->cnt;
    if (count == 0)
        return false;
    struct audit_round *round = calloc(1, sizeof(*round) + count * sizeof(round->logs[0]));
    struct kafka_log *logs = kafka_logs_new(list);
    if (round == NULL || logs == NULL) {
        free(round);
        kafka_logs_free(logs, count);
        return false;
    }
    round->audit = audit;
    round->question = (struct kafka_question){
        .kind = KAFKA_QUESTION_LOGS,
        .client = audit->options.consumer,
        .logs = logs,
        .log_count = count,
        .on_answer = on_answer,
        .userdata = round,
    };
    for (size_t i = 0; i < count; i++) {
        struct audited_log *log = log_audit_find(audit, logs[i].topic, logs[i].partition);
        round->logs[i] = (struct round_log){
            .log = log, .period = log->period, .position = log->position, .last = log->last};
        if (log->anchor.offset >= 0)
            logs[i].looks_at[0] = log->anchor.offset;
        else if (log->position > 0)
            logs[i].looks_at[0] = log->position - 1;
        if (log->position < 0)
            round->question.with_commits = true;
    }
    audit->is_asking = true;
    kafka_asker_ask(audit->options.asker, &round->question);
    return true;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    (void)usec;
    struct log_audit *audit = userdata;
    rd_kafka_topic_partition_list_t *list = list_watched(audit);
    if (!audit->is_asking && !ask(audit, list))
        arm(source, AUDIT_INTERVAL_US);
    rd_kafka_topic_partition_list_destroy(list);
    return 0;
}

int log_audit_new(const struct log_audit_options *options, struct log_audit **ret_audit)
{
    /* Lives as long as the process. */
    struct log_audit *audit = calloc(1, sizeof(*audit));
    if (audit == NULL)
        return -ENOMEM;
    audit->options = *options;
    int result = sd_event_add_time_relative(options->event, &audit->timer, CLOCK_MONOTONIC,
        AUDIT_INTERVAL_US, TIMER_ACCURACY_US, on_timer, audit);
    if (result >= 0)
        result = sd_event_add_time_relative(options->event, &audit->presenter, CLOCK_MONOTONIC,
            SHOW_INTERVAL_US, TIMER_ACCURACY_US, on_show, audit);
    if (result < 0) {
        (void)sd_event_source_disable_unref(audit->timer);
        free(audit);
        return result;
    }
    *ret_audit = audit;
    return 0;
}
