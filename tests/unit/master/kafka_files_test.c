/* What tells that files which kafka.options name have changed. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "master/kafka_files.h"

static char directory[] = "/tmp/userd-kafka-files.XXXXXX";
static char file_path[64];
static char entry_path[96];
static struct settings settings;

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");
    cr_assert_not_null(file);
    cr_assert_geq(fputs(text, file), 0);
    cr_assert_eq(fclose(file), 0);
}

static void init(void)
{
    cr_assert_not_null(mkdtemp(directory));
    char inner[64];
    (void)snprintf(file_path, sizeof(file_path), "%s/key", directory);
    (void)snprintf(inner, sizeof(inner), "%s/certificates", directory);
    (void)snprintf(entry_path, sizeof(entry_path), "%s/one", inner);
    cr_assert_eq(mkdir(inner, 0700), 0);
    write_file(file_path, "a");
    write_file(entry_path, "a");
    cr_assert_eq(settings_init(&settings), 0);
    cr_assert_eq(
        settings_add_kafka_option(&settings, "ssl.key.location", file_path, false, NULL, 0), 0);
    cr_assert_eq(settings_add_kafka_option(&settings, "ssl.ca.location", inner, false, NULL, 0), 0);
    cr_assert_eq(
        settings_add_kafka_option(&settings, "client.id", "/etc/hostname", false, NULL, 0), 0);
}

static void fini(void)
{
    char inner[64];
    (void)snprintf(inner, sizeof(inner), "%s/certificates", directory);
    (void)unlink(file_path);
    (void)unlink(entry_path);
    (void)rmdir(inner);
    (void)rmdir(directory);
    settings_cleanup(&settings);
}

TestSuite(kafka_files, .init = init, .fini = fini);

Test(kafka_files, have_one_fingerprint_as_long_as_nothing_changes)
{
    uint64_t first = kafka_files_fingerprint(&settings);
    cr_assert_neq(first, 0);
    cr_assert_eq(kafka_files_fingerprint(&settings), first);
}

Test(kafka_files, have_another_one_for_each_change)
{
    uint64_t first = kafka_files_fingerprint(&settings);
    write_file(file_path, "ab");
    uint64_t second = kafka_files_fingerprint(&settings);
    cr_assert_neq(second, first);
    write_file(entry_path, "ab");
    uint64_t third = kafka_files_fingerprint(&settings);
    cr_assert_neq(third, second);
    cr_assert_eq(unlink(entry_path), 0);
    uint64_t fourth = kafka_files_fingerprint(&settings);
    cr_assert_neq(fourth, third);
    cr_assert_eq(unlink(file_path), 0);
    uint64_t fifth = kafka_files_fingerprint(&settings);
    cr_assert_neq(fifth, fourth);
    cr_assert_eq(kafka_files_fingerprint(&settings), fifth);
}
