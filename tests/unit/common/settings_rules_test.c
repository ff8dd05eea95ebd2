/* What no service could run with, though each line of it can be read. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/attributes.h"
#include "common/settings_file.h"

static char path[] = "/tmp/userd-rules-XXXXXX";

static void init(void)
{
    (void)unsetenv("DB_URL");
    (void)unsetenv("KAFKA_URL");
    (void)unsetenv("KAFKA_BOOTSTRAP_SERVERS");
    (void)unsetenv("CREDENTIALS_DIRECTORY");
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    (void)close(fd);
}

static void fini(void)
{
    (void)unlink(path);
}

TestSuite(settings_rules, .init = init, .fini = fini);

static void given_file(const char *text)
{
    FILE *file = fopen(path, "we");
    cr_assert_not_null(file);
    (void)fputs(text, file);
    (void)fclose(file);
}

/* "" for none; the caller's to free. */
static char *when_read(struct settings_complaints *warnings)
{
    struct settings settings = {0};
    struct settings_complaints complaints = {0};
    int result = settings_file_read(path, &settings, &complaints, warnings);
    cr_assert_eq(result == 0, complaints.count == 0);
    settings_cleanup(&settings);
    return complaints.text != NULL ? complaints.text : strdup("");
}

static void then_refused(const char *text, const char *complaint)
{
    struct settings_complaints warnings = {0};
    given_file(text);
    char *said = when_read(&warnings);
    cr_expect_not_null(strstr(said, complaint), "\"%s\" does not say: %s", said, complaint);
    free(said);
    settings_complaints_cleanup(&warnings);
}

static void then_accepted(const char *text)
{
    struct settings_complaints warnings = {0};
    given_file(text);
    char *said = when_read(&warnings);
    cr_expect_str_eq(said, "", "%s", text);
    cr_expect_null(warnings.text, "%s", warnings.text);
    free(said);
    settings_complaints_cleanup(&warnings);
}

Test(settings_rules, no_two_topics_are_one)
{
    then_refused("kafka = {\n delete_topic = \"registration\"; };\n",
        ":2: kafka.delete_topic: is the topic of kafka.registration_topic too");
    then_refused("kafka = { dead_letter_topic = \"registration\"; };\n",
        ":1: kafka.dead_letter_topic: is the topic of kafka.registration_topic too");
    then_refused("kafka = { dead_letter_topic = \"x\"; delete_topic = \"x\"; };\n",
        ":1: kafka.dead_letter_topic: is the topic of kafka.delete_topic too");
    then_refused("kafka = { admin_delete_topic = \"delete\"; };\n",
        "kafka.delete_topic: is the topic of kafka.admin_delete_topic too");
}

Test(settings_rules, a_topic_has_a_name_that_kafka_takes)
{
    static const char *const names[] = {"a/b", "a b", ".", "..", "a:b", "\\x41\\x1b"};
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        char text[128];
        (void)snprintf(text, sizeof(text), "kafka = { delete_topic = \"%s\"; };\n", names[i]);
        then_refused(text, "is no name of a topic, expected 1 to 249 of");
    }
    char text[400];
    (void)snprintf(text, sizeof(text), "kafka = { delete_topic = \"%0250d\"; };\n", 0);
    then_refused(text, "is no name of a topic");
    (void)snprintf(text, sizeof(text), "kafka = { delete_topic = \"%0249d\"; };\n", 0);
    then_accepted(text);
}

Test(settings_rules, a_broker_is_a_host_and_a_port)
{
    static const char *const bad[] = {"a b c", "a b:9092", "kafka:99999", "kafka:0",
        "kafka:", "kafka:9092,", ",kafka:9092", "kafka:9092,,kafka2:9092", "kafka;9092",
        "[::1:9092", "[]:9092", "kafka:90x2", "://kafka:9092", "kafka:9092 other:9092",
        "kafka:900000000000"};
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        char text[128];
        (void)snprintf(text, sizeof(text), "kafka = {\n bootstrap_servers = \"%s\"; };\n", bad[i]);
        then_refused(text, ":2: kafka.bootstrap_servers: \"");
    }
    static const char *const good[] = {"kafka", "kafka:9092", "k1:9092,k2:9092", "k1:9092, k2",
        "[::1]:9092", "[fe80::1]", "SASL_SSL://kafka:9093", "127.0.0.1:65535", "kafka_1.net-2:1"};
    for (size_t i = 0; i < ARRAY_LENGTH(good); i++) {
        char text[128];
        (void)snprintf(text, sizeof(text), "kafka = { bootstrap_servers = \"%s\"; };\n", good[i]);
        then_accepted(text);
    }
    given_file("");
    cr_assert_eq(setenv("KAFKA_BOOTSTRAP_SERVERS", "a b c", 1), 0);
    struct settings_complaints warnings = {0};
    char *said = when_read(&warnings);
    cr_expect_not_null(strstr(said, "environment: KAFKA_BOOTSTRAP_SERVERS: "), "%s", said);
    free(said);
}

