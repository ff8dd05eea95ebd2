#include "worker/events/outbox_lease.h"

#include <errno.h>
#include <inttypes.h>
#include <time.h>

#include "common/log.h"
#include "common/monotonic_clock.h"

#define MEASURE_US    UINT64_C(5000000)
#define LOCK_RETRY_US UINT64_C(60000000)
#define WARNING_US    UINT64_C(60000000)
#define SILENCE_US    ((int64_t)LEASE_STORE_SECONDS * 1000000) /* that is no pause of a renewal */
#define SETTLE_US     UINT64_C(5000000) /* a service that begins takes the lease by then */
#define US_PER_S      INT64_C(1000000)
#define TIME_SIZE     32

const char *outbox_lease_reason(const struct lease_state *seen, bool can_publish)
{
    if (seen->is_free)
        return "free";
    if (seen->is_abandoned)
        return "owner_has_gone";
    if (seen->is_over)
        return "not_renewed";
    if (can_publish && !seen->can_publish && seen->silent_us > OUTBOX_LEASE_PATIENCE_US)
        return "owner_without_kafka";
    return NULL;
}

static uint64_t now_of(const struct outbox_lease *lease)
{
    return monotonic_clock_turn_us(lease->options.event);
}

static bool can_publish(const struct outbox_lease *lease)
{
    return lease->options.can_publish(lease->options.userdata);
}

/* Of the workers of an instance one speaks for it. */
static bool is_speaker(const struct outbox_lease *lease)
{
    for (uint32_t i = SCOREBOARD_SLOT_EVENTD + 1; i < lease->options.slot_number; i++) {
        const struct scoreboard_slot *slot = &lease->options.scoreboard->slots[i];
        if (atomic_load_explicit(&slot->state, memory_order_relaxed) == PROCESS_READY)
            return false;
    }
    return true;
}

/* ---- when nobody publishes ---- */

static void warn_of_silence(struct outbox_lease *lease, int64_t silent_us)
{
    uint64_t now = now_of(lease);
    if (lease->silent_from_us == 0)
        lease->silent_from_us = now;
    if (now < lease->silent_from_us + SETTLE_US || now < lease->next_warning_us ||
        !is_speaker(lease))
        return;
    lease->next_warning_us = now + WARNING_US;
    lease->has_said = true;
    time_t since = time(NULL) - (time_t)(silent_us / US_PER_S);
    struct tm parts = {0};
    char text[TIME_SIZE] = "";
    (void)gmtime_r(&since, &parts);
    (void)strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts);
    log_warn("nobody relays the outbox since=%s waiting=%" PRIu64 " oldest_s=%" PRIu64
             " kafka_here=%s",
        text, lease->waiting_rows, lease->oldest_us / (uint64_t)US_PER_S,
        can_publish(lease) ? "connected" : "away");
}

/* How long ago an owner that reaches Kafka has renewed the lease, whoever it was. */
static void note_silence(struct outbox_lease *lease, int64_t silent_us)
{
    bool is_silent = silent_us > SILENCE_US;
    atomic_store_explicit(&lease->options.slot->outbox_unrelayed_us,
        is_silent ? (uint64_t)silent_us : 0, memory_order_relaxed);
    if (is_silent) {
        warn_of_silence(lease, silent_us);
        return;
    }
    lease->silent_from_us = 0;
    lease->next_warning_us = 0;
    if (lease->has_said)
        log_info("the outbox is relayed again waiting=%" PRIu64, lease->waiting_rows);
    lease->has_said = false;
}

/* ---- answers ---- */

static struct outbox_lease *lease_of(struct db_request *request)
{
    return CONTAINER_OF(request, struct outbox_lease, request);
}

/* True when the answer may be read; false when the session ends. */
static bool take_answer(struct outbox_lease *lease, const struct db_answer *answer)
{
    lease->is_asked = false;
    if (answer->outcome == DB_ERROR)
        lease->options.on_refused(answer, lease->options.userdata);
    return answer->outcome == DB_DONE;
}

