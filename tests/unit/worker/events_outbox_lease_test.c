/* worker/events/outbox_lease: when a relay takes the lease of another. */
#include <criterion/criterion.h>

#include "worker/events/outbox_lease.h"

/* An owner that is well. */
static const struct lease_state well = {.fence = 7, .renewals = 100, .can_publish = true};

Test(outbox_lease, is_left_to_an_owner_that_is_well)
{
    cr_assert_null(outbox_lease_reason(&well, true));
    cr_assert_null(outbox_lease_reason(&well, false));
}

Test(outbox_lease, is_taken_by_anyone_when_it_is_to_be_had)
{
    struct lease_state seen = well;
    seen.is_free = true;
    cr_assert_str_eq(outbox_lease_reason(&seen, false), "free");
    seen = well;
    seen.is_abandoned = true;
    cr_assert_str_eq(outbox_lease_reason(&seen, false), "owner_has_gone");
    seen = well;
    seen.is_over = true;
    cr_assert_str_eq(outbox_lease_reason(&seen, false), "not_renewed");
}

Test(outbox_lease, is_taken_from_an_owner_without_kafka_by_one_that_has_it)
{
    struct lease_state seen = well;
    seen.can_publish = false;
    seen.silent_us = OUTBOX_LEASE_PATIENCE_US + 1;
    cr_assert_str_eq(outbox_lease_reason(&seen, true), "owner_without_kafka");
    cr_assert_null(outbox_lease_reason(&seen, false), "neither has it");
    seen.silent_us = OUTBOX_LEASE_PATIENCE_US;
    cr_assert_null(outbox_lease_reason(&seen, true), "a broker that is away for a moment");
}

/* Others may take over LEASE_STORE_SECONDS after the last renewal, which PostgreSQL carried out
 * later than it was asked for. */
Test(outbox_lease, is_trusted_for_less_than_others_wait)
{
    struct outbox_lease lease = {.is_held = true, .trust_us = OUTBOX_LEASE_TRUST_US};
    cr_assert(outbox_lease_is_valid(&lease, OUTBOX_LEASE_TRUST_US - 1));
    cr_assert_not(outbox_lease_is_valid(&lease, OUTBOX_LEASE_TRUST_US));
    cr_assert(outbox_lease_is_overdue(&lease, OUTBOX_LEASE_TRUST_US));
    cr_assert_lt(OUTBOX_LEASE_TRUST_US, LEASE_STORE_SECONDS * UINT64_C(1000000));
    cr_assert_gt(OUTBOX_LEASE_TRUST_US, 2 * OUTBOX_LEASE_RENEW_US, "one renewal may be late");
    lease.is_held = false;
    cr_assert_not(outbox_lease_is_valid(&lease, 0));
    cr_assert_not(outbox_lease_is_overdue(&lease, OUTBOX_LEASE_TRUST_US));
}
