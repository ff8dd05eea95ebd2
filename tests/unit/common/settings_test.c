#include <criterion/criterion.h>
#include <errno.h>
#include <libconfig.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/settings_file.h"
#include "common/settings_transfer.h"

#ifndef TEST_SOURCE_DIR
#error "TEST_SOURCE_DIR must name the source tree"
#endif

#define CONFIGURATION_FILE TEST_SOURCE_DIR "/etc/userd.conf"

static char path[] = "/tmp/userd-settings-XXXXXX";

static void given_no_environment(void)
{
    (void)unsetenv("DB_URL");
    (void)unsetenv("KAFKA_URL");
    (void)unsetenv("KAFKA_BOOTSTRAP_SERVERS");
    (void)unsetenv("CREDENTIALS_DIRECTORY");
}

static void given_file(const char *text)
{
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    (void)close(fd);
}

static void remove_file(void)
{
    (void)unlink(path);
}

TestSuite(settings, .init = given_no_environment, .fini = remove_file);

/* Reads `text` as a file and expects just one complaint, which ends with `expected` behind the
 * path. */
static void then_complaint_is(const char *text, const char *expected)
{
    struct settings settings = {0};
    struct settings_complaints complaints = {0};
    struct settings_complaints warnings = {0};
    given_file(text);
    cr_assert_lt(settings_file_read(path, &settings, &complaints, &warnings), 0);
    char line[1024];
    (void)snprintf(line, sizeof(line), "%s:%s", path, expected);
    cr_assert_str_eq(complaints.text, line);
    cr_assert_eq(complaints.count, 1);
    settings_complaints_cleanup(&complaints);
    settings_complaints_cleanup(&warnings);
}

static void when_read(const char *text, struct settings *settings)
{
    struct settings_complaints complaints = {0};
    struct settings_complaints warnings = {0};
    given_file(text);
    cr_assert_eq(
        settings_file_read(path, settings, &complaints, &warnings), 0, "%s", complaints.text);
    settings_complaints_cleanup(&warnings);
}

Test(settings, the_commented_file_holds_every_setting_with_its_default_and_nothing_else)
{
    config_t config;
    config_init(&config);
    cr_assert(config_read_file(&config, CONFIGURATION_FILE), "%s:%d: %s", CONFIGURATION_FILE,
        config_error_line(&config), config_error_text(&config));
    size_t count = 0;
    const struct setting_row *rows = settings_table(&count);
    for (size_t i = 0; i < count; i++) {
        const config_setting_t *setting = config_lookup(&config, rows[i].name);
        cr_assert_not_null(setting, "%s is not in the file", rows[i].name);
        if (rows[i].type == SETTING_INTEGER)
            cr_expect_eq(
                config_setting_get_int(setting), rows[i].default_integer, "%s", rows[i].name);
        else if (rows[i].type == SETTING_BOOLEAN)
            cr_expect_eq(
                config_setting_get_bool(setting), rows[i].default_integer, "%s", rows[i].name);
        else if (rows[i].type == SETTING_CHOICE)
            cr_expect_str_eq(config_setting_get_string(setting),
                rows[i].choices[rows[i].default_integer], "%s", rows[i].name);
        else
            cr_expect_str_eq(
                config_setting_get_string(setting), rows[i].default_text, "%s", rows[i].name);
    }
    config_destroy(&config);
    struct settings settings = {0};
    struct settings_complaints complaints = {0};
    struct settings_complaints warnings = {0};
    cr_assert_eq(settings_file_read(CONFIGURATION_FILE, &settings, &complaints, &warnings), 0, "%s",
        complaints.text);
    cr_expect_eq(settings.listener_count, 2);
    settings_cleanup(&settings);
}

