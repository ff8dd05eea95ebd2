/* eventd/consumer_start: where the reading of a partition starts. */
#include <criterion/criterion.h>

#include "eventd/consumer_start.h"

static struct consumer_start when_chosen(
    int64_t stored, int64_t committed, int64_t low, int64_t high)
{
    static char topic[] = "registration";
    rd_kafka_topic_partition_t partition = {.topic = topic, .partition = 2, .offset = stored};
    struct kafka_partition_offsets offsets = {.committed = committed, .low = low, .high = high};
    return consumer_start_choose(&partition, &offsets);
}

Test(consumer_start, is_the_stored_position_whatever_kafka_was_told)
{
    struct consumer_start start = when_chosen(50, 70, 10, 100);
    cr_assert_eq(start.offset, 50);
    cr_assert_eq(start.stored, 50);
    cr_assert_eq(start.partition, 2);
}

Test(consumer_start, is_the_end_when_everything_is_applied)
{
    cr_assert_eq(when_chosen(100, -1, 10, 100).offset, 100);
}

Test(consumer_start, is_what_the_group_committed_when_nothing_is_stored)
{
    struct consumer_start start = when_chosen(-1, 70, 10, 100);
    cr_assert_eq(start.offset, 70);
    cr_assert_eq(start.stored, -1);
}

Test(consumer_start, is_the_earliest_when_nothing_is_known)
{
    cr_assert_eq(when_chosen(-1, -1, 10, 100).offset, 10);
}

Test(consumer_start, is_the_earliest_when_the_commit_is_out_of_the_log)
{
    cr_assert_eq(when_chosen(-1, 5, 10, 100).offset, 10);
    cr_assert_eq(when_chosen(-1, 101, 10, 100).offset, 10);
}

Test(consumer_start, is_the_earliest_when_the_position_is_above_the_end)
{
    struct consumer_start start = when_chosen(101, -1, 0, 100);
    cr_assert_eq(start.offset, 0);
    cr_assert_eq(start.stored, 101, "what is compared and set stays what PostgreSQL has");
}

Test(consumer_start, is_the_earliest_when_records_have_expired)
{
    cr_assert_eq(when_chosen(9, -1, 10, 100).offset, 10);
}
