/* How often an address may connect. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "master/address_rate.h"

#define RATE    10
#define SECOND  UINT64_C(1000000)
#define CROWD   100000
#define ANY_DAY (1000 * SECOND)

static struct address_rate *rate;

static void init(void)
{
    cr_assert_eq(address_rate_new(&rate), 0);
    address_rate_set(rate, RATE);
}

static void fini(void)
{
    rate = address_rate_free(rate);
}

TestSuite(address_rate, .init = init, .fini = fini);

static bool is_let_in(uint32_t host, uint64_t now_us)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(host)};
    return address_rate_allows(rate, (const struct sockaddr *)&address, now_us);
}

static unsigned int count_let_in(uint32_t host, unsigned int tries, uint64_t now_us)
{
    unsigned int count = 0;
    for (unsigned int i = 0; i < tries; i++)
        count += is_let_in(host, now_us) ? 1 : 0;
    return count;
}

Test(address_rate, lets_a_second_s_worth_in_at_once_and_no_more)
{
    cr_assert_eq(count_let_in(1, 3 * RATE, ANY_DAY), RATE);
}

Test(address_rate, lets_in_so_many_a_second_from_then_on)
{
    (void)count_let_in(1, RATE, ANY_DAY);
    unsigned int count = 0;
    for (uint64_t ms = 1; ms <= 3000; ms++)
        count += is_let_in(1, ANY_DAY + ms * 1000) ? 1 : 0;
    cr_assert_eq(count, 3 * RATE);
}

Test(address_rate, forgives_after_a_second_of_silence)
{
    (void)count_let_in(1, 3 * RATE, ANY_DAY);
    cr_assert_eq(count_let_in(1, 3 * RATE, ANY_DAY + SECOND), RATE);
}

Test(address_rate, holds_nothing_against_others)
{
    (void)count_let_in(1, 3 * RATE, ANY_DAY);
    cr_assert_eq(count_let_in(2, 3 * RATE, ANY_DAY), RATE);
}

Test(address_rate, counts_an_ipv6_network_as_one)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6};
    unsigned int count = 0;
    for (int i = 1; i <= 3 * RATE; i++) {
        char text[INET6_ADDRSTRLEN];
        (void)snprintf(text, sizeof(text), "2001:db8::%x", i);
        cr_assert_eq(inet_pton(AF_INET6, text, &address.sin6_addr), 1);
        count += address_rate_allows(rate, (const struct sockaddr *)&address, ANY_DAY) ? 1 : 0;
    }
    cr_assert_eq(count, RATE);
}

Test(address_rate, does_not_forget_who_floods_for_a_crowd)
{
    (void)count_let_in(1, RATE, ANY_DAY);
    for (uint32_t host = 2; host < CROWD; host++)
        (void)is_let_in(host, ANY_DAY);
    cr_assert_eq(count_let_in(1, RATE, ANY_DAY), 0);
}

Test(address_rate, has_no_limit_when_it_is_zero)
{
    address_rate_set(rate, 0);
    cr_assert_eq(count_let_in(1, CROWD, ANY_DAY), CROWD);
}