Test(settings, an_empty_file_means_the_defaults_and_the_two_contract_ports)
{
    struct settings settings = {0};
    when_read("", &settings);
    cr_expect_eq(settings.listener_count, 2);
    cr_expect_str_eq(settings.listeners[0].address, "[::]:50053");
    cr_expect_str_eq(settings.listeners[0].services[0], "user.User");
    cr_expect_str_eq(settings.listeners[1].address, "[::]:50055");
    cr_expect_str_eq(settings.listeners[1].services[0], "user_post.UserPost");
    cr_expect_str_eq(settings.kafka.group, "user_service");
    settings_cleanup(&settings);
}

Test(settings, an_unknown_setting_is_refused_with_the_nearest_name)
{
    then_complaint_is("workers = 2;\ndatabase = {\n  conections = 3;\n};\n",
        "3: database.conections: unknown setting, did you mean \"database.connections\"?");
}

Test(settings, an_unknown_group_is_refused_with_the_nearest_name)
{
    then_complaint_is("databse = { connections = 3; };\n",
        "1: databse: unknown setting, did you mean \"database\"?");
}

Test(settings, a_number_out_of_bounds_is_refused_with_the_bounds)
{
    then_complaint_is("\nworkers = 65;\n", "2: workers: 65 is out of bounds, expected 0 to 64");
}

Test(settings, a_wrong_type_is_refused_with_what_was_expected)
{
    then_complaint_is(
        "workers = \"two\";\n", "1: workers: is not a whole number, expected 0 to 64");
    remove_file();
    memcpy(path, "/tmp/userd-settings-XXXXXX", sizeof(path));
    then_complaint_is("log = { level = \"loud\"; };\n",
        "1: log.level: \"loud\" is not known, expected one of "
        "\"error\", \"warn\", \"info\", \"debug\"");
}

Test(settings, a_syntax_error_names_its_line)
{
    then_complaint_is(
        "workers = 2;\nrun_dir = ;\n", "2: syntax error, expected settings such as: workers = 2;");
}

Test(settings, listeners_are_checked_member_by_member)
{
    then_complaint_is("listeners = (\n { name = \"a\"; address = \"nowhere\"; services = "
                      "[\"user.User\"]; }\n);\n",
        "2: listeners: address \"nowhere\" is not usable, expected HOST:PORT, [IPV6]:PORT or "
        "unix:/PATH");
    remove_file();
    memcpy(path, "/tmp/userd-settings-XXXXXX", sizeof(path));
    then_complaint_is(
        "listeners = (\n { name = \"a\"; address = \"[::]:1\"; services = [\"user.Usr\"]; }\n);\n",
        "2: listeners: service \"user.Usr\" is not known, expected \"user.User\" or "
        "\"user_post.UserPost\"");
}

Test(settings, all_complaints_are_collected)
{
    struct settings settings = {0};
    struct settings_complaints complaints = {0};
    struct settings_complaints warnings = {0};
    given_file("workers = -1;\nrun_dir = \"here\";\nfoo = 1;\n");
    cr_assert_lt(settings_file_read(path, &settings, &complaints, &warnings), 0);
    cr_expect_eq(complaints.count, 3);
    settings_complaints_cleanup(&warnings);
    settings_complaints_cleanup(&complaints);
}

Test(settings, the_environment_wins_over_the_file)
{
    struct settings settings = {0};
    (void)setenv("DB_URL", "postgresql+asyncpg://postgres:secret@postgres_user:5432/user_db", 1);
    (void)setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka:9092", 1);
    when_read("database = { url = \"postgresql://other@host/db\"; };\n", &settings);
    cr_expect_str_eq(
        settings.database.url, "postgresql://postgres:secret@postgres_user:5432/user_db");
    cr_expect_str_eq(settings.kafka.bootstrap_servers, "kafka:9092");
    settings_cleanup(&settings);
}

