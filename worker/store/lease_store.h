/* The lease of the outbox in PostgreSQL: which one of all relays of all instances publishes.
 *
 * The lease is a row that its owner renews; each owner has another fence, and the statements that
 * read and remove outbox rows do nothing with an old one. Beside it the owner's session holds an
 * advisory lock, which ends with the session: so that an owner that has gone is succeeded at once,
 * and one that cannot be asked when its lease is over. Each function sends one request on the
 * relay's own connection.
 */
#ifndef USERD_WORKER_STORE_LEASE_STORE_H
#define USERD_WORKER_STORE_LEASE_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/attributes.h"
#include "worker/db/db_connection.h"

/* Without a renewal for so long, by the database's clock, a lease is over. */
#define LEASE_STORE_SECONDS 15

/* For db_connection_new(). */
extern const struct db_statement lease_store_look_statement, lease_store_take_statement,
    lease_store_renew_statement, lease_store_measure_statement;

struct lease_state {
    int64_t fence;
    int64_t renewals;
    bool is_free;      /* nobody has ever had it */
    bool is_over;      /* not renewed in time */
    bool is_abandoned; /* its owner's session has ended */
    bool can_publish;  /* its owner reaches Kafka */
    int64_t silent_us; /* since an owner that reaches Kafka has renewed it */
};

MUST_CHECK int lease_store_look(struct db_connection *connection, struct db_request *request);
/* False: there is no lease, which only a mistake of people can bring about. */
MUST_CHECK bool lease_store_state(const struct db_answer *answer, struct lease_state *ret_state);

/* Takes it from the owner that `seen` tells of, unless that has renewed it meanwhile. Never waits
 * for a lock. `owner` is for people. */
MUST_CHECK int lease_store_take(struct db_connection *connection, struct db_request *request,
    const struct lease_state *seen, bool can_publish, const char *owner);
/* The fence of the new owner. False: another was faster. */
MUST_CHECK bool lease_store_taken(const struct db_answer *answer, int64_t *ret_fence);

/* Ends the session that holds the advisory lock, and takes the lock. DB_ERROR where that is not
 * allowed or takes longer than two seconds. */
MUST_CHECK int lease_store_lock(struct db_connection *connection, struct db_request *request);

MUST_CHECK int lease_store_renew(struct db_connection *connection, struct db_request *request,
    int64_t fence, bool has_lock, bool can_publish);
/* False: it is somebody else's. */
MUST_CHECK bool lease_store_renewed(const struct db_answer *answer, int64_t *ret_silent_us);

/* How many outbox rows wait, counted up to LEASE_STORE_COUNTED, and the age of the first. */
#define LEASE_STORE_COUNTED 10000
MUST_CHECK int lease_store_measure(struct db_connection *connection, struct db_request *request);
void lease_store_measured(
    const struct db_answer *answer, uint64_t *ret_rows, uint64_t *ret_oldest_us);

#endif
