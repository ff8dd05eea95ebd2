/* The lists of hosts, addresses and ports that libpq takes, as servers that are tried one by one.
 */
#include <criterion/criterion.h>

#include "worker/db/db_dial.h"
#include "worker/db/db_target.h"

static struct db_target_list list;

static void fini(void)
{
    db_target_list_cleanup(&list);
}

TestSuite(db_target, .fini = fini);

static void then_target_is(size_t number, const char *host, const char *address, const char *port)
{
    cr_assert(number < list.count);
    cr_assert_str_eq(list.items[number].host, host);
    if (address)
        cr_assert_str_eq(list.items[number].host_address, address);
    else
        cr_assert_null(list.items[number].host_address);
    if (port)
        cr_assert_str_eq(list.items[number].port, port);
    else
        cr_assert_null(list.items[number].port);
}

Test(db_target, has_each_host_with_its_port)
{
    cr_assert_eq(db_target_list_split("one,/run/two,", NULL, "1,2,", &list), 0);
    cr_assert_eq(list.count, 3);
    then_target_is(0, "one", NULL, "1");
    then_target_is(1, "/run/two", NULL, "2");
    then_target_is(2, "", NULL, "5432");
}

Test(db_target, gives_the_only_port_to_all_hosts)
{
    cr_assert_eq(db_target_list_split("one,two", "10.0.0.1,::1", "6432", &list), 0);
    cr_assert_eq(list.count, 2);
    then_target_is(0, "one", "10.0.0.1", "6432");
    then_target_is(1, "two", "::1", "6432");
}

/* libpq is asked as it is then, and complains. */
Test(db_target, leaves_lists_that_do_not_fit_to_libpq)
{
    static const char *const misfits[][3] = {{"one,two", NULL, "1,2,3"},
        {"one", "10.0.0.1,10.0.0.2", NULL}, {NULL, NULL, "1"}, {NULL, NULL, NULL}};
    for (size_t i = 0; i < ARRAY_LENGTH(misfits); i++) {
        cr_assert_eq(db_target_list_split(misfits[i][0], misfits[i][1], misfits[i][2], &list), 0);
        cr_assert_eq(list.count, 1);
        cr_assert_null(list.items[0].host);
        cr_assert_null(list.items[0].host_address);
        cr_assert_null(list.items[0].port);
        db_target_list_cleanup(&list);
    }
}

Test(db_dial, finds_the_sqlstate_behind_a_severity_of_any_language)
{
    char sqlstate[6] = "";
    cr_assert(
        db_dial_find_sqlstate("connection to server at \"::1\", port 1 failed: FATAL:  28P01: "
                              "password authentication failed for user \"userd\"",
            sqlstate));
    cr_assert_str_eq(sqlstate, "28P01");
    cr_assert(db_dial_find_sqlstate("... failed: ВАЖНО:  3D000: database", sqlstate));
    cr_assert_str_eq(sqlstate, "3D000");
    cr_assert_not(db_dial_find_sqlstate("connection refused", sqlstate));
    cr_assert_not(db_dial_find_sqlstate("FATAL:  password: 28P01", sqlstate));
}

Test(db_dial, gives_up_only_on_what_does_not_pass)
{
    static const char *const final[] = {"28000", "28P01", "3D000", "42704", "22023", "42501"};
    static const char *const passing[] = {"57P03", "53300", "08006", "57P01", "25006"};
    for (size_t i = 0; i < ARRAY_LENGTH(final); i++)
        cr_assert(db_dial_is_final(final[i]), "%s", final[i]);
    for (size_t i = 0; i < ARRAY_LENGTH(passing); i++)
        cr_assert_not(db_dial_is_final(passing[i]), "%s", passing[i]);
}