Test(settings, the_variables_of_the_legacy_service_count_in_its_order)
{
    struct settings settings = {0};
    cr_assert_eq(setenv("KAFKA_BOOTSTRAP_SERVERS", "second:9092", 1), 0);
    cr_assert_eq(setenv("KAFKA_URL", "first:9092", 1), 0);
    when_read("kafka = { bootstrap_servers = \"third:9092\"; };\n", &settings);
    cr_expect_str_eq(settings.kafka.bootstrap_servers, "first:9092");
    cr_expect_not(settings.has_standard_servers);
    settings_cleanup(&settings);
    cr_assert_eq(setenv("KAFKA_URL", "", 1), 0);
    remove_file();
    memcpy(path, "/tmp/userd-settings-XXXXXX", sizeof(path));
    when_read("", &settings);
    cr_expect_str_eq(settings.kafka.bootstrap_servers, "second:9092");
    cr_expect_not(settings.has_standard_servers);
    settings_cleanup(&settings);
    (void)unsetenv("KAFKA_BOOTSTRAP_SERVERS");
    remove_file();
    memcpy(path, "/tmp/userd-settings-XXXXXX", sizeof(path));
    when_read("", &settings);
    cr_expect(settings.has_standard_servers);
    settings_cleanup(&settings);
}

Test(settings, the_log_can_be_set_by_the_environment)
{
    struct settings settings = {0};
    cr_assert_eq(setenv("USERD_LOG_FORMAT", "json", 1), 0);
    cr_assert_eq(setenv("USERD_LOG_LEVEL", "debug", 1), 0);
    when_read("log = { format = \"text\"; };\n", &settings);
    cr_expect_eq(settings.log.format, LOG_FORMAT_JSON);
    cr_expect_eq(settings.log.level, LOG_LEVEL_DEBUG);
    settings_cleanup(&settings);
}

Test(settings, an_unknown_value_in_the_environment_is_refused_by_its_name)
{
    struct settings settings = {0};
    struct settings_complaints complaints = {0};
    struct settings_complaints warnings = {0};
    cr_assert_eq(setenv("USERD_LOG_FORMAT", "yaml", 1), 0);
    given_file("workers = 1;\n");
    cr_assert_lt(settings_file_read(path, &settings, &complaints, &warnings), 0);
    cr_expect_str_eq(complaints.text,
        "environment: USERD_LOG_FORMAT: log.format: \"yaml\" is not known, expected one of "
        "\"text\", \"json\"");
    settings_complaints_cleanup(&complaints);
    settings_complaints_cleanup(&warnings);
}

Test(settings, a_password_file_completes_the_url)
{
    char text[256];
    char secret[] = "/tmp/userd-secret-XXXXXX";
    int fd = mkstemp(secret);
    cr_assert_eq(write(fd, "p@ss/word\n", 10), 10);
    (void)close(fd);
    struct settings settings = {0};
    (void)snprintf(text, sizeof(text),
        "database = { url = \"postgresql://u@h/d\"; password_file = \"%s\"; };", secret);
    when_read(text, &settings);
    cr_expect_str_eq(settings.database.url, "postgresql://u:p%40ss%2Fword@h/d");
    settings_cleanup(&settings);
    (void)unlink(secret);
}

Test(settings, a_child_gets_its_own_part_and_nothing_more)
{
    struct settings settings = {0};
    when_read("database = { url = \"postgresql://u:secret@h/d\"; };\nkafka = { group = \"g1\"; };\n"
              "limits = { queued_calls = 77; };\n",
        &settings);
    Userd__Ipc__Start *start = NULL;
    cr_assert_eq(settings_transfer_pack(&settings, SETTING_FOR_WORKER, 3, 9, &start), 0);
    cr_expect_eq(start->slot, 3);
    cr_expect_eq(start->generation, 9);
    for (size_t i = 0; i < start->n_settings; i++)
        cr_expect_neq(
            strncmp(start->settings[i]->name, "kafka.", 6), 0, "%s", start->settings[i]->name);
    struct settings received = {0};
    cr_assert_eq(settings_transfer_unpack(start, &received), 0);
    cr_expect_str_eq(received.database.url, "postgresql://u:secret@h/d");
    cr_expect_eq(received.limits.queued_calls, 77);
    cr_expect_eq(received.listener_count, 2);
    settings_cleanup(&received);
    settings_transfer_free(start);

    cr_assert_eq(settings_transfer_pack(&settings, SETTING_FOR_EVENTD, 0, 9, &start), 0);
    for (size_t i = 0; i < start->n_settings; i++)
        cr_expect_neq(
            strncmp(start->settings[i]->name, "database.", 9), 0, "%s", start->settings[i]->name);
    cr_expect_eq(start->n_listeners, 0);
    settings_transfer_free(start);
    settings_cleanup(&settings);
}

