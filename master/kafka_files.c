#include "master/kafka_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file_descriptor.h"

#define HASH_START  UINT64_C(0xcbf29ce484222325) /* FNV-1a */
#define HASH_FACTOR UINT64_C(0x100000001b3)
#define ENTRIES_MAX 4096 /* of a directory */

static uint64_t mix(uint64_t hash, const void *bytes, size_t length)
{
    const unsigned char *byte = bytes;
    for (size_t i = 0; i < length; i++)
        /* NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult): of whole objects */
        hash = (hash ^ byte[i]) * HASH_FACTOR;
    return hash;
}

/* Follows symbolic links: a secret may be replaced by another target. */
static uint64_t mix_file(uint64_t hash, int directory_fd, const char *path, struct stat *ret_status)
{
    *ret_status = (struct stat){0};
    if (fstatat(directory_fd, path, ret_status, 0) < 0) {
        int error = errno;
        return mix(hash, &error, sizeof(error));
    }
    const int64_t facts[] = {(int64_t)ret_status->st_dev, (int64_t)ret_status->st_ino,
        ret_status->st_size, ret_status->st_mtim.tv_sec, ret_status->st_mtim.tv_nsec};
    return mix(hash, facts, sizeof(facts));
}

static void close_directory(DIR **directory)
{
    if (*directory != NULL)
        (void)closedir(*directory);
}

/* In whatever order its entries come. */
static uint64_t sum_entries(const char *path)
{
    DIR *directory CLEANUP(close_directory) = opendir(path);
    uint64_t sum = 0;
    if (directory == NULL)
        return sum;
    for (int i = 0; i < ENTRIES_MAX; i++) {
        const struct dirent *entry = readdir(directory);
        if (entry == NULL)
            break;
        struct stat status;
        uint64_t hash = mix(HASH_START, entry->d_name, strlen(entry->d_name));
        sum += mix_file(hash, dirfd(directory), entry->d_name, &status);
    }
    return sum;
}

static bool is_file(const char *property)
{
    static const char *const endings[] = {".location", ".keytab"};
    size_t length = strlen(property);
    for (size_t i = 0; i < ARRAY_LENGTH(endings); i++) {
        size_t ending = strlen(endings[i]);
        if (length > ending && strcmp(property + length - ending, endings[i]) == 0)
            return true;
    }
    return false;
}

uint64_t kafka_files_fingerprint(const struct settings *settings)
{
    uint64_t hash = HASH_START;
    for (size_t i = 0; i < settings->kafka_option_count; i++) {
        const struct settings_kafka_option *option = &settings->kafka_options[i];
        if (!is_file(option->property))
            continue;
        struct stat status;
        hash = mix_file(hash, AT_FDCWD, option->value, &status);
        if (S_ISDIR(status.st_mode)) {
            uint64_t sum = sum_entries(option->value);
            hash = mix(hash, &sum, sizeof(sum));
        }
    }
    return hash != 0 ? hash : 1;
}
