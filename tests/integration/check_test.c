/* `userd check`, and what a bad configuration gets: file:line, what is wrong, what was expected,
 * and exit status 78. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/harness/test_process.h"

#define EXIT_USAGE  64 /* EX_USAGE of sysexits.h */
#define EXIT_CONFIG 78 /* EX_CONFIG */
#define EXIT_ABSENT 66 /* EX_NOINPUT */

static char directory[] = "/tmp/userd-check.XXXXXX";
static char config_path[64];

static void init(void)
{
    cr_assert(mkdtemp(directory) != NULL);
    (void)snprintf(config_path, sizeof(config_path), "%s/userd.conf", directory);
}

static void fini(void)
{
    (void)unlink(config_path);
    (void)rmdir(directory);
}

TestSuite(check, .init = init, .fini = fini, .timeout = 120);

static const char listeners[] =
    "listeners = (\n"
    "  { name = \"gateway\"; address = \"127.0.0.1:0\"; services = [ \"user.User\" ]; }\n"
    ");\n";

/* `userd COMMAND -c FILE` with the given text in the file: the exit status, and the output, which
 * is the caller's. */
static int tell(const char *command, const char *const *environment, char **ret_output)
{
    const char *const argv[] = {TEST_USERD, command, "-c", config_path, NULL};
    static const char *const none[] = {"DB_URL", "KAFKA_URL", "KAFKA_BOOTSTRAP_SERVERS", NULL};
    return test_process_run(argv, environment != NULL ? environment : none, directory, ret_output);
}

static void then_ends_with(int expected, const char *text, const char *complaint)
{
    static const char *const commands[] = {"check", "run"};
    test_file_write(config_path, text);
    for (size_t i = 0; i < ARRAY_LENGTH(commands); i++) {
        char *output = NULL;
        int status = tell(commands[i], NULL, &output);
        cr_assert(status == expected, "userd %s ended with %d: %s", commands[i], status, output);
        cr_assert(strstr(output, complaint) != NULL, "userd %s does not say \"%s\": %s",
            commands[i], complaint, output);
        free(output);
    }
}

static void then_is_refused(const char *text, const char *complaint)
{
    then_ends_with(EXIT_CONFIG, text, complaint);
}

Test(check, accepts_the_defaults)
{
    test_file_write(config_path, listeners);
    char *output = NULL;
    int status = tell("check", NULL, &output);
    cr_assert(status == 0, "ended with %d: %s", status, output);
    free(output);
}

Test(check, accepts_the_shipped_configuration)
{
    const char *const argv[] = {TEST_USERD, "check", "-c", TEST_SOURCE_DIR "/etc/userd.conf", NULL};
    char *output = NULL;
    int status = test_process_run(argv, NULL, directory, &output);
    cr_assert(status == 0, "ended with %d: %s", status, output);
    free(output);
}

Test(check, names_the_line_of_a_syntax_error)
{
    then_is_refused("workers = 2;\nlog = { level = ;\n", "userd.conf:2: ");
}

Test(check, names_the_line_and_the_nearest_name_of_an_unknown_setting)
{
    then_is_refused("workers = 2;\ndatabase = {\n  conections = 3;\n};\n", "userd.conf:3: ");
    then_is_refused("workers = 2;\ndatabase = {\n  conections = 3;\n};\n", "database.connections");
    then_is_refused("wokers = 2;\n", "workers");
}

Test(check, names_the_line_and_the_bounds_of_a_bad_value)
{
    then_is_refused("\n\nworkers = -1;\n", "userd.conf:3: ");
    then_is_refused("workers = \"two\";\n", "userd.conf:1: ");
    then_is_refused("log = {\n  level = \"loud\"; };\n", "\"debug\"");
    then_is_refused("listeners = ( { name = \"gateway\"; address = \"nonsense\"; services = [ "
                    "\"user.User\" ]; } );\n",
        "userd.conf:1: ");
    then_is_refused("listeners = ( { name = \"gateway\"; address = \"[::]:1\"; services = [ "
                    "\"user.Usr\" ]; } );\n",
        "user.User");
}

Test(check, says_every_complaint_not_only_the_first)
{
    test_file_write(config_path, "workers = -1;\nwokers = 2;\n");
    char *output = NULL;
    int status = tell("check", NULL, &output);
    cr_assert_eq(status, EXIT_CONFIG);
    cr_assert(strstr(output, ":1: ") != NULL && strstr(output, ":2: ") != NULL, "%s", output);
    free(output);
}

