#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#include "common/database_url.h"

static void then_normalised_is(const char *url, const char *expected)
{
    char *result = NULL;
    const char *reason = NULL;
    cr_assert_eq(database_url_normalise(url, &result, &reason), 0, "%s: %s", url, reason);
    cr_expect_str_eq(result, expected);
    free(result);
}

static void then_refused(const char *url)
{
    char *result = NULL;
    const char *reason = NULL;
    cr_expect_eq(database_url_normalise(url, &result, &reason), -EINVAL, "%s", url);
    cr_expect_not_null(reason);
}

Test(database_url, the_driver_of_sqlalchemy_means_nothing)
{
    then_normalised_is("postgresql+asyncpg://postgres:postgres@postgres_user:5432/user_db",
        "postgresql://postgres:postgres@postgres_user:5432/user_db");
    then_normalised_is("postgres://u@h/d", "postgresql://u@h/d");
    then_normalised_is(
        "postgresql:///d?host=/run/postgresql", "postgresql:///d?host=/run/postgresql");
}

Test(database_url, keywords_pass_as_they_are)
{
    then_normalised_is("host=/tmp dbname=user_db", "host=/tmp dbname=user_db");
}

Test(database_url, other_databases_are_refused)
{
    then_refused("mysql://u@h/d");
    then_refused("postgresqlx://u@h/d");
    then_refused("user_db");
    then_refused("");
}

Test(database_url, a_password_goes_behind_the_user)
{
    char *result = NULL;
    cr_assert_eq(database_url_set_password("postgresql://u@h:1/d", "a:b@c", &result), 0);
    cr_expect_str_eq(result, "postgresql://u:a%3Ab%40c@h:1/d");
    free(result);
    cr_assert_eq(database_url_set_password("host=h user=u", "it's", &result), 0);
    cr_expect_str_eq(result, "host=h user=u password='it\\'s'");
    free(result);
    cr_expect_eq(database_url_set_password("postgresql://u:x@h/d", "p", &result), -EEXIST);
    cr_expect_eq(database_url_set_password("postgresql://h/d", "p", &result), -EINVAL);
}

static void then_redacted_is(const char *url, const char *expected)
{
    char *result = database_url_redact(url);
    cr_expect_str_eq(result, expected);
    free(result);
}

Test(database_url, redacting_leaves_no_password)
{
    then_redacted_is("postgresql://u:secret@h:1/d", "postgresql://u:***@h:1/d");
    then_redacted_is("postgresql://u@h/d", "postgresql://u@h/d");
    then_redacted_is("postgresql://u@h/d?sslmode=off&password=secret", "postgresql://u@h/d");
    then_redacted_is("postgresql://u:secret@h/d?password=secret", "postgresql://u:***@h/d");
    then_redacted_is("host=h password='se cret' user=u", "host=h password=***");
}