static void given_listeners(const char *one, const char *other, char text[512])
{
    (void)snprintf(text, 512,
        "listeners = (\n { name = \"a\"; address = \"%s\"; services = [\"user.User\"]; },\n"
        " { name = \"b\"; address = \"%s\"; services = [\"user.User\"]; } );\n",
        one, other);
}

Test(settings_rules, no_two_listeners_have_one_address)
{
    static const char *const bad[][2] = {{"127.0.0.1:50053", "127.0.0.1:50053"},
        {"[::]:50053", "127.0.0.1:50053"}, {"[::1]:50053", "[::]:50053"},
        {"0.0.0.0:50053", "127.0.0.1:50053"}, {"[::]:50053", "0.0.0.0:50053"},
        {"localhost:50053", "127.0.0.1:50053"}, {"unix:/run/a", "unix:/run/a"}};
    static const char *const good[][2] = {{"127.0.0.1:0", "127.0.0.1:0"},
        {"127.0.0.1:50053", "127.0.0.1:50054"}, {"127.0.0.1:50053", "127.0.0.2:50053"},
        {"127.0.0.1:50053", "[::1]:50053"}, {"0.0.0.0:50053", "[::1]:50053"},
        {"unix:/run/a", "unix:/run/b"}};
    char text[512];
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        given_listeners(bad[i][0], bad[i][1], text);
        then_refused(text, ":3: listeners: address \"");
    }
    for (size_t i = 0; i < ARRAY_LENGTH(good); i++) {
        given_listeners(good[i][0], good[i][1], text);
        then_accepted(text);
    }
}

Test(settings_rules, run_dir_has_room_for_its_socket)
{
    char text[256];
    (void)snprintf(text, sizeof(text), "\nrun_dir = \"/%0100d\";\n", 0);
    then_refused(text, ":2: run_dir: is too long for a socket in it, expected at most 96 bytes");
}

/* ---- secrets that everybody can read ---- */

static void then_warned(const char *text, mode_t mode, const char *warning)
{
    struct settings_complaints warnings = {0};
    given_file(text);
    cr_assert_eq(chmod(path, mode), 0);
    char *said = when_read(&warnings);
    cr_expect_str_eq(said, "");
    if (warning == NULL)
        cr_expect_null(warnings.text, "%s", warnings.text);
    else
        cr_expect(warnings.text != NULL && strstr(warnings.text, warning) != NULL, "%s: %s", text,
            warnings.text);
    cr_expect(warnings.text == NULL || strstr(warnings.text, "hidden") == NULL);
    free(said);
    settings_complaints_cleanup(&warnings);
}

Test(settings_rules, a_secret_that_everybody_can_read_is_warned_of)
{
    static const char url[] = "\ndatabase = { url = \"postgresql://u:hidden@h/d\"; };\n";
    static const char option[] = "\nkafka = { options = { sasl_password = \"hidden\"; }; };\n";
    then_warned(url, 0644, ":2: database.url: holds a password, and everybody can read the file");
    then_warned(url, 0640, NULL);
    then_warned("\ndatabase = { url = \"postgresql://u@h/d\"; };\n", 0644, NULL);
    then_warned(option, 0644, ":2: kafka.options.sasl_password: is a secret, and everybody can");
    then_warned(option, 0640, NULL);
    char secret[] = "/tmp/userd-rules-XXXXXX";
    int fd = mkstemp(secret);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, "hidden\n", 7), 7);
    char text[256];
    (void)snprintf(text, sizeof(text), "database = { password_file = \"%s\"; };\n", secret);
    then_warned(text, 0644, NULL);
    cr_assert_eq(fchmod(fd, 0644), 0);
    then_warned(text, 0640, ":1: database.password_file: everybody can read the secret in /tmp/");
    (void)snprintf(
        text, sizeof(text), "kafka = { options = { sasl_password_file = \"%s\"; }; };\n", secret);
    then_warned(text, 0640, ":1: kafka.options.sasl_password_file: everybody can read");
    (void)close(fd);
    (void)unlink(secret);
}

Test(settings_rules, what_the_url_loses_is_said)
{
    then_warned(
        "database = { url = \"postgresql+asyncpg://u@h/d?prepared_statement_cache_size=0\"; "
        "};\n",
        0640,
        ":1: database.url: ignored, since it means nothing to libpq: "
        "prepared_statement_cache_size");
}