Test(check, refuses_a_missing_file)
{
    char *output = NULL;
    int status = tell("check", NULL, &output);
    cr_assert(status == EXIT_CONFIG, "ended with %d: %s", status, output);
    cr_assert(strstr(output, "userd.conf") != NULL, "%s", output);
    free(output);
}

Test(check, lets_the_environment_win_and_shows_no_password)
{
    static const char *const environment[] = {
        "DB_URL=postgresql+asyncpg://postgres:hidden@postgres_user:5432/user_db",
        "KAFKA_BOOTSTRAP_SERVERS=kafka:9092",
        NULL,
    };
    test_file_write(config_path, listeners);
    char *output = NULL;
    int status = tell("check", environment, &output);
    cr_assert(status == 0, "ended with %d: %s", status, output);
    cr_assert(strstr(output, "kafka:9092") != NULL, "%s", output);
    cr_assert(strstr(output, "hidden") == NULL, "the password is shown: %s", output);
    free(output);
}

Test(check, refuses_an_environment_that_makes_no_sense)
{
    static const char *const environment[] = {"DB_URL=mysql://root@db/x", NULL};
    test_file_write(config_path, listeners);
    char *output = NULL;
    int status = tell("check", environment, &output);
    cr_assert(status == EXIT_CONFIG, "ended with %d: %s", status, output);
    cr_assert(strstr(output, "DB_URL") != NULL, "%s", output);
    free(output);
}

Test(check, refuses_a_property_of_kafka_that_a_promise_stands_on)
{
    then_is_refused("kafka = {\n  options = {\n    acks = 1;\n  };\n};\n", "userd.conf:3: ");
    then_is_refused("kafka = { options = { enable_auto_commit = true; }; };\n",
        "kafka.options.enable_auto_commit: is not to be set: PostgreSQL holds the position");
}

Test(check, says_the_properties_of_kafka_back_but_no_secret)
{
    char text[512];
    (void)snprintf(text, sizeof(text),
        "%skafka = { options = { security_protocol = \"SASL_SSL\"; sasl_password = \"hidden\"; "
        "sasl_mechanism = \"PLAIN\"; sasl_username = \"userd\"; }; };\n",
        listeners);
    test_file_write(config_path, text);
    char *output = NULL;
    int status = tell("check", NULL, &output);
    cr_assert(status == 0, "ended with %d: %s", status, output);
    cr_assert(strstr(output, "security_protocol = \"SASL_SSL\";") != NULL, "%s", output);
    cr_assert(strstr(output, "sasl_password = \"***\";") != NULL, "%s", output);
    cr_assert(strstr(output, "hidden") == NULL, "the password is shown: %s", output);
    free(output);
}

Test(check, names_the_line_and_the_nearest_name_of_an_unknown_property_of_kafka)
{
    then_is_refused("kafka = {\n  options = {\n    securty_protocol = \"SSL\";\n  };\n};\n",
        "userd.conf:3: kafka.options.securty_protocol: librdkafka ");
    then_is_refused("kafka = { options = { securty_protocol = \"SSL\"; }; };\n",
        "has no such property, did you mean security_protocol?");
}

Test(check, names_the_line_of_a_value_that_librdkafka_does_not_take_and_what_it_would)
{
    static const char text[] = "kafka = {\n  options = {\n    socket_timeout_ms = 1;\n"
                               "    compression_codec = \"zip\";\n  };\n};\n";
    then_is_refused(text, "userd.conf:3: kafka.options.socket_timeout_ms: ");
    then_is_refused(text, "userd.conf:4: kafka.options.compression_codec: ");
    then_is_refused(text, "expected none, gzip, snappy, lz4, zstd");
}

Test(check, names_the_line_of_a_file_that_librdkafka_does_not_find)
{
    then_is_refused("kafka = { options = {\n  security_protocol = \"SSL\";\n"
                    "  ssl_ca_location = \"/nowhere/ca.pem\";\n}; };\n",
        "userd.conf:3: kafka.options.ssl_ca_location: cannot read /nowhere/ca.pem: No such file");
}

/* A service manager starts it again, and it finds what another program has written meanwhile. */
Test(check, tells_a_secret_that_is_not_there_yet_from_a_mistake)
{
    then_ends_with(EXIT_ABSENT,
        "kafka = { options = {\n  sasl_password_file = \"/nowhere/password\";\n}; };\n",
        "userd.conf:2: kafka.options.sasl_password_file: cannot read /nowhere/password");
    then_ends_with(EXIT_ABSENT,
        "database = { url = \"postgresql://u@h/d\";\n  password_file = \"/nowhere/password\"; };\n",
        "userd.conf:2: database.password_file: cannot read /nowhere/password");
    then_ends_with(EXIT_CONFIG,
        "workers = -1;\ndatabase = { url = \"postgresql://u@h/d\";\n"
        "  password_file = \"/nowhere/password\"; };\n",
        "userd.conf:3: database.password_file: cannot read /nowhere/password");
    then_ends_with(EXIT_CONFIG,
        "database = { url = \"postgresql://u@h/d\";\n  password_file = \"/etc\"; };\n",
        "userd.conf:2: database.password_file: cannot read /etc");
}

