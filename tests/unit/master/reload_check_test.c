/* What a reload may not change, and how it says so. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "master/reload_check.h"

static struct settings given_settings(const char *run_dir)
{
    struct settings settings;
    cr_assert_eq(settings_init(&settings), 0);
    cr_assert_eq(settings_set_text(&settings, settings_find("run_dir"), run_dir), 0);
    return settings;
}

Test(reload_check, says_nothing_of_what_stays)
{
    struct settings current = given_settings("/run/one");
    struct settings next = given_settings("/run/one");
    struct settings_complaints warnings = {0};
    cr_assert_eq(reload_check_keep_fixed("u.conf", &current, &next, &warnings), 0);
    cr_assert_eq(warnings.count, 0);
    settings_cleanup(&current);
    settings_cleanup(&next);
}

Test(reload_check, keeps_run_dir_and_warns)
{
    struct settings current = given_settings("/run/one");
    struct settings next = given_settings("/run/two");
    struct settings_complaints warnings = {0};
    cr_assert_eq(reload_check_keep_fixed("u.conf", &current, &next, &warnings), 0);
    cr_assert_str_eq(warnings.text,
        "u.conf: run_dir is now \"/run/two\" and stays \"/run/one\" until a restart");
    cr_assert_str_eq(next.run_dir, "/run/one");
    settings_complaints_cleanup(&warnings);
    settings_cleanup(&current);
    settings_cleanup(&next);
}

Test(reload_check, complains_of_a_file_that_is_not_there)
{
    struct settings current = given_settings("/run/one");
    struct settings next;
    struct settings_complaints complaints = {0};
    struct settings_complaints warnings = {0};
    cr_assert_lt(
        reload_check_file("/nonexistent/u.conf", &current, &next, &complaints, &warnings), 0);
    cr_assert_gt(complaints.count, 0);
    settings_complaints_cleanup(&complaints);
    settings_complaints_cleanup(&warnings);
    settings_cleanup(&current);
}
