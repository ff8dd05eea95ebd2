/* Which relay publishes: looks at the lease of the outbox, takes it where it is to be had, and
 * renews it.
 *
 * A lease is to be had when nobody has ever held it, when its owner's session has ended, when its
 * owner has not renewed it for LEASE_STORE_SECONDS (its host is lost, the network is cut, its
 * process is stopped), or when its owner does not reach Kafka and we do. The owner itself counts
 * from when it asked for its last renewal, and stops a moment earlier than others may take over.
 * Safety does not stand on this: two relays would only publish twice.
 *
 * Also measures the outbox for this instance, whoever publishes it, and says so when nobody does.
 * Owns no connection: asks over the relay's. Loop thread only.
 */
#ifndef USERD_WORKER_EVENTS_OUTBOX_LEASE_H
#define USERD_WORKER_EVENTS_OUTBOX_LEASE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/scoreboard.h"
#include "worker/db/db_connection.h"
#include "worker/store/lease_store.h"

#define OUTBOX_LEASE_LOOK_US  UINT64_C(1000000)
#define OUTBOX_LEASE_RENEW_US UINT64_C(3000000)
/* After its last renewal was asked for the owner publishes for so long. */
#define OUTBOX_LEASE_TRUST_US ((LEASE_STORE_SECONDS - 3) * UINT64_C(1000000))
/* An owner that has not reached Kafka for so long is succeeded by one that does. */
#define OUTBOX_LEASE_PATIENCE_US INT64_C(5000000)

struct outbox_lease_options {
    sd_event *event;
    const struct scoreboard *scoreboard;
    struct scoreboard_slot *slot;
    uint32_t slot_number;
    const char *owner; /* for people */
    bool (*can_publish)(void *userdata);
    /* It is ours from now on: called by an answer. */
    void (*on_gained)(void *userdata);
    /* It is somebody else's: called by an answer; the session should end, and with it our lock. */
    void (*on_lost)(void *userdata);
    /* PostgreSQL refuses: called by an answer. */
    void (*on_refused)(const struct db_answer *answer, void *userdata);
    /* An answer came. */
    void (*on_answered)(void *userdata);
    void *userdata;
};

struct outbox_lease {
    struct outbox_lease_options options;
    /* private */
    struct db_request request; /* of one question at a time: to look, take, lock or renew */
    struct db_request measure;
    bool is_asked;
    bool is_measured; /* asked for */
    bool is_wanted;   /* what was seen is to be taken next */
    bool is_held;
    bool has_lock;        /* the advisory lock, too */
    bool has_said;        /* that nobody publishes */
    bool could_publish;   /* when it was last asked about */
    bool is_lock_refused; /* said once */
    const char *reason;   /* why it was taken */
    struct lease_state seen;
    int64_t fence;
    uint64_t asked_us;
    uint64_t trust_us; /* until when it is ours */
    uint64_t next_us;  /* the next look or renewal */
    uint64_t next_lock_us;
    uint64_t next_measure_us;
    uint64_t silent_from_us; /* when it was first seen that nobody publishes; 0: somebody does */
    uint64_t next_warning_us;
    uint64_t waiting_rows; /* as measured */
    uint64_t oldest_us;
};

void outbox_lease_init(struct outbox_lease *lease, const struct outbox_lease_options *options);
/* The session has ended, or is new: nothing is ours, nothing is asked. */
void outbox_lease_forget(struct outbox_lease *lease);
/* Asks what is due on the relay's connection, which is ready. */
void outbox_lease_advance(struct outbox_lease *lease, struct db_connection *connection);
/* When it is due again. */
uint64_t outbox_lease_next_us(const struct outbox_lease *lease);
/* Held, and to be trusted now. */
bool outbox_lease_is_valid(const struct outbox_lease *lease, uint64_t now_us);
/* Held, but not renewed for too long. */
bool outbox_lease_is_overdue(const struct outbox_lease *lease, uint64_t now_us);

/* Pure logic: why a relay takes what it sees; NULL: it does not. */
const char *outbox_lease_reason(const struct lease_state *seen, bool can_publish);

#endif
