/* What a reload may not change, and how it says so. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "master/reload_check.h"

static struct settings given_settings(const char *first_address, const char *second_name)
{
    struct settings settings;
    cr_assert_eq(settings_init(&settings), 0);
    struct settings_listener *listener = NULL;
    cr_assert_eq(settings_add_listener(&settings, "gateway", first_address, &listener), 0);
    listener->line = 7;
    cr_assert_eq(settings_add_listener(&settings, second_name, "[::]:2", &listener), 0);
    listener->line = 8;
    return settings;
}

static void then_it_says(struct settings current, struct settings next, const char *expected)
{
    struct settings_complaints complaints = {0};
    int result = reload_check_change("u.conf", &current, &next, &complaints);
    if (expected == NULL) {
        cr_assert_eq(result, 0, "refused: %s", complaints.text);
        cr_assert_eq(complaints.count, 0);
    } else {
        cr_assert_eq(result, -EINVAL);
        cr_assert(complaints.text != NULL && strstr(complaints.text, expected) != NULL,
            "says \"%s\", expected \"%s\"", complaints.text, expected);
    }
    settings_complaints_cleanup(&complaints);
    settings_cleanup(&current);
    settings_cleanup(&next);
}

Test(reload_check, lets_the_same_listeners_pass)
{
    then_it_says(given_settings("[::]:1", "post"), given_settings("[::]:1", "post"), NULL);
}

Test(reload_check, names_the_line_of_a_listener_that_moved)
{
    then_it_says(given_settings("[::]:1", "post"), given_settings("[::]:3", "post"),
        "u.conf:7: listener gateway has moved to \"[::]:3\", expected \"[::]:1\"");
}

Test(reload_check, names_the_line_of_a_new_listener)
{
    then_it_says(given_settings("[::]:1", "post"), given_settings("[::]:1", "other"),
        "u.conf:8: listener other is new");
}

Test(reload_check, names_a_listener_that_is_gone)
{
    then_it_says(given_settings("[::]:1", "post"), given_settings("[::]:1", "other"),
        "listener post is gone");
}

Test(reload_check, refuses_another_order)
{
    struct settings next;
    cr_assert_eq(settings_init(&next), 0);
    struct settings_listener *listener = NULL;
    cr_assert_eq(settings_add_listener(&next, "post", "[::]:2", &listener), 0);
    cr_assert_eq(settings_add_listener(&next, "gateway", "[::]:1", &listener), 0);
    then_it_says(given_settings("[::]:1", "post"), next, "listener post has another place");
}

Test(reload_check, refuses_another_run_dir)
{
    struct settings next = given_settings("[::]:1", "post");
    free(next.run_dir);
    next.run_dir = strdup("/elsewhere");
    then_it_says(given_settings("[::]:1", "post"), next, "run_dir is now \"/elsewhere\"");
}

Test(reload_check, complains_of_a_file_that_is_not_there)
{
    struct settings current = given_settings("[::]:1", "post");
    struct settings next;
    struct settings_complaints complaints = {0};
    cr_assert_lt(reload_check_file("/nonexistent/u.conf", &current, &next, &complaints), 0);
    cr_assert_gt(complaints.count, 0);
    settings_complaints_cleanup(&complaints);
    settings_cleanup(&current);
}