Test(check, shows_no_secret_that_librdkafka_does_not_take)
{
    static const char text[] = "kafka = { options = {\n  security_protocol = \"SSL\";\n"
                               "  ssl_key_pem = \"hidden\";\n}; };\n";
    then_is_refused(text, "userd.conf:3: kafka.options.ssl_key_pem: ");
    char *output = NULL;
    (void)tell("check", NULL, &output);
    cr_assert(strstr(output, "hidden") == NULL, "the key is shown: %s", output);
    free(output);
}

/* ---- a file that was named ---- */

/* No command takes another configuration, or the service of another, for the one that was named. */
Test(check, no_command_goes_on_without_the_file_that_was_named)
{
    static const char *const commands[][2] = {{"check"}, {"run"}, {"status"}, {"status", "--json"},
        {"top"}, {"metrics"}, {"reload"}, {"upgrade"}, {"stop"}, {"migrate", "status"},
        {"migrate", "up"}, {"dead-letters", "list"}};
    static const char *const broken[] = {NULL, "run_dir = ;\n", "@include \"/etc\"\n"};
    for (size_t i = 0; i < ARRAY_LENGTH(broken); i++) {
        if (broken[i] != NULL)
            test_file_write(config_path, broken[i]);
        for (size_t j = 0; j < ARRAY_LENGTH(commands); j++) {
            const char *const argv[] = {
                TEST_USERD, commands[j][0], "-c", config_path, commands[j][1], NULL};
            char *output = NULL;
            int status = test_process_run(argv, NULL, directory, &output);
            cr_assert(status == EXIT_CONFIG, "userd %s ended with %d: %s", commands[j][0], status,
                output);
            cr_assert(strstr(output, "userd.conf") != NULL, "%s", output);
            cr_assert(strstr(output, "not running") == NULL, "%s", output);
            free(output);
        }
    }
}

Test(check, a_file_and_a_run_dir_are_not_named_at_once)
{
    test_file_write(config_path, listeners);
    const char *const argv[] = {
        TEST_USERD, "status", "-c", config_path, "--run-dir", directory, NULL};
    char *output = NULL;
    int status = test_process_run(argv, NULL, directory, &output);
    cr_assert(status == EXIT_USAGE, "ended with %d: %s", status, output);
    free(output);
}

Test(check, refuses_an_included_directory_and_what_is_too_large)
{
    then_is_refused("@include \"/etc\"\n", "userd.conf:1: the included /etc is a directory");
    const char *const large = "run_dir = \"/";
    size_t length = 20000000;
    char *text = malloc(length + 1);
    cr_assert(text != NULL);
    memset(text, 'a', length);
    memcpy(text, large, strlen(large));
    memcpy(text + length - 2, "\";", 3);
    int64_t start_ms = test_now_ms();
    then_is_refused(text, "userd.conf: is too large, expected at most 256 KiB");
    /* it took libconfig minutes */
    cr_assert_lt(test_now_ms() - start_ms, TEST_TIMEOUT_MS);
    free(text);
}

Test(check, refuses_a_number_that_only_fits_when_it_is_cut_off)
{
    then_is_refused("workers = 4294967298;\n",
        "userd.conf:1: workers: 4294967298 is out of bounds, expected 0 to 64");
}

/* ---- what no service could run with ---- */

Test(check, refuses_what_cannot_work)
{
    then_is_refused("kafka = { bootstrap_servers = \"a b c\"; };\n",
        "userd.conf:1: kafka.bootstrap_servers: \"a b c\" is no address of a broker");
    then_is_refused("kafka = { bootstrap_servers = \"kafka:99999\"; };\n",
        "userd.conf:1: kafka.bootstrap_servers: \"kafka:99999\" is no address of a broker");
    then_is_refused("kafka = { dead_letter_topic = \"registration\"; };\n",
        "userd.conf:1: kafka.dead_letter_topic: is the topic of kafka.registration_topic too");
    then_is_refused("kafka = { delete_topic = \"a/b\"; };\n",
        "userd.conf:1: kafka.delete_topic: \"a/b\" is no name of a topic");
    then_is_refused(
        "listeners = (\n"
        "  { name = \"a\"; address = \"127.0.0.1:50053\"; services = [ \"user.User\" ]; },\n"
        "  { name = \"b\"; address = \"[::]:50053\"; services = [ \"user.User\" ]; } );\n",
        "userd.conf:3: listeners: address \"[::]:50053\" of \"b\" is in use by \"a\"");
    then_is_refused("database = { url = \"postgresql://u:hidden@h/d?bogus=1\"; };\n",
        "userd.conf:1: database.url: has a parameter \"bogus\" that is unknown");
}