Test(settings, a_transferred_value_out_of_bounds_is_refused)
{
    struct settings settings = {0};
    when_read("", &settings);
    Userd__Ipc__Start *start = NULL;
    cr_assert_eq(settings_transfer_pack(&settings, SETTING_FOR_WORKER, 1, 1, &start), 0);
    for (size_t i = 0; i < start->n_settings; i++) {
        if (strcmp(start->settings[i]->name, "database.connections") == 0)
            start->settings[i]->integer = 65;
    }
    struct settings received = {0};
    cr_expect_eq(settings_transfer_unpack(start, &received), -EPROTO);
    settings_transfer_free(start);
    settings_cleanup(&settings);
}

Test(settings, a_property_of_kafka_keeps_its_value_and_gets_its_dots)
{
    struct settings settings = {0};
    when_read("kafka = { options = { security_protocol = \"SASL_SSL\"; "
              "receive_message_max_bytes = 1000000; socket_keepalive_enable = true; }; };\n",
        &settings);
    cr_assert_eq(settings.kafka_option_count, 3);
    cr_expect_str_eq(settings.kafka_options[0].property, "security.protocol");
    cr_expect_str_eq(settings.kafka_options[0].value, "SASL_SSL");
    cr_expect_str_eq(settings.kafka_options[1].value, "1000000");
    cr_expect_str_eq(settings.kafka_options[2].value, "true");
    cr_expect(!settings.kafka_options[0].is_secret);
    settings_cleanup(&settings);
}

Test(settings, a_property_that_a_promise_stands_on_is_refused_with_the_reason)
{
    then_complaint_is("kafka = {\n  options = {\n    enable_idempotence = false;\n  };\n};\n",
        "3: kafka.options.enable_idempotence: is not to be set: events would be doubled or change "
        "places when a send is repeated");
    remove_file();
    memcpy(path, "/tmp/userd-settings-XXXXXX", sizeof(path));
    then_complaint_is("kafka = { options = { acks_file = \"/nowhere\"; }; };\n",
        "1: kafka.options.acks_file: is not to be set: an event counts as published when all "
        "replicas that are in sync have it");
    remove_file();
    memcpy(path, "/tmp/userd-settings-XXXXXX", sizeof(path));
    then_complaint_is("kafka = { options = { test_mock_num_brokers = 3; }; };\n",
        "1: kafka.options.test_mock_num_brokers: is not to be set: it is for librdkafka's own "
        "tests");
}

Test(settings, a_property_of_kafka_is_one_plain_value_and_set_once)
{
    then_complaint_is("kafka = { options = { ssl_ca_location = [ \"a\" ]; }; };\n",
        "1: kafka.options.ssl_ca_location: has no single value, expected text in double quotes, a "
        "whole number, true or false");
    remove_file();
    memcpy(path, "/tmp/userd-settings-XXXXXX", sizeof(path));
    then_complaint_is("kafka = { options = \"fast\"; };\n",
        "1: kafka.options: is not a group, expected options = { security_protocol = \"SASL_SSL\"; "
        "};");
    remove_file();
    memcpy(path, "/tmp/userd-settings-XXXXXX", sizeof(path));
    then_complaint_is("kafka = { options = {\n sasl_password = \"a\";\n sasl_password_file = "
                      "\"/etc/hostname\"; }; };\n",
        "3: kafka.options.sasl_password_file: sets sasl.password again, expected it once (first on "
        "line 2)");
}

