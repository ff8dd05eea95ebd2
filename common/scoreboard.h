/* The scoreboard: shared memory (memfd) in which each process writes its own slot and everyone may
 * read all.
 *
 * Fixed layout with a magic and a version; one writer per slot and per cache line, relaxed atomics.
 * The master makes it and owns the header and the `passed` counters; slot 0 is eventd's,
 * slots 1..SCOREBOARD_WORKER_SLOTS are the workers'. It holds numbers, and what libraries say of an
 * absence: nothing secret, nothing that a reader would have to trust.
 */
#ifndef USERD_COMMON_SCOREBOARD_H
#define USERD_COMMON_SCOREBOARD_H

#include <stdatomic.h>
#include <stdint.h>

#include "common/attributes.h"
#include "common/latency_histogram.h"
#include "common/settings.h"

#define SCOREBOARD_MAGIC       UINT64_C(0x7573657264736231) /* "userdsb1" */
#define SCOREBOARD_VERSION     6
#define SCOREBOARD_SLOT_EVENTD 0
/* Workers of so many generations fit beside each other: the one in force, the one on probation, and
 * older ones that still drain. A slot that was never used takes hardly any memory. */
#define SCOREBOARD_GENERATIONS  3
#define SCOREBOARD_WORKER_SLOTS (SCOREBOARD_GENERATIONS * SETTINGS_MAX_WORKERS)
#define SCOREBOARD_SLOTS        (1 + SCOREBOARD_WORKER_SLOTS)
#define SCOREBOARD_LAGS         64
#define SCOREBOARD_METHODS      16
#define SCOREBOARD_STATUSES     17 /* gRPC's codes: 0 (OK) to 16 */
#define SCOREBOARD_NAME_SIZE    56

enum process_state {
    PROCESS_ABSENT,
    PROCESS_STARTING,
    PROCESS_READY,
    PROCESS_DRAINING,
};

enum scoreboard_topic { SCOREBOARD_TOPIC_REGISTRATION = 1, SCOREBOARD_TOPIC_ADMIN_DELETE };

/* How far a consumed partition is behind: records that are in the log and not in effect. */
struct scoreboard_lag {
    _Atomic uint32_t topic; /* enum scoreboard_topic; 0: no such row */
    _Atomic int32_t partition;
    _Atomic uint64_t records;
};

#define SCOREBOARD_REASON_SIZE 160

/* That what a process needs is away: since when, and what was said of it last. One writer. */
struct scoreboard_absence {
    _Atomic uint64_t sequence; /* odd while it is written */
    _Atomic uint64_t since_us; /* CLOCK_REALTIME; 0: it is not away */
    _Atomic uint64_t reason[SCOREBOARD_REASON_SIZE / sizeof(uint64_t)]; /* text, ended by a NUL */
};

/* A unary method of a worker, written by its rpc thread alone when a call is over. The name is
 * there for good once `is_named` says so (acquire). */
struct scoreboard_method {
    _Alignas(CACHE_LINE_SIZE) _Atomic uint32_t is_named;
    char name[SCOREBOARD_NAME_SIZE]; /* "user.User/GetUser", with a NUL */
    _Atomic uint64_t statuses[SCOREBOARD_STATUSES];
    _Atomic uint64_t latency_sum_us; /* from a call's arrival to its answer */
    _Atomic uint64_t latency[LATENCY_HISTOGRAM_BUCKETS];
};

