#include "eventd/kafka_watch.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/monotonic_clock.h"

#define LOOK_INTERVAL_US        UINT64_C(5000000)
#define URGENT_INTERVAL_US      UINT64_C(500000)
#define FIRST_REMINDER_US       UINT64_C(5000000)
#define REMINDER_GROWTH         2
#define LONGEST_REMINDER_US     UINT64_C(300000000)
#define TIMER_ACCURACY_US       UINT64_C(20000)
#define MICROSECONDS_PER_SECOND 1000000

struct kafka_watch {
    struct kafka_asker *asker;
    struct kafka_question question;
    sd_event_source *timer; /* owned */
    sd_event *event;
    struct scoreboard_slot *slot;
    kafka_watch_handler *handler;
    void *userdata;
    bool is_asking;
    bool is_hurried; /* while it was asking */
    bool is_connected;
    bool has_waited; /* "waiting for kafka" stands in the log */
    uint64_t away_since_us;
    uint64_t next_reminder_us;
    uint64_t reminder_interval_us;
};

static void look_in(struct kafka_watch *watch, uint64_t delay_us)
{
    (void)sd_event_source_set_time_relative(watch->timer, delay_us);
    (void)sd_event_source_set_enabled(watch->timer, SD_EVENT_ONESHOT);
}

static void set_connected(struct kafka_watch *watch, bool is_connected)
{
    watch->is_connected = is_connected;
    atomic_store_explicit(
        &watch->slot->kafka_is_connected, is_connected ? 1 : 0, memory_order_relaxed);
}

static void on_away(struct kafka_watch *watch, rd_kafka_resp_err_t error)
{
    uint64_t now = monotonic_clock_turn_us(watch->event);
    if (!watch->has_waited) {
        watch->has_waited = true;
        watch->away_since_us = now;
        watch->reminder_interval_us = FIRST_REMINDER_US;
        watch->next_reminder_us = now;
    }
    set_connected(watch, false);
    scoreboard_absence_set(&watch->slot->absence, rd_kafka_err2str(error));
    if (now < watch->next_reminder_us)
        return;
    log_warn("waiting for kafka reason=%s waited_s=%" PRIu64, rd_kafka_err2name(error),
        (now - watch->away_since_us) / MICROSECONDS_PER_SECOND);
    watch->next_reminder_us = now + watch->reminder_interval_us;
    watch->reminder_interval_us *= REMINDER_GROWTH;
    if (watch->reminder_interval_us > LONGEST_REMINDER_US)
        watch->reminder_interval_us = LONGEST_REMINDER_US;
}

static void on_here(struct kafka_watch *watch, const char *cluster)
{
    if (watch->has_waited)
        log_info("kafka is back cluster=%s away_s=%" PRIu64, cluster,
            (monotonic_clock_turn_us(watch->event) - watch->away_since_us) /
                MICROSECONDS_PER_SECOND);
    else if (!watch->is_connected)
        log_info("kafka is connected cluster=%s", cluster);
    watch->has_waited = false;
    set_connected(watch, true);
    scoreboard_absence_end(&watch->slot->absence);
}

static void on_answer(struct kafka_question *question, void *userdata)
{
    struct kafka_watch *watch = userdata;
    bool is_complete = false;
    watch->is_asking = false;
    if (question->error != RD_KAFKA_RESP_ERR_NO_ERROR) {
        on_away(watch, question->error);
    } else {
        on_here(watch, question->ret_cluster);
        is_complete =
            watch->handler(question->ret_cluster, question->ret_metadata, watch->userdata);
    }
    look_in(watch, is_complete && !watch->is_hurried ? LOOK_INTERVAL_US : URGENT_INTERVAL_US);
    watch->is_hurried = false;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    (void)source;
    (void)usec;
    struct kafka_watch *watch = userdata;
    watch->is_asking = true;
    kafka_asker_ask(watch->asker, &watch->question);
    return 0;
}

int kafka_watch_partitions(const struct rd_kafka_metadata *metadata, const char *topic)
{
    for (int i = 0; i < metadata->topic_cnt; i++) {
        if (strcmp(metadata->topics[i].topic, topic) == 0)
            return metadata->topics[i].partition_cnt;
    }
    return 0;
}

bool kafka_watch_has_topic(const struct rd_kafka_metadata *metadata, const char *topic)
{
    return kafka_watch_partitions(metadata, topic) > 0;
}

void kafka_watch_hurry(struct kafka_watch *watch)
{
    if (watch->is_asking)
        watch->is_hurried = true;
    else
        look_in(watch, 0);
}

void kafka_watch_start(struct kafka_watch *watch, struct scoreboard_slot *slot)
{
    watch->slot = slot;
    look_in(watch, 0);
}

int kafka_watch_new(sd_event *event, struct kafka_asker *asker, rd_kafka_t *client,
    kafka_watch_handler *handler, void *userdata, struct kafka_watch **ret_watch)
{
    struct kafka_watch *watch = calloc(1, sizeof(*watch));
    if (watch == NULL)
        return -ENOMEM;
    watch->event = event;
    watch->asker = asker;
    watch->handler = handler;
    watch->userdata = userdata;
    watch->question = (struct kafka_question){
        .kind = KAFKA_QUESTION_CLUSTER,
        .client = client,
        .on_answer = on_answer,
        .userdata = watch,
    };
    int result = sd_event_add_time_relative(
        event, &watch->timer, CLOCK_MONOTONIC, UINT64_MAX / 4, TIMER_ACCURACY_US, on_timer, watch);
    if (result < 0) {
        free(watch);
        return result;
    }
    *ret_watch = watch;
    return 0;
}