static void given_secret(char *secret_path, const char *text)
{
    int fd = mkstemp(secret_path);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    (void)close(fd);
}

Test(settings, a_secret_of_kafka_comes_from_its_file)
{
    char text[256];
    char password[] = "/tmp/userd-secret-XXXXXX";
    char key[] = "/tmp/userd-secret-XXXXXX";
    given_secret(password, "p@ss word\r\nsecond line\n");
    given_secret(key, "-----BEGIN KEY-----\nabc\n-----END KEY-----\n");
    struct settings settings = {0};
    (void)snprintf(text, sizeof(text),
        "kafka = { options = { sasl_password_file = \"%s\"; ssl_key_pem_file = \"%s\"; }; };",
        password, key);
    when_read(text, &settings);
    cr_expect_str_eq(settings.kafka_options[0].property, "sasl.password");
    cr_expect_str_eq(settings.kafka_options[0].value, "p@ss word");
    cr_expect(settings.kafka_options[0].is_secret);
    cr_expect_str_eq(
        settings.kafka_options[1].value, "-----BEGIN KEY-----\nabc\n-----END KEY-----");
    settings_cleanup(&settings);
    (void)unlink(password);
    (void)unlink(key);
}

Test(settings, a_credential_of_systemd_wins_over_the_secret_file)
{
    char text[256];
    char directory[] = "/tmp/userd-credentials-XXXXXX";
    char credential[128];
    cr_assert_not_null(mkdtemp(directory));
    (void)snprintf(credential, sizeof(credential), "%s/kafka-sasl-password", directory);
    FILE *file = fopen(credential, "we");
    cr_assert_not_null(file);
    (void)fputs("from systemd\n", file);
    (void)fclose(file);
    (void)setenv("CREDENTIALS_DIRECTORY", directory, 1);
    struct settings settings = {0};
    (void)snprintf(
        text, sizeof(text), "kafka = { options = { sasl_password_file = \"/nowhere/else\"; }; };");
    when_read(text, &settings);
    cr_expect_str_eq(settings.kafka_options[0].value, "from systemd");
    settings_cleanup(&settings);
    (void)unlink(credential);
    (void)rmdir(directory);
}

Test(settings, a_missing_secret_file_is_named)
{
    then_complaint_is("kafka = { options = { sasl_password_file = \"/nowhere/else\"; }; };\n",
        "1: kafka.options.sasl_password_file: cannot read /nowhere/else: No such file or "
        "directory, expected a file, or the systemd credential \"kafka-sasl-password\", with the "
        "value in it");
}

Test(settings, properties_of_kafka_go_to_eventd_alone)
{
    struct settings settings = {0};
    when_read("kafka = { options = { sasl_password = \"hidden\"; }; };\n", &settings);
    Userd__Ipc__Start *start = NULL;
    cr_assert_eq(settings_transfer_pack(&settings, SETTING_FOR_WORKER, 1, 1, &start), 0);
    cr_expect_eq(start->n_kafka_options, 0);
    settings_transfer_free(start);
    cr_assert_eq(settings_transfer_pack(&settings, SETTING_FOR_EVENTD, 0, 1, &start), 0);
    cr_expect_eq(start->n_kafka_options, 1);
    struct settings received = {0};
    cr_assert_eq(settings_transfer_unpack(start, &received), 0);
    cr_assert_eq(received.kafka_option_count, 1);
    cr_expect_str_eq(received.kafka_options[0].property, "sasl.password");
    cr_expect_str_eq(received.kafka_options[0].value, "hidden");
    cr_expect(received.kafka_options[0].is_secret);
    settings_cleanup(&received);
    settings_transfer_free(start);
    settings_cleanup(&settings);
}
