/* Which sockets a reload keeps, binds and closes. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "master/listener_set.h"

static struct listener_set set;
static struct listener_change change;
static struct settings_complaints complaints;

/* "name address", ended by NULL. */
static struct settings given_settings(const char *const *listeners)
{
    struct settings settings = {0};
    for (size_t i = 0; listeners[i] != NULL; i += 2) {
        struct settings_listener *listener = NULL;
        cr_assert_eq(
            settings_add_listener(&settings, listeners[i], listeners[i + 1], &listener), 0);
        listener->line = 10 + (unsigned int)i;
    }
    return settings;
}

static void given_set(const char *const *listeners)
{
    struct settings settings = given_settings(listeners);
    cr_assert_eq(
        listener_set_open(&set, &settings, "u.conf", &complaints), 0, "%s", complaints.text);
    settings_cleanup(&settings);
}

static int when_prepared(const char *const *listeners)
{
    struct settings settings = given_settings(listeners);
    int result = listener_set_prepare(&set, &settings, "u.conf", &complaints, &change);
    settings_cleanup(&settings);
    return result;
}

static void fini(void)
{
    listener_set_abandon(&change);
    listener_set_close(&set);
    settings_complaints_cleanup(&complaints);
}

TestSuite(listener_set, .fini = fini);

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

Test(listener_set, keeps_the_sockets_of_what_stays_in_any_order)
{
    given_set(LIST("a", "127.0.0.1:0", "b", "127.0.0.1:0"));
    int a = set.items[0].fd;
    int b = set.items[1].fd;
    cr_assert_eq(when_prepared(LIST("b", "127.0.0.1:0", "a", "127.0.0.1:0")), 0);
    listener_set_commit(&set, &change);
    cr_assert_eq(set.count, 2);
    cr_assert_eq(set.items[0].fd, b);
    cr_assert_str_eq(set.items[0].name, "b");
    cr_assert_eq(set.items[1].fd, a);
}

Test(listener_set, keeps_a_socket_under_another_name)
{
    given_set(LIST("a", "127.0.0.1:0"));
    int a = set.items[0].fd;
    cr_assert_eq(when_prepared(LIST("c", "127.0.0.1:0")), 0);
    listener_set_commit(&set, &change);
    cr_assert_eq(set.items[0].fd, a);
    cr_assert_str_eq(set.items[0].name, "c");
}

Test(listener_set, binds_what_is_new_and_closes_what_is_gone)
{
    given_set(LIST("a", "127.0.0.1:0", "b", "127.0.0.1:0"));
    int a = set.items[0].fd;
    cr_assert_eq(when_prepared(LIST("b", "127.0.0.1:0", "c", "[::1]:0")), 0);
    listener_set_commit(&set, &change);
    cr_assert_eq(set.count, 2);
    cr_assert_neq(set.items[1].fd, a);
    cr_assert_str_eq(set.items[1].name, "c");
    cr_assert_lt(lseek(a, 0, SEEK_CUR), 0);
}

Test(listener_set, changes_nothing_when_an_address_is_in_use)
{
    given_set(LIST("a", "127.0.0.1:0"));
    int a = set.items[0].fd;
    cr_assert_lt(
        when_prepared(LIST("a", "127.0.0.1:0", "b", "127.0.0.1:0", "c", set.items[0].bound_text)),
        0);
    char expected[LISTENER_TEXT_MAX + 128];
    (void)snprintf(expected, sizeof(expected),
        "u.conf:14: listener c: cannot listen on %s: Address already in use by unit_master, pid %d",
        set.items[0].bound_text, (int)getpid());
    cr_assert_str_eq(complaints.text, expected);
    cr_assert_eq(set.count, 1);
    cr_assert_eq(set.items[0].fd, a);
}

/* Who waits for a worker is known by the number of its listener. */
Test(listener_set, says_when_a_number_has_become_another_listeners)
{
    given_set(LIST("a", "127.0.0.1:0", "b", "127.0.0.1:0"));
    uint32_t before = set.arrangement;
    cr_assert_eq(when_prepared(LIST("a", "127.0.0.1:0", "b", "127.0.0.1:0")), 0);
    listener_set_commit(&set, &change);
    cr_assert_eq(set.arrangement, before, "all stay where they are");
    cr_assert_eq(when_prepared(LIST("b", "127.0.0.1:0", "a", "127.0.0.1:0")), 0);
    listener_set_commit(&set, &change);
    cr_assert_eq(set.arrangement, before + 1, "they change places");
    cr_assert_eq(when_prepared(LIST("b", "127.0.0.1:0")), 0);
    listener_set_commit(&set, &change);
    cr_assert_eq(set.arrangement, before + 2, "one is gone");
}

Test(listener_set, removes_the_file_of_a_unix_socket_with_it)
{
    char path[] = "/tmp/userd-listener-test.XXXXXX";
    cr_assert_not_null(mkdtemp(path));
    char address[128];
    (void)snprintf(address, sizeof(address), "unix:%s/s", path);
    given_set(LIST("a", address));
    cr_assert_eq(when_prepared(LIST("a", address, "b", "127.0.0.1:0")), 0);
    listener_set_commit(&set, &change);
    cr_assert_eq(access(address + strlen("unix:"), F_OK), 0, "a kept socket lost its file");
    cr_assert_eq(when_prepared(LIST("b", "127.0.0.1:0")), 0);
    listener_set_commit(&set, &change);
    cr_assert_neq(access(address + strlen("unix:"), F_OK), 0);
    cr_assert_eq(rmdir(path), 0);
}
