/* What the parser gets to see of a configuration, and what it never does. */
#include <criterion/criterion.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/attributes.h"
#include "common/monotonic_clock.h"
#include "common/settings_file.h"
#include "common/settings_source.h"

static char directory[] = "/tmp/userd-source-XXXXXX";

static void init(void)
{
    cr_assert_not_null(mkdtemp(directory));
    cr_assert_eq(chdir("/"), 0); /* nothing is found by the working directory */
    (void)unsetenv("DB_URL");
    (void)unsetenv("KAFKA_URL");
    (void)unsetenv("KAFKA_BOOTSTRAP_SERVERS");
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *place)
{
    (void)status;
    (void)type;
    (void)place;
    return remove(path);
}

static void fini(void)
{
    (void)nftw(directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

TestSuite(settings_source, .init = init, .fini = fini, .timeout = 60);

static const char *path_of(const char *name)
{
    static char path[256];
    (void)snprintf(path, sizeof(path), "%s/%s", directory, name);
    return path;
}

static void given_bytes(const char *name, const char *bytes, size_t length)
{
    FILE *file = fopen(path_of(name), "we");
    cr_assert_not_null(file);
    cr_assert_eq(fwrite(bytes, 1, length, file), length);
    (void)fclose(file);
}

static void given_file(const char *name, const char *text)
{
    given_bytes(name, text, strlen(text));
}

static void given_directory(const char *name)
{
    cr_assert_eq(mkdir(path_of(name), 0755), 0);
}

static void then_text_is(const char *name, const char *expected)
{
    struct settings_source source = {0};
    struct settings_complaints complaints = {0};
    cr_assert_eq(
        settings_source_read(path_of(name), &source, &complaints), 0, "%s", complaints.text);
    cr_assert_str_eq(source.text, expected);
    settings_source_cleanup(&source);
}

/* The whole reader, as every command uses it: `complaint` without the directory in front. */
static void then_refused(const char *name, const char *complaint)
{
    struct settings settings = {0};
    struct settings_complaints complaints = {0};
    struct settings_complaints warnings = {0};
    cr_assert_lt(settings_file_read(path_of(name), &settings, &complaints, &warnings), 0);
    char expected[512];
    (void)snprintf(expected, sizeof(expected), "%s/%s", directory, complaint);
    cr_assert_not_null(
        strstr(complaints.text, expected), "%s does not say: %s", complaints.text, expected);
    settings_complaints_cleanup(&complaints);
    settings_complaints_cleanup(&warnings);
}

static void then_workers_are(const char *name, int workers)
{
    struct settings settings = {0};
    struct settings_complaints complaints = {0};
    struct settings_complaints warnings = {0};
    cr_assert_eq(settings_file_read(path_of(name), &settings, &complaints, &warnings), 0, "%s",
        complaints.text);
    cr_assert_eq(settings.workers, workers);
    settings_cleanup(&settings);
    settings_complaints_cleanup(&warnings);
}

/* ---- includes ---- */

Test(settings_source, an_included_directory_is_refused_and_ends_nothing)
{
    given_file("a.conf", "workers = 1;\n@include \"/etc\"\n");
    then_refused("a.conf", "a.conf:2: the included /etc is a directory, expected a file");
    given_file("b.conf", "@include \"/\"");
    then_refused("b.conf", "b.conf:1: the included / is a directory");
    given_directory("c.conf");
    then_refused("c.conf", "c.conf: is a directory");
}

Test(settings_source, an_include_is_relative_to_the_file_that_names_it)
{
    given_directory("sub");
    given_directory("sub/deeper");
    given_file("a.conf", "@include \"sub/b.conf\"\nlog = { level = \"warn\"; };\n");
    given_file("sub/b.conf", "  @include \"deeper/c.conf\" // and nothing else\n");
    given_file("sub/deeper/c.conf", "workers = 7;");
    then_workers_are("a.conf", 7);
}

Test(settings_source, a_directory_of_parts_is_read_in_the_order_of_names)
{
    given_directory("conf.d");
    given_file("a.conf", "@include_dir \"conf.d\"\n");
    given_file("conf.d/20-b.conf", "b = 2;\n");
    given_file("conf.d/10-a.conf", "a = 1;\n");
    given_file("conf.d/30-c.conf.dpkg-old", "c = 3;\n");
    given_file("conf.d/.hidden.conf", "d = 4;\n");
    then_text_is("a.conf", "a = 1;\n\nb = 2;\n\n\n\n");
    given_file("b.conf", "\n@include_dir \"nowhere\"\n");
    then_refused("b.conf", "b.conf:2: the directory ");
}

Test(settings_source, a_complaint_names_the_included_file_and_its_line)
{
    given_directory("conf.d");
    given_file("a.conf", "workers = 2;\n@include_dir \"conf.d\"\nwokers = 2;\n");
    given_file("conf.d/b.conf", "\n\nlog = { levle = \"info\"; };\n");
    given_file("conf.d/c.conf",
        "listeners = (\n { name = \"a\"; address = \"x\"; services = [\"user.User\"]; } );\n"
        "kafka = { options = {\n acks = 1; }; };\n");
    then_refused("a.conf", "conf.d/b.conf:3: log.levle: unknown setting");
    then_refused("a.conf", "conf.d/c.conf:2: listeners: address \"x\"");
    then_refused("a.conf", "conf.d/c.conf:4: kafka.options.acks");
    then_refused("a.conf", "a.conf:3: wokers: unknown setting");
    given_file("conf.d/b.conf", "\nlog = { level = ; };\n");
    then_refused("a.conf", "conf.d/b.conf:2: syntax error");
}

Test(settings_source, an_include_of_itself_ends)
{
    given_file("a.conf", "@include \"a.conf\"\n");
    then_refused("a.conf", "a.conf:1: the included ");
}

Test(settings_source, nothing_but_a_directive_follows_an_at_sign)
{
    static const char *const texts[] = {"@include\"b.conf\"\n", "@include b.conf\n",
        "workers = 1; @include \"b.conf\"\n", "@include \"b.conf\n", "@include \"\"\n",
        "@includes \"b.conf\"\n", "@\n"};
    given_file("b.conf", "");
    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
        given_file("a.conf", texts[i]);
        then_refused("a.conf", "a.conf:1: an @ has no meaning here");
    }
}

Test(settings_source, a_directive_in_a_string_or_a_comment_is_none)
{
    given_file("a.conf",
        "/* \n@include \"/etc\"\n*/ # @include \"/etc\"\n// @include \"/etc\"\n"
        "kafka = { options = { sasl_username = \"a\\\"\n@include \\\"/etc\\\"\n\"; "
        "}; };\nworkers = 3;\n");
    then_workers_are("a.conf", 3);
}

/* ---- sizes ---- */

Test(settings_source, what_is_too_large_is_refused_at_once)
{
    size_t length = 20000000;
    char *text = malloc(length);
    cr_assert_not_null(text);
    memset(text, 'a', length);
    memcpy(text, "run_dir = \"/", strlen("run_dir = \"/"));
    memcpy(text + length - 3, "\";\n", 3);
    given_bytes("a.conf", text, length);
    then_refused("a.conf", "a.conf: is too large, expected at most 256 KiB");
    given_bytes("b.conf", text, SETTINGS_SOURCE_MAX_BYTES - 100);
    given_file("c.conf", "@include \"b.conf\"\n");
    then_refused("c.conf", "b.conf:1: a string begins here and does not end");
    free(text);
    given_file("d.conf", "@include \"/dev/zero\"\n");
    then_refused(
        "d.conf", "d.conf:1: the included /dev/zero cannot be opened: it is not a regular");
}

Test(settings_source, a_pipe_is_not_waited_for)
{
    cr_assert_eq(mkfifo(path_of("a.conf"), 0600), 0);
    then_refused("a.conf", "a.conf: cannot be opened: it is not a regular file");
}

/* libconfig compares each name with all before it. */
Test(settings_source, many_settings_are_refused_before_they_take_time)
{
    char *text = malloc(SETTINGS_SOURCE_MAX_BYTES);
    cr_assert_not_null(text);
    size_t length = 0;
    for (int i = 0; i < 20000; i++)
        length += (size_t)sprintf(text + length, "a%d = 1;\n", i);
    given_bytes("a.conf", text, length);
    then_refused("a.conf", "a.conf:2001: there are too many settings, expected at most 2000");
    free(text);
}

Test(settings_source, a_nul_byte_hides_nothing)
{
    given_bytes("a.conf", "workers = 2;\n\0workers = 3;\n", 27);
    then_refused("a.conf", "a.conf:1: the file holds a NUL byte");
}

/* ---- numbers ---- */

Test(settings_source, a_number_is_judged_by_its_text)
{
    static const struct {
        const char *text;
        const char *complaint;
    } cases[] = {
        {"workers = 4294967298;\n", "a.conf:1: workers: 4294967298 is out of bounds"},
        {"workers = -4294967294;\n", "a.conf:1: workers: -4294967294 is out of bounds"},
        {"workers = 0x100000002;\n", "a.conf:1: workers: 4294967298 is out of bounds"},
        {"workers = 0xFFFFFFFF;\n", "a.conf:1: workers: 4294967295 is out of bounds"},
        {"workers = 0x80000000;\n", "a.conf:1: workers: 2147483648 is out of bounds"},
        {"workers = 18446744073709551618;\n", "a.conf:1: the number 18446744073709551618 is too"},
        {"workers = 18446744073709551618L;\n", "a.conf:1: the number 18446744073709551618L is"},
        {"workers = 0x10000000000000002L;\n", "a.conf:1: the number 0x10000000000000002L is too"},
        {"workers = 2.0;\n", "a.conf:1: workers: is not a whole number"},
        {"workers = 4294967298e0;\n", "a.conf:1: workers: is not a whole number"},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        given_file("a.conf", cases[i].text);
        then_refused("a.conf", cases[i].complaint);
    }
    static const char *const fine[] = {"workers = 2;", "workers = +2;", "workers = 0x2;",
        "workers = 2L;", "workers=2;", "workers:2", "workers = 0002;"};
    for (size_t i = 0; i < ARRAY_LENGTH(fine); i++) {
        given_file("a.conf", fine[i]);
        then_workers_are("a.conf", 2);
    }
}

Test(settings_source, an_option_of_kafka_keeps_a_large_number)
{
    given_file("a.conf", "kafka = { options = { queue_buffering_max_kbytes = 4294967298; }; };\n");
    struct settings settings = {0};
    struct settings_complaints complaints = {0};
    struct settings_complaints warnings = {0};
    cr_assert_eq(settings_file_read(path_of("a.conf"), &settings, &complaints, &warnings), 0, "%s",
        complaints.text);
    cr_assert_str_eq(settings.kafka_options[0].value, "4294967298");
    settings_cleanup(&settings);
}

/* ---- a bound on what is said ---- */

Test(settings_source, a_hundred_complaints_are_enough)
{
    char text[32000];
    size_t length = 0;
    for (int i = 0; i < 1500; i++)
        length += (size_t)sprintf(text + length, "zzzzzzzzzz%d=1;\n", i);
    given_bytes("a.conf", text, length);
    struct settings settings = {0};
    struct settings_complaints complaints = {0};
    struct settings_complaints warnings = {0};
    cr_assert_lt(settings_file_read(path_of("a.conf"), &settings, &complaints, &warnings), 0);
    cr_assert_eq(complaints.count, 1500);
    cr_assert_not_null(strstr(complaints.text, "a.conf:100: "));
    cr_assert_null(strstr(complaints.text, "a.conf:101: "));
    cr_assert_not_null(strstr(complaints.text, "there is more to complain of"));
    settings_complaints_cleanup(&complaints);
}

/* ---- run_dir alone ---- */

Test(settings_source, run_dir_is_found_in_a_file_with_mistakes)
{
    struct settings_complaints complaints = {0};
    char *run_dir = NULL;
    given_file("a.conf", "workers = \"two\";\nrun_dir = \"/run/other\";\n"
                         "database = { password_file = \"/nowhere\"; };\n");
    cr_assert_eq(settings_file_find_run_dir(path_of("a.conf"), &run_dir, &complaints), 0);
    cr_assert_str_eq(run_dir, "/run/other");
    free(run_dir);
    cr_assert_eq(
        settings_file_find_run_dir(path_of("nowhere.conf"), &run_dir, &complaints), -ENOENT);
    given_file("a.conf", "run_dir = \"/run/other\"; log = {\n");
    cr_assert_lt(settings_file_find_run_dir(path_of("a.conf"), &run_dir, &complaints), 0);
    given_file("a.conf", "run_dir = \"other\";\n");
    cr_assert_lt(settings_file_find_run_dir(path_of("a.conf"), &run_dir, &complaints), 0);
    settings_complaints_cleanup(&complaints);
}