/* Written by the process in the slot, zeroed by the master before each new one. */
/* NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding): padded to cache lines */
struct scoreboard_slot {
    _Alignas(CACHE_LINE_SIZE) _Atomic uint32_t pid;
    _Atomic uint32_t generation;
    _Atomic uint32_t state; /* enum process_state */
    _Atomic uint32_t is_database_ready;
    _Atomic uint64_t heartbeat_us;     /* CLOCK_MONOTONIC, each second, by the process's loop */
    _Atomic uint64_t rpc_heartbeat_us; /* worker: the same, by its rpc thread */
    /* connections that have ended, per listener; the living are passed - closed */
    _Alignas(CACHE_LINE_SIZE) _Atomic uint32_t closed[SETTINGS_MAX_LISTENERS];
    /* CLOCK_MONOTONIC: since when the C core has the oldest living one, per listener; 0: none */
    _Atomic uint64_t oldest_us[SETTINGS_MAX_LISTENERS];
    /* worker: calls */
    _Alignas(CACHE_LINE_SIZE) _Atomic uint64_t calls_started;
    _Atomic uint64_t calls_ok;
    _Atomic uint64_t calls_not_found;  /* NOT_FOUND */
    _Atomic uint64_t calls_conflicted; /* the name is taken */
    _Atomic uint64_t calls_failed;     /* any other status */
    _Atomic uint64_t calls_refused;    /* RESOURCE_EXHAUSTED */
    _Atomic uint64_t calls_expired;   /* deadline passed while queued: never reached the database */
    _Atomic uint64_t calls_cancelled; /* client gone while queued: never reached the database */
    _Atomic uint64_t connections_reset; /* worker: for what their clients did */
    _Atomic uint64_t connections_idle;  /* worker: told to go because they were idle */
    _Atomic uint64_t connections_open;  /* worker: reset, or told to go, for requests not sent */
    _Atomic uint64_t open_requests;     /* worker: that have begun and are not here, now */
    /* worker: the database's side */
    _Alignas(CACHE_LINE_SIZE) _Atomic uint64_t batches;
    _Atomic uint64_t batched_requests;
    _Atomic uint64_t questions_waiting; /* for a batch, when the last one was sent */
    _Atomic uint64_t is_relay;          /* this worker's relay holds the outbox's lease */
    _Atomic uint64_t outbox_published;
    _Atomic uint64_t outbox_parked;
    _Atomic uint64_t outbox_backlog; /* rows that wait: of the relay, or as measured */
    _Atomic uint64_t outbox_held;    /* rows that the worker has in memory, as the relay */
    /* worker: consumed events in effect */
    _Alignas(CACHE_LINE_SIZE) _Atomic uint64_t events_applied;
    _Atomic uint64_t events_no_op;
    _Atomic uint64_t events_tombstoned; /* registrations of a deleted id */
    _Atomic uint64_t
        events_without_claim; /* registrations whose name is taken or breaks the rules */
    _Atomic uint64_t events_dead_lettered;
    /* eventd */
    _Alignas(CACHE_LINE_SIZE) _Atomic uint64_t kafka_produced;
    _Atomic uint64_t kafka_produce_errors;
    _Atomic uint64_t kafka_consumed;
    _Atomic uint64_t kafka_is_connected;
    /* eventd: as librdkafka's statistics say it */
    _Atomic uint64_t kafka_brokers;
    _Atomic uint64_t kafka_brokers_up;    /* that the producer is connected to: it asks none idly */
    _Atomic uint64_t kafka_round_trip_us; /* p99 of the slowest broker */
    _Atomic uint64_t kafka_produce_queue; /* messages that are not acknowledged */
    _Atomic uint64_t kafka_produce_queue_bytes;
    _Atomic uint64_t kafka_fetch_queue;        /* records that are fetched and not read */
    _Atomic uint64_t kafka_log_recreated;      /* partitions that were found to be made anew */
    _Atomic uint64_t kafka_foreign_progress;   /* partitions that another program was ahead in */
    _Atomic uint64_t kafka_database_rollbacks; /* partitions that the database had forgotten of */
    _Atomic uint64_t kafka_commit_errors;      /* commits of offsets that failed */
    /* eventd: of the partitions that are ours; the total counts those that have no row too */
    _Alignas(CACHE_LINE_SIZE) _Atomic uint64_t kafka_lag;
    struct scoreboard_lag kafka_lags[SCOREBOARD_LAGS];
    /* worker: from COMMIT to the broker's acknowledgement, of what its relay has published */
    _Alignas(CACHE_LINE_SIZE) _Atomic uint64_t outbox_oldest_us; /* age of the oldest row */
    _Atomic uint64_t outbox_unrelayed_us; /* for how long nobody could publish; 0: someone can */
    _Atomic uint64_t publish_latency_sum_us;
    _Atomic uint64_t publish_latency[LATENCY_HISTOGRAM_BUCKETS];
    /* worker: the database; eventd: Kafka */
    _Alignas(CACHE_LINE_SIZE) struct scoreboard_absence absence;
    /* worker: in the order of their registration; those without a name are not used */
    struct scoreboard_method methods[SCOREBOARD_METHODS];
};

