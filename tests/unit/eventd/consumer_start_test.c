/* eventd/consumer_start: where the reading of a partition starts. */
#include <criterion/criterion.h>

#include "eventd/consumer_start.h"

#define RECORD_TIME 1000000

static char topic[] = "registration";

/* A partition from 10 to 100 of which nothing is known. */
static void given_partition(struct kafka_log *log, struct consumer_start_facts *facts)
{
    *log = (struct kafka_log){
        .topic = topic,
        .partition = 2,
        .extent = {.low = 10, .high = 100, .earliest = LOG_MARK_NONE},
        .found = {LOG_MARK_NONE, LOG_MARK_NONE},
        .committed = -1,
    };
    *facts = (struct consumer_start_facts){
        .stored = -1,
        .stored_record = LOG_MARK_NONE,
        .anchor = LOG_MARK_NONE,
        .log = log,
        .commit = COMMIT_NONE,
    };
}

static void given_stored(struct consumer_start_facts *facts, int64_t position)
{
    facts->stored = position;
    facts->stored_record =
        (struct log_mark){.offset = position - 1, .timestamp_ms = RECORD_TIME, .checksum = 7};
}

static void given_commit(struct kafka_log *log, struct consumer_start_facts *facts,
    enum commit_origin origin, int64_t offset)
{
    log->committed = offset;
    facts->commit = origin;
}

static void then_starts(const struct consumer_start_facts *facts, bool has_rollback, int64_t offset,
    enum consumer_start_reason reason)
{
    struct consumer_start start = consumer_start_choose(facts, has_rollback);
    cr_assert_eq(start.offset, offset, "offset %lld", (long long)start.offset);
    cr_assert_eq(start.reason, reason, "reason %d", (int)start.reason);
    cr_assert_eq(start.partition, 2);
    cr_assert_eq(start.stored, facts->stored, "what is compared and set is what PostgreSQL has");
}

/* ---- what is stored, and the extent of the log ---- */

Test(consumer_start, is_the_stored_position)
{
    struct kafka_log log;
    struct consumer_start_facts facts;
    given_partition(&log, &facts);
    given_stored(&facts, 50);
    log.found[0] = facts.stored_record;
    then_starts(&facts, false, 50, START_STORED);
    given_stored(&facts, 100);
    log.found[0] = facts.stored_record;
    then_starts(&facts, false, 100, START_STORED);
}

Test(consumer_start, is_the_earliest_when_nothing_is_known)
{
    struct kafka_log log;
    struct consumer_start_facts facts;
    given_partition(&log, &facts);
    then_starts(&facts, false, 10, START_EARLIEST);
}

Test(consumer_start, is_the_earliest_when_records_have_expired)
{
    struct kafka_log log;
    struct consumer_start_facts facts;
    given_partition(&log, &facts);
    given_stored(&facts, 9);
    then_starts(&facts, false, 10, START_EXPIRED);
    given_stored(&facts, 10);
    then_starts(&facts, false, 10, START_STORED);
}

Test(consumer_start, trusts_a_position_of_which_no_record_is_stored)
{
    struct kafka_log log;
    struct consumer_start_facts facts;
    given_partition(&log, &facts);
    facts.stored = 50;
    then_starts(&facts, false, 50, START_STORED);
    log.extent.low = 0;
    facts.stored = 0;
    then_starts(&facts, false, 0, START_STORED);
}

/* ---- a log that was made anew ---- */

Test(consumer_start, is_the_start_of_a_log_that_ends_before_the_position)
{
    struct kafka_log log;
    struct consumer_start_facts facts;
    given_partition(&log, &facts);
    given_stored(&facts, 101);
    then_starts(&facts, false, 10, START_RECREATED);
}

Test(consumer_start, is_the_start_of_a_log_that_has_another_record_below_the_position)
{
    struct kafka_log log;
    struct consumer_start_facts facts;
    given_partition(&log, &facts);
    given_stored(&facts, 50);
    log.found[0] = (struct log_mark){.offset = 49, .timestamp_ms = RECORD_TIME, .checksum = 8};
    then_starts(&facts, false, 10, START_RECREATED);
    log.found[0] = (struct log_mark){.offset = 49, .timestamp_ms = RECORD_TIME + 1, .checksum = 7};
    then_starts(&facts, false, 10, START_RECREATED);
}

Test(consumer_start, is_the_start_of_a_log_in_which_the_anchor_does_not_fit)
{
    struct kafka_log log;
    struct consumer_start_facts facts;
    given_partition(&log, &facts);
    given_stored(&facts, 50);
    log.found[0] = facts.stored_record;
    facts.anchor = (struct log_mark){.offset = 40, .timestamp_ms = RECORD_TIME, .checksum = 5};
    log.found[1] = facts.anchor;
    then_starts(&facts, false, 50, START_STORED);
    log.found[1].checksum = 6;
    then_starts(&facts, false, 10, START_RECREATED);
}

Test(consumer_start, is_the_start_of_a_log_that_is_known_to_be_new)
{
    struct kafka_log log;
    struct consumer_start_facts facts;
    given_partition(&log, &facts);
    given_stored(&facts, 50);
    log.found[0] = facts.stored_record;
    facts.is_recreated = true;
    then_starts(&facts, false, 10, START_RECREATED);
}

