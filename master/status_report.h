/* What the scoreboard says at one moment, in plain numbers: what `userd status`, `userd metrics`
 * and the service's one-line status are made of. Only reads; never trusts a number further than to
 * print it. */
#ifndef USERD_MASTER_STATUS_REPORT_H
#define USERD_MASTER_STATUS_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/scoreboard.h"
#include "master/status_methods.h"

struct status_calls {
    uint64_t started;
    uint64_t ok;
    uint64_t not_found;
    uint64_t name_taken;
    uint64_t failed; /* answered with another status than OK; those beside it are not in it */
    uint64_t refused;
    uint64_t expired;
    uint64_t cancelled;
    double per_second; /* of status_report_set_rates() */
};

/* What a worker has done beside answering calls. */
struct status_work {
    uint64_t connections_reset; /* for what their clients did */
    uint64_t connections_idle;  /* told to go because they were idle */
    uint64_t connections_open;  /* reset or told to go for requests that did not come */
    uint64_t open_requests;     /* that have begun and are not here */
    uint64_t batches;
    uint64_t batched_requests;
    uint64_t outbox_published;
    uint64_t outbox_parked;
    uint64_t questions_waiting;
    /* Of the relay, and of the worker that measures the outbox for this instance. */
    uint64_t outbox_backlog;
    uint64_t outbox_held;
    uint64_t outbox_oldest_us;    /* age of the oldest row */
    uint64_t outbox_unrelayed_us; /* for how long nobody, anywhere, could publish; 0: someone can */
    uint64_t events_applied;
    uint64_t events_no_op;
    uint64_t events_tombstoned;
    uint64_t events_without_claim;
    uint64_t events_dead_lettered;
};

/* That the database, or Kafka, is away. */
struct status_absence {
    uint64_t since_us;                       /* CLOCK_REALTIME; 0: it is not */
    char reason[SCOREBOARD_REASON_SIZE * 4]; /* for people: see printable.h */
};

struct status_worker {
    uint32_t slot;
    uint32_t pid;
    uint32_t generation;
    enum process_state state;
    bool is_database_ready;
    bool is_relay;
    struct status_absence absence; /* of the database */
    uint64_t connections;
    struct status_calls calls;
    struct status_work work;
};

/* What the master did with connections instead of passing them on. */
struct status_admission {
    uint64_t refused[SCOREBOARD_REFUSALS];
    uint64_t bans;
};

/* Of a partition that is consumed: records that are not in effect. */
struct status_lag {
    enum scoreboard_topic topic;
    int32_t partition;
    uint64_t records;
};

struct status_eventd {
    uint32_t pid; /* 0: there is none now */
    uint32_t generation;
    enum process_state state;
    bool is_connected;
    struct status_absence absence; /* of Kafka */
    uint64_t produced;
    uint64_t consumed;
    uint64_t errors;
    uint64_t brokers;
    uint64_t brokers_up;
    uint64_t round_trip_us;
    uint64_t produce_queue;
    uint64_t fetch_queue;
    uint64_t log_recreated;
    uint64_t foreign_progress;
    uint64_t database_rollbacks;
    uint64_t commit_errors;
    uint64_t lag;
    struct status_lag lags[SCOREBOARD_LAGS];
    size_t lag_count;
    double produced_per_second; /* of status_report_set_rates() */
    double consumed_per_second;
};

struct status_report {
    uint64_t taken_at_us; /* CLOCK_MONOTONIC */
    struct status_worker workers[SCOREBOARD_WORKER_SLOTS];
    size_t worker_count;
    size_t ready_count;
    bool has_relay;
    struct status_eventd eventd;
    struct status_admission admission;
    uint64_t connections; /* totals of the workers */
    struct status_calls calls;
    struct status_work work;
    struct status_methods methods;
};

/* Calls that have begun and have no answer yet. */
uint64_t status_report_in_progress(const struct status_calls *calls);
/* "registration": the topic's role, whatever name it has. */
const char *status_report_topic_name(enum scoreboard_topic topic);
const char *status_report_refusal_name(enum scoreboard_refusal refusal);

void status_report_read(
    const struct scoreboard *scoreboard, uint64_t now_us, struct status_report *ret_report);
/* Fills in `per_second`: what has happened since `earlier`. A process that has come since counts
 * from its start. */
void status_report_set_rates(struct status_report *report, const struct status_report *earlier);
const char *status_report_state_name(enum process_state state);

#endif