static void lose(struct outbox_lease *lease)
{
    log_warn("relay has lost the outbox to another fence=%" PRIi64, lease->fence);
    lease->is_held = false;
    lease->options.on_lost(lease->options.userdata);
}

static void on_renewed(struct db_request *request, const struct db_answer *answer)
{
    struct outbox_lease *lease = lease_of(request);
    int64_t silent_us = 0;
    if (!take_answer(lease, answer))
        return;
    if (!lease_store_renewed(answer, &silent_us)) {
        lose(lease);
        return;
    }
    lease->trust_us = lease->asked_us + OUTBOX_LEASE_TRUST_US;
    note_silence(lease, silent_us);
    lease->options.on_answered(lease->options.userdata);
}

/* Without the lock the lease counts all the same: only its end is noticed later by others. */
static void on_locked(struct db_request *request, const struct db_answer *answer)
{
    struct outbox_lease *lease = lease_of(request);
    lease->is_asked = false;
    if (answer->outcome == DB_LOST)
        return;
    lease->has_lock = answer->outcome == DB_DONE;
    lease->next_us = 0; /* a renewal says so */
    lease->next_lock_us = now_of(lease) + LOCK_RETRY_US;
    if (!lease->has_lock && !lease->is_lock_refused)
        log_warn("relay goes without the advisory lock: another session has it sqlstate=%s"
                 " message=\"%s\"",
            answer->sqlstate, answer->message);
    lease->is_lock_refused = !lease->has_lock;
    lease->options.on_answered(lease->options.userdata);
}

static void on_taken(struct db_request *request, const struct db_answer *answer)
{
    struct outbox_lease *lease = lease_of(request);
    if (!take_answer(lease, answer))
        return;
    if (lease_store_taken(answer, &lease->fence)) {
        lease->is_held = true;
        lease->has_lock = false;
        lease->next_lock_us = 0;
        lease->trust_us = lease->asked_us + OUTBOX_LEASE_TRUST_US;
        lease->next_us = lease->asked_us + OUTBOX_LEASE_RENEW_US;
        log_info("relay holds the outbox fence=%" PRIi64 " reason=%s", lease->fence, lease->reason);
        lease->options.on_gained(lease->options.userdata);
    }
    lease->options.on_answered(lease->options.userdata);
}

static void on_looked(struct db_request *request, const struct db_answer *answer)
{
    struct outbox_lease *lease = lease_of(request);
    if (!take_answer(lease, answer))
        return;
    if (!lease_store_state(answer, &lease->seen)) {
        log_error("table outbox_lease is empty expected=\"one row\": the outbox is not published");
        lease->next_us = now_of(lease) + WARNING_US;
    } else {
        note_silence(lease, lease->seen.silent_us);
        lease->reason = outbox_lease_reason(&lease->seen, can_publish(lease));
        lease->is_wanted = lease->reason != NULL;
    }
    lease->options.on_answered(lease->options.userdata);
}

static void show_measured(const struct outbox_lease *lease)
{
    struct scoreboard_slot *slot = lease->options.slot;
    if (lease->is_held)
        return; /* the relay itself shows what it has */
    atomic_store_explicit(&slot->outbox_backlog, lease->waiting_rows, memory_order_relaxed);
    atomic_store_explicit(&slot->outbox_oldest_us, lease->oldest_us, memory_order_relaxed);
}

static void on_measured(struct db_request *request, const struct db_answer *answer)
{
    struct outbox_lease *lease = CONTAINER_OF(request, struct outbox_lease, measure);
    lease->is_measured = false;
    if (answer->outcome == DB_ERROR)
        lease->options.on_refused(answer, lease->options.userdata);
    if (answer->outcome != DB_DONE)
        return;
    lease_store_measured(answer, &lease->waiting_rows, &lease->oldest_us);
    show_measured(lease);
}