Test(consumer_start, takes_a_record_that_was_compacted_away_for_no_sign_of_a_new_log)
{
    struct kafka_log log;
    struct consumer_start_facts facts;
    given_partition(&log, &facts);
    given_stored(&facts, 50);
    log.extent.earliest =
        (struct log_mark){.offset = 12, .timestamp_ms = RECORD_TIME - 5, .checksum = 3};
    then_starts(&facts, false, 50, START_STORED);
    /* Nothing before it is left. */
    log.extent.earliest =
        (struct log_mark){.offset = 60, .timestamp_ms = RECORD_TIME + 5, .checksum = 3};
    then_starts(&facts, false, 50, START_STORED);
}

Test(consumer_start, takes_a_missing_record_behind_younger_ones_for_a_new_log)
{
    /* At its offset a new log may have the marker of a transaction, which nobody reads. */
    struct kafka_log log;
    struct consumer_start_facts facts;
    given_partition(&log, &facts);
    given_stored(&facts, 50);
    log.extent.earliest =
        (struct log_mark){.offset = 12, .timestamp_ms = RECORD_TIME + 5, .checksum = 3};
    then_starts(&facts, false, 10, START_RECREATED);
}

/* ---- what the group has committed ---- */

Test(consumer_start, is_what_another_program_committed_when_nothing_is_stored)
{
    struct kafka_log log;
    struct consumer_start_facts facts;
    given_partition(&log, &facts);
    given_commit(&log, &facts, COMMIT_FOREIGN, 70);
    then_starts(&facts, false, 70, START_COMMITTED);
    given_commit(&log, &facts, COMMIT_FOREIGN, 5);
    then_starts(&facts, false, 10, START_EARLIEST);
    given_commit(&log, &facts, COMMIT_FOREIGN, 101);
    then_starts(&facts, false, 10, START_EARLIEST);
}

Test(consumer_start, is_what_another_program_committed_when_it_is_ahead)
{
    struct kafka_log log;
    struct consumer_start_facts facts;
    given_partition(&log, &facts);
    given_stored(&facts, 50);
    log.found[0] = facts.stored_record;
    given_commit(&log, &facts, COMMIT_FOREIGN, 70);
    then_starts(&facts, false, 70, START_FOREIGN);
    given_commit(&log, &facts, COMMIT_FOREIGN, 50);
    then_starts(&facts, false, 50, START_STORED);
    given_commit(&log, &facts, COMMIT_FOREIGN, 49);
    then_starts(&facts, false, 50, START_STORED);
}

Test(consumer_start, does_not_call_expired_what_another_program_has_consumed)
{
    struct kafka_log log;
    struct consumer_start_facts facts;
    given_partition(&log, &facts);
    given_stored(&facts, 5);
    given_commit(&log, &facts, COMMIT_FOREIGN, 20);
    then_starts(&facts, false, 20, START_FOREIGN);
}

Test(consumer_start, is_the_stored_position_when_userd_itself_was_further)
{
    struct kafka_log log;
    struct consumer_start_facts facts;
    given_partition(&log, &facts);
    given_stored(&facts, 50);
    log.found[0] = facts.stored_record;
    given_commit(&log, &facts, COMMIT_OURS, 70);
    cr_assert(consumer_start_shows_rollback(&facts));
    then_starts(&facts, true, 50, START_STORED);
    given_commit(&log, &facts, COMMIT_OURS, 50);
    cr_assert(!consumer_start_shows_rollback(&facts));
}

Test(consumer_start, is_the_earliest_when_the_database_has_forgotten_all_that_userd_committed)
{
    struct kafka_log log;
    struct consumer_start_facts facts;
    given_partition(&log, &facts);
    given_commit(&log, &facts, COMMIT_OURS, 70);
    cr_assert(consumer_start_shows_rollback(&facts));
    then_starts(&facts, true, 10, START_EARLIEST);
}

Test(consumer_start, does_not_take_the_progress_of_userd_on_another_database)
{
    struct kafka_log log;
    struct consumer_start_facts facts;
    given_partition(&log, &facts);
    given_stored(&facts, 50);
    log.found[0] = facts.stored_record;
    given_commit(&log, &facts, COMMIT_OTHER_DATABASE, 70);
    cr_assert(!consumer_start_shows_rollback(&facts));
    then_starts(&facts, false, 50, START_STORED);
}

Test(consumer_start, does_not_take_foreign_progress_that_a_database_which_went_back_may_have_lost)
{
    struct kafka_log log;
    struct consumer_start_facts facts;
    given_partition(&log, &facts);
    given_stored(&facts, 50);
    log.found[0] = facts.stored_record;
    given_commit(&log, &facts, COMMIT_FOREIGN, 70);
    then_starts(&facts, true, 50, START_STORED);
}

Test(consumer_start, takes_no_commit_for_a_log_that_was_made_anew)
{
    struct kafka_log log;
    struct consumer_start_facts facts;
    given_partition(&log, &facts);
    given_stored(&facts, 101);
    given_commit(&log, &facts, COMMIT_FOREIGN, 90);
    then_starts(&facts, false, 10, START_RECREATED);
    given_commit(&log, &facts, COMMIT_OURS, 102);
    cr_assert(!consumer_start_shows_rollback(&facts));
}