/* Whatever is in it, and whether it is taken or refused. */
Test(check, shows_no_password_of_any_url)
{
    static const char *const urls[] = {"postgresql://u:hid?den@h/d", "postgresql://u:hid#den@h/d",
        "postgresql://u:hid/den@h/d", "postgresql://u:hid@den@h/d", "postgresql://u:hid%den@h/d",
        "postgresql://u:hidden@h:99999/d", "postgresql://u:hidden@[::1/d",
        "postgresql://u:hidden@h/d?bogus=1", "postgresql://u@h/d?password=hidden",
        "postgresql://u@h/d?sslpassword=hidden", "host=h password=hidden",
        "host=h password = hidden", "host=h password=x hidden", "mysql://u:hidden@h/d", "hidden"};
    static const char *const commands[] = {"check", "run"};
    test_file_write(config_path, "run_dir = \"/proc/nowhere\";\n");
    for (size_t i = 0; i < ARRAY_LENGTH(urls); i++)
        for (size_t j = 0; j < ARRAY_LENGTH(commands); j++) {
            char variable[128];
            (void)snprintf(variable, sizeof(variable), "DB_URL=%s", urls[i]);
            const char *const environment[] = {variable, NULL};
            char *output = NULL;
            (void)tell(commands[j], environment, &output);
            cr_assert(strlen(output) > 0);
            cr_expect(strstr(output, "hid") == NULL && strstr(output, "den@") == NULL,
                "the password of %s is shown: %s", urls[i], output);
            free(output);
        }
}

/* What only libpq knows of its parameters is found before a worker has to live with it. */
Test(check, refuses_parameters_that_libpq_does_not_take)
{
    then_is_refused("database = { url = \"postgresql://u:hidden@h/d?sslmode=bogus\"; };\n",
        "userd.conf:1: database.url: invalid sslmode value: \"bogus\"");
    then_is_refused("database = { url = \"host=h port=99999\"; };\n",
        "userd.conf:1: database.url: invalid port number: \"99999\"");
    then_is_refused("database = { url = \"host=a,b port=1,2,3\"; };\n",
        "userd.conf:1: database.url: could not match 3 port numbers to 2 hosts");
}

/* ---- options and help ---- */

static int when_told(const char *const *words, char **ret_output)
{
    const char *argv[8] = {TEST_USERD};
    for (size_t i = 0; words[i] != NULL && i + 2 < ARRAY_LENGTH(argv); i++)
        argv[i + 1] = words[i];
    return test_process_run(argv, NULL, directory, ret_output);
}

Test(check, every_command_explains_itself)
{
    static const char *const commands[] = {"run", "status", "ready", "top", "metrics", "reload",
        "upgrade", "stop", "check", "migrate", "dead-letters", "handover-check", "version", "help"};
    for (size_t i = 0; i < ARRAY_LENGTH(commands); i++) {
        char usage[64];
        (void)snprintf(usage, sizeof(usage), "usage: userd %s", commands[i]);
        const char *const forms[][3] = {
            {commands[i], "--help"}, {"help", commands[i]}, {commands[i], "--nonsense", "-h"}};
        for (size_t j = 0; j < ARRAY_LENGTH(forms); j++) {
            const char *const words[] = {forms[j][0], forms[j][1], forms[j][2], NULL};
            char *output = NULL;
            cr_expect_eq(
                when_told(words, &output), 0, "%s %s: %s", forms[j][0], forms[j][1], output);
            cr_expect_eq(strncmp(output, usage, strlen(usage)), 0, "%s", output);
            free(output);
        }
    }
    const char *const unknown[] = {"help", "chekc", NULL};
    char *output = NULL;
    cr_expect_eq(when_told(unknown, &output), EXIT_USAGE);
    cr_expect(strstr(output, "did you mean check?") != NULL, "%s", output);
    free(output);
}