/* Written by the master alone. */
struct scoreboard_master_row {
    _Alignas(CACHE_LINE_SIZE) _Atomic uint32_t passed[SETTINGS_MAX_LISTENERS];
};

/* Why the master closes a connection that it has accepted. */
enum scoreboard_refusal {
    SCOREBOARD_REFUSAL_BANNED,
    SCOREBOARD_REFUSAL_RATE,      /* limits.connection_rate_per_address */
    SCOREBOARD_REFUSAL_TOTAL,     /* limits.connections */
    SCOREBOARD_REFUSAL_RESERVED,  /* the rest is for addresses that have few */
    SCOREBOARD_REFUSAL_ADDRESS,   /* limits.connections_per_address */
    SCOREBOARD_REFUSAL_NO_WORKER, /* no worker has room */
    SCOREBOARD_REFUSALS,
};

/* Written by the master alone. */
struct scoreboard_admission {
    _Alignas(CACHE_LINE_SIZE) _Atomic uint64_t refused[SCOREBOARD_REFUSALS];
    _Atomic uint64_t bans; /* begun */
    /* CLOCK_MONOTONIC: when connections were short for the last time; 0: never. Read by workers. */
    _Alignas(CACHE_LINE_SIZE) _Atomic uint64_t short_at_us;
};

struct scoreboard {
    uint64_t magic;
    uint32_t version;
    uint32_t slot_count;
    struct scoreboard_admission admission;
    struct scoreboard_master_row master[SCOREBOARD_SLOTS];
    struct scoreboard_slot slots[SCOREBOARD_SLOTS];
};

/* Makes a new one in a sealed memfd. *ret_fd belongs to the caller. 0 or negative errno. */
MUST_CHECK int scoreboard_create(struct scoreboard **ret_scoreboard, int *ret_fd);
/* Maps the one behind `fd`. -EPROTO when it is none or of another version. */
MUST_CHECK int scoreboard_open(int fd, struct scoreboard **ret_scoreboard);
void scoreboard_close(struct scoreboard *scoreboard);
/* Maps it for reading alone; `fd` may be a read-only one. -EPROTO: it is none. -EPROTONOSUPPORT: it
 * is of another version, *ret_version says which (0 where it is not known). */
MUST_CHECK int scoreboard_open_readonly(
    int fd, const struct scoreboard **ret_scoreboard, uint32_t *ret_version);
void scoreboard_close_readonly(const struct scoreboard *scoreboard);
/* Master: empties a slot, and its row of passed connections, before a new process gets it. */
void scoreboard_reset_slot(struct scoreboard *scoreboard, uint32_t slot);

/* Begins it, or says of one that has begun why. The text may be anything, and is cut off. */
void scoreboard_absence_set(struct scoreboard_absence *absence, const char *reason);
void scoreboard_absence_end(struct scoreboard_absence *absence);
/* The same moment of both. *ret_since_us 0: it is not away. */
void scoreboard_absence_read(const struct scoreboard_absence *absence, uint64_t *ret_since_us,
    char ret_reason[SCOREBOARD_REASON_SIZE]);

/* For the one writer of a counter: no locked instruction. */
static inline void scoreboard_add(_Atomic uint64_t *counter, uint64_t amount)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + amount,
        memory_order_relaxed);
}

#endif