/* ---- questions ---- */

static void note_asked(struct outbox_lease *lease, int result)
{
    lease->is_asked = result == 0;
    if (result < 0 && result != -ENOTCONN)
        log_error("relay cannot ask for the lease error=%d", result);
}

static void look_or_take(struct outbox_lease *lease, struct db_connection *connection, uint64_t now)
{
    lease->next_us = now + OUTBOX_LEASE_LOOK_US;
    lease->could_publish = can_publish(lease);
    if (lease->is_wanted) {
        lease->is_wanted = false;
        lease->request.on_answer = on_taken;
        note_asked(lease, lease_store_take(connection, &lease->request, &lease->seen,
                              lease->could_publish, lease->options.owner));
        return;
    }
    lease->request.on_answer = on_looked;
    note_asked(lease, lease_store_look(connection, &lease->request));
}

static void ask_for_lease(
    struct outbox_lease *lease, struct db_connection *connection, uint64_t now)
{
    lease->asked_us = now;
    if (!lease->is_held) {
        look_or_take(lease, connection, now);
        return;
    }
    if (!lease->has_lock && now >= lease->next_lock_us) {
        lease->request.on_answer = on_locked;
        note_asked(lease, lease_store_lock(connection, &lease->request));
        return;
    }
    lease->next_us = now + OUTBOX_LEASE_RENEW_US;
    lease->could_publish = can_publish(lease);
    lease->request.on_answer = on_renewed;
    note_asked(lease, lease_store_renew(connection, &lease->request, lease->fence, lease->has_lock,
                          lease->could_publish));
}

static void measure(struct outbox_lease *lease, struct db_connection *connection, uint64_t now)
{
    lease->next_measure_us = now + MEASURE_US;
    if (!lease->is_held && !is_speaker(lease)) {
        lease->waiting_rows = 0;
        lease->oldest_us = 0;
        show_measured(lease);
        return;
    }
    int result = lease_store_measure(connection, &lease->measure);
    lease->is_measured = result == 0;
    if (result < 0 && result != -ENOTCONN)
        log_error("relay cannot measure the outbox error=%d", result);
}

void outbox_lease_advance(struct outbox_lease *lease, struct db_connection *connection)
{
    uint64_t now = now_of(lease);
    if (!lease->is_measured && now >= lease->next_measure_us)
        measure(lease, connection, now); /* first: what is said of the lease tells of it */
    if (lease->is_held && can_publish(lease) != lease->could_publish)
        lease->next_us = 0;
    if (!lease->is_asked && now >= outbox_lease_next_us(lease))
        ask_for_lease(lease, connection, now);
}

/* ---- state ---- */

uint64_t outbox_lease_next_us(const struct outbox_lease *lease)
{
    if (lease->is_wanted)
        return 0;
    bool wants_lock = lease->is_held && !lease->has_lock && lease->next_lock_us < lease->next_us;
    return wants_lock ? lease->next_lock_us : lease->next_us;
}

bool outbox_lease_is_valid(const struct outbox_lease *lease, uint64_t now_us)
{
    return lease->is_held && now_us < lease->trust_us;
}

bool outbox_lease_is_overdue(const struct outbox_lease *lease, uint64_t now_us)
{
    return lease->is_held && now_us >= lease->trust_us;
}

void outbox_lease_forget(struct outbox_lease *lease)
{
    lease->is_asked = false;
    lease->is_measured = false;
    lease->is_held = false;
    lease->has_lock = false;
    lease->next_us = 0;
    lease->next_lock_us = 0;
    lease->next_measure_us = 0;
    lease->is_wanted = false;
}

void outbox_lease_init(struct outbox_lease *lease, const struct outbox_lease_options *options)
{
    *lease = (struct outbox_lease){.options = *options};
    lease->measure.on_answer = on_measured;
}
