/* Lists of addresses as operators write them, and what an address is called in the log. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "common/address_key.h"
#include "common/address_list.h"

static struct sockaddr_storage make_address(const char *text)
{
    struct sockaddr_storage address = {0};
    struct sockaddr_in *ipv4 = (void *)&address;
    struct sockaddr_in6 *ipv6 = (void *)&address;
    if (inet_pton(AF_INET, text, &ipv4->sin_addr) == 1) {
        ipv4->sin_family = AF_INET;
    } else {
        cr_assert_eq(inet_pton(AF_INET6, text, &ipv6->sin6_addr), 1, "%s", text);
        ipv6->sin6_family = AF_INET6;
    }
    return address;
}

static bool is_in(const char *list_text, const char *text)
{
    struct address_list list;
    char reason[ADDRESS_LIST_REASON_BYTES] = "";
    cr_assert(address_list_parse(list_text, &list, reason), "%s: %s", list_text, reason);
    struct sockaddr_storage address = make_address(text);
    return address_list_contains(&list, (const struct sockaddr *)&address);
}

Test(address_list, contains_an_address_and_no_other)
{
    cr_assert(is_in("192.0.2.7", "192.0.2.7"));
    cr_assert_not(is_in("192.0.2.7", "192.0.2.6"));
    cr_assert(is_in("2001:db8::7", "2001:db8::7"));
    cr_assert_not(is_in("2001:db8::7", "2001:db8::8"));
    cr_assert_not(is_in("", "192.0.2.7"));
}

Test(address_list, contains_what_is_in_a_network)
{
    cr_assert(is_in("10.0.0.0/8", "10.255.0.1"));
    cr_assert_not(is_in("10.0.0.0/8", "11.0.0.1"));
    cr_assert(is_in("192.0.2.128/25", "192.0.2.200"));
    cr_assert_not(is_in("192.0.2.128/25", "192.0.2.100"));
    cr_assert(is_in("2001:db8::/33", "2001:db8:7fff::1"));
    cr_assert_not(is_in("2001:db8::/33", "2001:db8:8000::1"));
    cr_assert(is_in("0.0.0.0/0", "203.0.113.9"));
    cr_assert_not(is_in("0.0.0.0/0", "2001:db8::1"));
    cr_assert(is_in("::/0", "203.0.113.9"));
}

Test(address_list, takes_a_mapped_address_for_what_it_is)
{
    cr_assert(is_in("192.0.2.7", "::ffff:192.0.2.7"));
    cr_assert(is_in("::ffff:192.0.2.0/120", "192.0.2.7"));
}

Test(address_list, reads_several_items_with_commas_and_blanks)
{
    cr_assert(is_in(" 192.0.2.1,192.0.2.2 ,\t2001:db8::/32 ", "192.0.2.2"));
    cr_assert(is_in(" 192.0.2.1,192.0.2.2 ,\t2001:db8::/32 ", "2001:db8::5"));
}

static void expect_refused(const char *text, const char *part)
{
    struct address_list list;
    char reason[ADDRESS_LIST_REASON_BYTES] = "";
    cr_assert_not(address_list_parse(text, &list, reason), "%s", text);
    cr_assert_neq(strstr(reason, part), NULL, "%s: %s", text, reason);
    cr_assert_eq(list.count, 0);
}

Test(address_list, says_what_is_wrong)
{
    expect_refused("localhost", "\"localhost\" is no address");
    expect_refused("192.0.2.1, 192.0.2", "\"192.0.2\"");
    expect_refused("192.0.2.1/33", "\"192.0.2.1/33\"");
    expect_refused("192.0.2.1/", "\"192.0.2.1/\"");
    expect_refused("192.0.2.1/+8", "\"192.0.2.1/+8\"");
    expect_refused("2001:db8::/129", "\"2001:db8::/129\"");
    expect_refused("192.0.2.1/99999999999999999999", "is no address");
    char many[2048] = "";
    for (int i = 0; i <= ADDRESS_LIST_MAX; i++)
        (void)snprintf(many + strlen(many), sizeof(many) - strlen(many), "192.0.2.%d ", i);
    expect_refused(many, "more than 64");
    char endless[512];
    memset(endless, '1', sizeof(endless) - 1);
    endless[sizeof(endless) - 1] = '\0';
    expect_refused(endless, "is no address");
}

static void expect_name(const char *address_text, const char *name)
{
    struct sockaddr_storage address = make_address(address_text);
    uint64_t key = 0;
    char text[ADDRESS_KEY_TEXT_BYTES];
    cr_assert(address_key_make((const struct sockaddr *)&address, &key));
    address_key_write(key, text);
    cr_assert_str_eq(text, name);
}

Test(address_key, is_shown_as_people_write_it)
{
    expect_name("192.0.2.7", "192.0.2.7");
    expect_name("::ffff:192.0.2.7", "192.0.2.7");
    expect_name("2001:db8:0:5:1:2:3:4", "2001:db8:0:5::/64");
}
