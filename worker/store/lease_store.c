#include "worker/store/lease_store.h"

#include <string.h>

/* The key of the advisory lock: any constant will do, if nobody else uses it. */
#define RELAY_LOCK  "8391260472615390"
#define TEXT_OF(n)  #n
#define SECONDS(n)  "interval '" TEXT_OF(n) " s'"
#define SINCE(time) "(extract(epoch FROM clock_timestamp() - " time ") * 1000000)::bigint"

/* Clocks that were set back make a lease neither longer nor shorter than it is. The lock is looked
 * for in shared mode, and for an instant: others may look at the same time, and whoever takes the
 * lock ends only a session that has it for itself. */
const struct db_statement lease_store_look_statement = {
    .name = "lease_look",
    .sql = "SELECT fence, renewals, owner IS NULL,"
           " clock_timestamp() - renewed_at NOT BETWEEN"
           " -" SECONDS(LEASE_STORE_SECONDS) " AND " SECONDS(
               LEASE_STORE_SECONDS) ","
                                    " CASE WHEN has_lock THEN "
                                    "pg_try_advisory_xact_lock_shared(" RELAY_LOCK ")"
                                    " ELSE false END, can_publish, " SINCE(
                                        "publishing_at") " FROM outbox_lease",
};

/* What is lost of the lease in a crash is not missed: its owner's session is lost as well. So no
 * COMMIT of it waits for a disk or for a standby that is away. */
#define QUICKLY "set_config('synchronous_commit', 'off', true)"

const struct db_statement lease_store_take_statement = {
    .name = "lease_take",
    .sql = "WITH seen AS MATERIALIZED ("
           "  SELECT is_only_row FROM outbox_lease"
           "  WHERE fence = $1::bigint AND renewals = $2::bigint FOR UPDATE SKIP LOCKED)"
           " UPDATE outbox_lease l SET fence = fence + 1, owner = $4::text, has_lock = false,"
           " can_publish = $3::boolean, renewed_at = clock_timestamp(), publishing_at ="
           " CASE WHEN $3::boolean THEN clock_timestamp() ELSE publishing_at END"
           " FROM seen s WHERE l.is_only_row = s.is_only_row RETURNING l.fence, " QUICKLY,
};

const struct db_statement lease_store_renew_statement = {
    .name = "lease_renew",
    .sql = "UPDATE outbox_lease SET renewals = renewals + 1, has_lock = $2::boolean,"
           " can_publish = $3::boolean, renewed_at = clock_timestamp(), publishing_at ="
           " CASE WHEN $3::boolean THEN clock_timestamp() ELSE publishing_at END"
           " WHERE fence = $1::bigint RETURNING " SINCE("publishing_at") ", " QUICKLY,
};

const struct db_statement lease_store_measure_statement = {
    .name = "lease_measure",
    .sql = "SELECT count(*), coalesce(max(" SINCE(
        "created_at") "), 0)"
                      " FROM (SELECT created_at FROM outbox ORDER BY id LIMIT $1::integer) o",
};

static const struct db_statement limit_wait = {
    .sql = "SELECT set_config('lock_timeout', '2000', true)",
    .is_plain = true,
};
/* As pg_locks shows a bigint key: its halves, and objsubid 1. */
static const struct db_statement end_holder = {
    .sql = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
           " AND objsubid = 1 AND granted AND mode = 'ExclusiveLock' AND pid <> pg_backend_pid()"
           " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
           " AND classid::bigint = " RELAY_LOCK "::bigint >> 32"
           " AND objid::bigint = " RELAY_LOCK "::bigint & 4294967295",
    .is_plain = true,
};
static const struct db_statement wait_for_lock = {
    .sql = "SELECT pg_advisory_lock(" RELAY_LOCK ")",
    .is_plain = true,
};

static int submit(struct db_connection *connection, struct db_request *request,
    const struct db_statement *statement, const struct db_parameters *parameters)
{
    const struct db_step step = {.statement = statement, .parameters = parameters};
    return db_connection_submit(connection, request, &step, 1);
}

int lease_store_look(struct db_connection *connection, struct db_request *request)
{
    return submit(connection, request, &lease_store_look_statement, NULL);
}

bool lease_store_state(const struct db_answer *answer, struct lease_state *ret_state)
{
    const PGresult *result = answer->results[0];
    if (PQntuples(result) != 1)
        return false;
    *ret_state = (struct lease_state){
        .fence = db_result_int8(result, 0, 0),
        .renewals = db_result_int8(result, 0, 1),
        .is_free = db_result_bool(result, 0, 2),
        .is_over = db_result_bool(result, 0, 3),
        .is_abandoned = db_result_bool(result, 0, 4),
        .can_publish = db_result_bool(result, 0, 5),
        .silent_us = db_result_int8(result, 0, 6),
    };
    return true;
}

int lease_store_take(struct db_connection *connection, struct db_request *request,
    const struct lease_state *seen, bool can_publish, const char *owner)
{
    struct db_parameters parameters CLEANUP(db_parameters_cleanup) = {0};
    db_parameters_add_int8(&parameters, seen->fence);
    db_parameters_add_int8(&parameters, seen->renewals);
    db_parameters_add_bool(&parameters, can_publish);
    db_parameters_add_text(&parameters, owner, strlen(owner));
    return submit(connection, request, &lease_store_take_statement, &parameters);
}

bool lease_store_taken(const struct db_answer *answer, int64_t *ret_fence)
{
    if (PQntuples(answer->results[0]) != 1)
        return false;
    *ret_fence = db_result_int8(answer->results[0], 0, 0);
    return true;
}

int lease_store_lock(struct db_connection *connection, struct db_request *request)
{
    const struct db_step steps[] = {
        {&limit_wait, NULL}, {&end_holder, NULL}, {&wait_for_lock, NULL}};
    return db_connection_submit(connection, request, steps, ARRAY_LENGTH(steps));
}

int lease_store_renew(struct db_connection *connection, struct db_request *request, int64_t fence,
    bool has_lock, bool can_publish)
{
    struct db_parameters parameters CLEANUP(db_parameters_cleanup) = {0};
    db_parameters_add_int8(&parameters, fence);
    db_parameters_add_bool(&parameters, has_lock);
    db_parameters_add_bool(&parameters, can_publish);
    return submit(connection, request, &lease_store_renew_statement, &parameters);
}

bool lease_store_renewed(const struct db_answer *answer, int64_t *ret_silent_us)
{
    if (PQntuples(answer->results[0]) != 1)
        return false;
    *ret_silent_us = db_result_int8(answer->results[0], 0, 0);
    return true;
}

int lease_store_measure(struct db_connection *connection, struct db_request *request)
{
    struct db_parameters parameters CLEANUP(db_parameters_cleanup) = {0};
    db_parameters_add_int4(&parameters, LEASE_STORE_COUNTED);
    return submit(connection, request, &lease_store_measure_statement, &parameters);
}

void lease_store_measured(
    const struct db_answer *answer, uint64_t *ret_rows, uint64_t *ret_oldest_us)
{
    int64_t oldest_us = db_result_int8(answer->results[0], 0, 1);
    *ret_rows = (uint64_t)db_result_int8(answer->results[0], 0, 0);
    *ret_oldest_us = oldest_us > 0 ? (uint64_t)oldest_us : 0;
}