Test(check, every_program_says_its_version)
{
    static const char *const programs[] = {
        TEST_USERD, TEST_USERD_WORKER, TEST_USERD_EVENTD, TEST_USERD_METRICS};
    static const char *const words[] = {"--version", "--help"};
    for (size_t i = 0; i < ARRAY_LENGTH(programs); i++)
        for (size_t j = 0; j < ARRAY_LENGTH(words); j++) {
            const char *const argv[] = {programs[i], words[j], NULL};
            char *output = NULL;
            cr_expect_eq(test_process_run(argv, NULL, directory, &output), 0, "%s", output);
            cr_expect(strstr(output, "userd") != NULL, "%s", output);
            free(output);
        }
}

Test(check, no_option_is_taken_and_ignored)
{
    static const char *const words[][3] = {{"run", "--json"}, {"check", "--all"},
        {"migrate", "status", "--connect"}, {"stop", "--migrate"}, {"status", "--wait=3"},
        {"ready", "--wait", "soon"}, {"reload", "--env-file=x"}};
    for (size_t i = 0; i < ARRAY_LENGTH(words); i++) {
        const char *const argv[] = {words[i][0], words[i][1], words[i][2], NULL};
        char *output = NULL;
        cr_expect_eq(
            when_told(argv, &output), EXIT_USAGE, "%s %s: %s", words[i][0], words[i][1], output);
        free(output);
    }
}

Test(check, reads_variables_from_a_file_that_is_named)
{
    char env_path[64];
    (void)snprintf(env_path, sizeof(env_path), "%s/.env", directory);
    test_file_write(config_path, listeners);
    test_file_write(env_path, "DB_HOST=db\nDB_URL=\"postgresql+asyncpg://u:hidden@${DB_HOST}/d\"\n"
                              "export KAFKA_URL=kafka:9092 # ours\n");
    const char *const with[] = {
        TEST_USERD, "check", "-c", config_path, "--env-file", env_path, NULL};
    const char *const without[] = {TEST_USERD, "check", "-c", config_path, NULL};
    static const char *const none[] = {"DB_URL", "KAFKA_URL", "KAFKA_BOOTSTRAP_SERVERS", NULL};
    char *output = NULL;
    cr_assert_eq(test_process_run(with, none, directory, &output), 0, "%s", output);
    cr_expect(strstr(output, "postgresql://u:***@db/d") != NULL, "%s", output);
    cr_expect(strstr(output, "kafka:9092") != NULL, "%s", output);
    cr_expect(strstr(output, "hidden") == NULL, "%s", output);
    free(output);
    /* the one in the working directory is read when it is named, and not by itself */
    cr_assert_eq(test_process_run(without, none, directory, &output), 0, "%s", output);
    cr_expect(strstr(output, "kafka:9092") == NULL, "%s", output);
    free(output);
    test_file_write(env_path, "DB_URL='hidden\n");
    cr_assert_eq(test_process_run(with, none, directory, &output), EXIT_CONFIG, "%s", output);
    cr_expect(strstr(output, ".env:1: a value begins with a quote") != NULL, "%s", output);
    cr_expect(strstr(output, "hidden") == NULL, "%s", output);
    free(output);
    (void)unlink(env_path);
}

Test(check, run_names_the_broker_that_nobody_has_named)
{
    static const char *const none[] = {"DB_URL", "KAFKA_URL", "KAFKA_BOOTSTRAP_SERVERS", NULL};
    static const char *const some[] = {"DB_URL", "KAFKA_URL=kafka:9092", NULL};
    test_file_write(config_path, "run_dir = \"/proc/nowhere\";\n");
    char *output = NULL;
    (void)tell("run", none, &output);
    cr_expect(strstr(output,
                  "no broker is named, the default is used servers=\"127.0.0.1:9092\"") != NULL,
        "%s", output);
    free(output);
    (void)tell("run", some, &output);
    cr_expect(strstr(output, "no broker is named") == NULL, "%s", output);
    free(output);
}

/* ---- what reaches a terminal ---- */

Test(check, no_escape_sequence_reaches_a_terminal)
{
    static const char *const texts[] = {"kafka = { client_id = \"a\\x1b[31m\\xc2\\x9b31m\"; };\n",
        "run_dir = \"a\\x1b[31m\\xc2\\x9b31m\";\n",
        "kafka = { delete_topic = \"a\\x1b[31m\\xc2\\x9b31m\"; };\n"};
    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
        test_file_write(config_path, texts[i]);
        char *output = NULL;
        (void)tell("check", NULL, &output);
        cr_expect(strstr(output, "\\x1b[31m\\xc2\\x9b") != NULL, "%s", output);
        cr_expect(
            strchr(output, '\x1b') == NULL && strstr(output, "\xc2\x9b") == NULL, "%s", output);
        free(output);
    }
}
