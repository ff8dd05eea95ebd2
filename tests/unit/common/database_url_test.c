#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/attributes.h"
#include "common/database_url.h"

static void then_normalised_is(const char *url, const char *expected)
{
    struct database_url result;
    cr_assert_eq(database_url_normalise(url, &result), 0, "%s: %s", url, result.reason);
    cr_expect_str_eq(result.url, expected);
    database_url_cleanup(&result);
}

static void then_refused_saying(const char *url, const char *reason)
{
    struct database_url result;
    cr_expect_eq(database_url_normalise(url, &result), -EINVAL, "%s", url);
    cr_expect_not_null(strstr(result.reason, reason), "%s: %s", url, result.reason);
    cr_expect_null(strstr(result.reason, "secret"), "%s", result.reason);
    database_url_cleanup(&result);
}

static void then_refused(const char *url)
{
    then_refused_saying(url, "");
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
    then_redacted_is("postgresql://u@h/d?sslmode=off&password=secret",
        "postgresql://u@h/d?sslmode=off&password=***");
    then_redacted_is(
        "postgresql://u:secret@h/d?password=secret", "postgresql://u:***@h/d?password=***");
    then_redacted_is("host=h password='se cret' user=u", "host=h password=*** user=u");
    then_redacted_is("host=h password = secret user=u", "host=h password=*** user=u");
    then_redacted_is("host=h sslpassword=secret sslkey=/k", "host=h sslpassword=*** sslkey=/k");
    then_redacted_is("postgresql://u:se?cret@h/d", "postgresql://u:***@h/d");
    then_redacted_is("postgresql://u:se#cret@h/d", "postgresql://u:***@h/d");
    then_redacted_is("postgresql://u:secret@h:port/d", "***");
    then_redacted_is("secret", "***");
}

/* Each password in a URL as people write it, and as libpq must get it. */
Test(database_url, a_password_may_hold_any_character)
{
    static const struct {
        const char *raw;
        const char *encoded;
    } passwords[] = {
        {"a/b", "a%2Fb"},
        {"a?b", "a%3Fb"},
        {"a#b", "a%23b"},
        {"a@b", "a%40b"},
        {"@", "%40"},
        {"a%b", "a%25b"},
        {"100%", "100%25"},
        {"a%2Fb", "a%2Fb"},
        {"a%zz", "a%25zz"},
        {"a:b", "a%3Ab"},
        {"a=b&c=d", "a%3Db%26c%3Dd"},
        {"5432/x", "5432%2Fx"},
        {"a/b?c#d@e%g:h", "a%2Fb%3Fc%23d%40e%25g%3Ah"},
        {"p@ss/word?x=1", "p%40ss%2Fword%3Fx%3D1"},
        {"?sslmode=", "%3Fsslmode%3D"},
        {"a b", "a%20b"},
        {"\xc3\xa4", "%C3%A4"},
    };
    static const char *const tails[] = {"h:5432/d", "h", "h1,h2:5433/d?application_name=a@b",
        "[::1]:5432/d", "%2Frun%2Fpostgresql/d", "/d", "h/d?sslmode=require&connect_timeout=3"};
    for (size_t i = 0; i < ARRAY_LENGTH(passwords); i++)
        for (size_t j = 0; j < ARRAY_LENGTH(tails); j++) {
            char url[256];
            char expected[256];
            char tail[64];
            (void)snprintf(tail, sizeof(tail), "%s", tails[j]);
            char *at = strchr(tail, '@');
            (void)snprintf(
                url, sizeof(url), "postgresql+asyncpg://u:%s@%s", passwords[i].raw, tail);
            const char *encoded = passwords[i].encoded;
            if (at != NULL)
                (void)snprintf(expected, sizeof(expected), "postgresql://u:%s@%.*s%%40%s", encoded,
                    (int)(at - tail), tail, at + 1);
            else
                (void)snprintf(expected, sizeof(expected), "postgresql://u:%s@%s", encoded, tail);
            then_normalised_is(url, expected);
            then_normalised_is(expected, expected);
        }
}

Test(database_url, an_at_sign_in_the_parameters_makes_no_user)
{
    then_normalised_is(
        "postgresql:///d?application_name=a@b", "postgresql:///d?application_name=a%40b");
    then_normalised_is(
        "postgresql://u@h/d?options=-c%20x=a@b", "postgresql://u@h/d?options=-c%20x%3Da%40b");
}

Test(database_url, what_sqlalchemy_adds_is_translated_or_left_out)
{
    then_normalised_is(
        "postgresql+asyncpg://u:p@h/d?ssl=require", "postgresql://u:p@h/d?sslmode=require");
    then_normalised_is(
        "postgresql+asyncpg://u:p@h/d?ssl=prefer", "postgresql://u:p@h/d?sslmode=prefer");
    then_normalised_is("postgresql://u:p@h/d?ssl=true", "postgresql://u:p@h/d?sslmode=require");
    then_refused_saying("postgresql+asyncpg://u:p@h/d?ssl=maybe", "an unknown value of \"ssl\"");
    struct database_url result;
    cr_assert_eq(
        database_url_normalise("postgresql+asyncpg://u:p@h/d?prepared_statement_cache_size=0&"
                               "ssl=require&command_timeout=60",
            &result),
        0);
    cr_expect_str_eq(result.url, "postgresql://u:p@h/d?sslmode=require");
    cr_expect_str_eq(result.ignored, "prepared_statement_cache_size, command_timeout");
    database_url_cleanup(&result);
}

Test(database_url, what_libpq_cannot_read_is_refused_without_a_word_of_it)
{
    then_refused_saying("postgresql://u:secret@h:99999/d", "a host or port");
    then_refused_saying("postgresql://u:secret@h:0/d", "a host or port");
    then_refused_saying("postgresql://u:secret@h:1x/d", "a host or port");
    then_refused_saying("postgresql://u:secret@a b/d", "a host or port");
    then_refused_saying("postgresql://u:secret@[::1/d", "a host or port");
    then_refused_saying("postgresql://u:secret@h/d?secret", "parameters that cannot be read");
    then_refused_saying("postgresql://u:secret@h/d?=secret", "parameters that cannot be read");
    then_refused_saying("postgresql://u:%00secret@h/d", "an encoded NUL");
    then_refused_saying("postgresql://u:secret@h/d?sslmod=require", "did you mean \"sslmode\"?");
    then_refused_saying("postgresql://u:secret@h/d?bogus=1", "a parameter \"bogus\"");
    then_refused_saying("host=h password=my secret", "cannot be read");
    then_refused_saying("host=h password=my secret=1", "a parameter that is unknown");
    then_refused_saying("host=h password='secret", "cannot be read");
    then_refused_saying("host=h usr=u password=secret", "did you mean \"user\"?");
}

Test(database_url, blanks_around_it_are_nobodys)
{
    then_normalised_is(" postgresql://u:p@h/d\r\n", "postgresql://u:p@h/d");
    then_normalised_is("\thost=h  user = u\n", "host=h user=u");
}
