/* A ".env" as python-dotenv reads it for the legacy service. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/attributes.h"
#include "common/environment_file.h"

static char path[] = "/tmp/userd-env-XXXXXX";
static struct settings_complaints complaints;
static struct settings_complaints warnings;

static void init(void)
{
    (void)unsetenv("DB_URL");
    (void)unsetenv("KAFKA_URL");
    (void)unsetenv("KAFKA_BOOTSTRAP_SERVERS");
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    (void)close(fd);
}

static void fini(void)
{
    (void)unlink(path);
    settings_complaints_cleanup(&complaints);
    settings_complaints_cleanup(&warnings);
}

TestSuite(environment_file, .init = init, .fini = fini);

static int when_bytes_are_applied(const char *text, size_t length)
{
    FILE *file = fopen(path, "we");
    cr_assert_not_null(file);
    cr_assert_eq(fwrite(text, 1, length, file), length);
    (void)fclose(file);
    return environment_file_apply(path, &complaints, &warnings);
}

static int when_applied(const char *text)
{
    return when_bytes_are_applied(text, strlen(text));
}

static void then_url_is(const char *text, const char *expected)
{
    (void)unsetenv("DB_URL");
    cr_assert_eq(when_applied(text), 0, "%s: %s", text, complaints.text);
    cr_expect_str_eq(getenv("DB_URL"), expected, "%s", text);
}

Test(environment_file, values_are_read_as_dotenv_reads_them)
{
    then_url_is("DB_URL=a:b@c/d", "a:b@c/d");
    then_url_is("# first\n\n  export DB_URL = a\r\n", "a");
    then_url_is("DB_URL=a # a comment\n", "a");
    then_url_is("DB_URL=a#b\n", "a#b");
    then_url_is("DB_URL='a # ${HOME} \\' b' # c\n", "a # ${HOME} ' b");
    then_url_is("DB_URL=\"a \\\"b\\\" \\n\\\\ #c\"\n", "a \"b\" \n\\ #c");
    then_url_is("DB_URL=\"a\nb\"\nX=1\n", "a\nb");
    then_url_is("DB_URL=\n", "");
    then_url_is("DB_URL=a\nDB_URL=b\n", "b");
    then_url_is("P=\"x y\"\nDB_URL=u:${P}@${H:-local}/$d\n", "u:x y@local/$d");
    then_url_is("DB_URL=${NOTHING_HAS_THIS_NAME}b\n", "b");
}

/* What stands behind it would be left out without a word. */
Test(environment_file, a_nul_byte_is_refused_at_its_line)
{
    static const char text[] = "X=1\nDB_URL=a\0\nKAFKA_URL=k:9092\n";
    cr_assert_eq(when_bytes_are_applied(text, sizeof(text) - 1), -EILSEQ);
    cr_assert_not_null(complaints.text);
    cr_assert_not_null(strstr(complaints.text, ":2: the file holds a NUL byte, expected text"),
        "%s", complaints.text);
    cr_assert_null(getenv("DB_URL"));
}

Test(environment_file, a_byte_order_mark_is_no_part_of_the_first_name)
{
    then_url_is("\xef\xbb\xbf"
                "DB_URL=a\n",
        "a");
}

Test(environment_file, the_environment_wins_and_nothing_else_is_set)
{
    cr_assert_eq(setenv("DB_URL", "mine", 1), 0);
    cr_assert_eq(when_applied("DB_URL=theirs\nKAFKA_URL=k:9092\nLD_PRELOAD_X=evil\n"), 0);
    cr_expect_str_eq(getenv("DB_URL"), "mine");
    cr_expect_str_eq(getenv("KAFKA_URL"), "k:9092");
    cr_expect_null(getenv("LD_PRELOAD_X"));
    cr_expect_null(warnings.text);
}

Test(environment_file, a_mistake_is_named_by_its_line_and_not_by_its_value)
{
    cr_expect_eq(when_applied("A=\"x\ny\"\nDB_URL='hidden\n"), -EINVAL);
    cr_expect_not_null(strstr(complaints.text, ":3: a value begins with a quote"));
    cr_expect_eq(when_applied("A=1\nhidden nonsense\n"), -EINVAL);
    cr_expect_not_null(strstr(complaints.text, ":2: the line cannot be read"));
    cr_expect_null(strstr(complaints.text, "hidden"));
    cr_expect_null(getenv("DB_URL"));
    cr_expect_eq(environment_file_apply("/nowhere/.env", &complaints, &warnings), -ENOENT);
}

Test(environment_file, one_that_everybody_can_read_is_warned_of)
{
    cr_assert_eq(chmod(path, 0644), 0);
    cr_assert_eq(when_applied("DB_URL=a\n"), 0);
    cr_expect_not_null(strstr(warnings.text, "everybody can read the file"));
}
