/* How long an address is banned, and how that grows, is bounded and is forgotten. */
#include <criterion/criterion.h>

#include "master/address_ban.h"

#define SECOND  UINT64_C(1000000)
#define MINUTE  (60 * SECOND)
#define ANY_DAY (100000 * SECOND)
#define FIRST   1
#define LONGEST 10
#define CROWD   100000

static struct address_ban *ban;

static void init(void)
{
    cr_assert_eq(address_ban_new(&ban), 0);
    address_ban_set(ban, FIRST, LONGEST);
}

static void fini(void)
{
    ban = address_ban_free(ban);
}

TestSuite(address_ban, .init = init, .fini = fini);

Test(address_ban, holds_for_the_address_and_for_its_time)
{
    cr_assert_not(address_ban_holds(ban, 7, ANY_DAY));
    cr_assert_eq(address_ban_add(ban, 7, ANY_DAY), FIRST);
    cr_assert(address_ban_holds(ban, 7, ANY_DAY + SECOND - 1));
    cr_assert_not(address_ban_holds(ban, 8, ANY_DAY));
    cr_assert_not(address_ban_holds(ban, 7, ANY_DAY + SECOND));
}

Test(address_ban, takes_what_happens_during_a_ban_for_the_same_offence)
{
    cr_assert_eq(address_ban_add(ban, 7, ANY_DAY), FIRST);
    for (int i = 0; i < 8; i++)
        cr_assert_eq(address_ban_add(ban, 7, ANY_DAY + SECOND / 2), 0);
    cr_assert_not(address_ban_holds(ban, 7, ANY_DAY + SECOND));
    cr_assert_eq(address_ban_add(ban, 7, ANY_DAY + SECOND), 2 * FIRST);
}

Test(address_ban, doubles_up_to_the_longest)
{
    uint64_t now_us = ANY_DAY;
    static const unsigned int expected[] = {1, 2, 4, 8, LONGEST, LONGEST, LONGEST};
    for (size_t i = 0; i < sizeof(expected) / sizeof(*expected); i++) {
        cr_assert_eq(address_ban_add(ban, 7, now_us), expected[i], "%zu", i);
        now_us += expected[i] * SECOND;
    }
}

Test(address_ban, is_halved_by_each_quiet_minute)
{
    uint64_t now_us = ANY_DAY;
    for (unsigned int i = 0; i < 4; i++)
        now_us += address_ban_add(ban, 7, now_us) * SECOND;
    now_us += 2 * MINUTE;
    cr_assert_eq(address_ban_add(ban, 7, now_us), 4); /* 16 without the pause */
    now_us += 60 * MINUTE;
    cr_assert_eq(address_ban_add(ban, 7, now_us), FIRST);
}

Test(address_ban, never_grows_past_what_a_number_holds)
{
    address_ban_set(ban, 3600, 86400);
    uint64_t now_us = ANY_DAY;
    for (unsigned int i = 0; i < 100; i++) {
        unsigned int seconds = address_ban_add(ban, 7, now_us);
        cr_assert(seconds >= 3600 && seconds <= 86400, "%u", seconds);
        now_us += seconds * SECOND;
    }
}

Test(address_ban, keeps_the_longest_of_a_crowd)
{
    address_ban_set(ban, 1, 300);
    uint64_t now_us = ANY_DAY;
    for (unsigned int i = 0; i < 6; i++)
        now_us += address_ban_add(ban, 7, now_us) * SECOND;
    cr_assert_eq(address_ban_add(ban, 7, now_us), 64);
    for (uint64_t other = 1000; other < 1000 + CROWD; other++)
        cr_assert_eq(address_ban_add(ban, other, now_us), 1);
    cr_assert(address_ban_holds(ban, 7, now_us));
}

Test(address_ban, bans_nobody_when_it_is_switched_off)
{
    cr_assert_eq(address_ban_add(ban, 7, ANY_DAY), FIRST);
    address_ban_set(ban, 0, LONGEST);
    cr_assert_not(address_ban_holds(ban, 7, ANY_DAY));
    cr_assert_eq(address_ban_add(ban, 8, ANY_DAY), 0);
}
