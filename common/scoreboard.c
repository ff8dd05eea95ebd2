#include "common/scoreboard.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "common/file_descriptor.h"

#define MEMORY_MODE   0600
#define READ_ATTEMPTS 1000

/* NULL with errno set on failure. */
static struct scoreboard *map(int fd)
{
    void *memory = mmap(NULL, sizeof(struct scoreboard), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

int scoreboard_create(struct scoreboard **ret_scoreboard, int *ret_fd)
{
    int fd CLEANUP(fd_close) = memfd_create("userd-scoreboard", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, sizeof(struct scoreboard)) != 0)
        return -errno;
    /* who is given a read-only descriptor must not open it for writing by way of /proc */
    if (fchmod(fd, MEMORY_MODE) != 0)
        return -errno;
    /* a reader must never meet a shrunken map (SIGBUS) */
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        return -errno;
    struct scoreboard *scoreboard = map(fd);
    if (scoreboard == NULL)
        return -errno;
    scoreboard->magic = SCOREBOARD_MAGIC;
    scoreboard->version = SCOREBOARD_VERSION;
    scoreboard->slot_count = SCOREBOARD_SLOTS;
    *ret_scoreboard = scoreboard;
    *ret_fd = fd_take(&fd);
    return 0;
}

int scoreboard_open(int fd, struct scoreboard **ret_scoreboard)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return -errno;
    if (status.st_size != (off_t)sizeof(struct scoreboard))
        return -EPROTO;
    struct scoreboard *scoreboard = map(fd);
    if (scoreboard == NULL)
        return -errno;
    if (scoreboard->magic != SCOREBOARD_MAGIC || scoreboard->version != SCOREBOARD_VERSION ||
        scoreboard->slot_count != SCOREBOARD_SLOTS) {
        scoreboard_close(scoreboard);
        return -EPROTO;
    }
    *ret_scoreboard = scoreboard;
    return 0;
}

void scoreboard_close(struct scoreboard *scoreboard)
{
    if (scoreboard != NULL)
        (void)munmap(scoreboard, sizeof(*scoreboard));
}

int scoreboard_open_readonly(
    int fd, const struct scoreboard **ret_scoreboard, uint32_t *ret_version)
{
    /* the head first: another version may have another size */
    struct {
        uint64_t magic;
        uint32_t version;
        uint32_t slot_count;
    } head;
    *ret_version = 0;
    ssize_t length = pread(fd, &head, sizeof(head), 0);
    if (length < 0)
        return -errno;
    if (length != (ssize_t)sizeof(head) || head.magic != SCOREBOARD_MAGIC)
        return -EPROTO;
    *ret_version = head.version;
    if (head.version != SCOREBOARD_VERSION)
        return -EPROTONOSUPPORT;
    struct stat status;
    if (fstat(fd, &status) != 0)
        return -errno;
    if (status.st_size != (off_t)sizeof(struct scoreboard) || head.slot_count != SCOREBOARD_SLOTS)
        return -EPROTO;
    const void *memory = mmap(NULL, sizeof(struct scoreboard), PROT_READ, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        return -errno;
    *ret_scoreboard = memory;
    return 0;
}

void scoreboard_close_readonly(const struct scoreboard *scoreboard)
{
    if (scoreboard != NULL)
        (void)munmap(borrow_const(scoreboard), sizeof(*scoreboard));
}

void scoreboard_reset_slot(struct scoreboard *scoreboard, uint32_t slot)
{
    /* the writer is dead, and readers see a number or zero: no ordering is owed to anyone */
    memset(&scoreboard->slots[slot], 0, sizeof(scoreboard->slots[slot]));
    memset(&scoreboard->master[slot], 0, sizeof(scoreboard->master[slot]));
}

/* ---- absences ---- */

static uint64_t realtime_us(void)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* What is stored between the two is seen by no reader that sees an even, unchanged number. */
static void write_absence(struct scoreboard_absence *absence, uint64_t since_us, const char *reason)
{
    uint64_t words[ARRAY_LENGTH(absence->reason)] = {0};
    (void)snprintf((char *)words, sizeof(words), "%s", reason);
    uint64_t sequence = atomic_load_explicit(&absence->sequence, memory_order_relaxed);
    atomic_store_explicit(&absence->sequence, sequence + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    atomic_store_explicit(&absence->since_us, since_us, memory_order_relaxed);
    for (size_t i = 0; i < ARRAY_LENGTH(words); i++)
        atomic_store_explicit(&absence->reason[i], words[i], memory_order_relaxed);
    atomic_store_explicit(&absence->sequence, sequence + 2, memory_order_release);
}

void scoreboard_absence_set(struct scoreboard_absence *absence, const char *reason)
{
    uint64_t since_us = atomic_load_explicit(&absence->since_us, memory_order_relaxed);
    write_absence(absence, since_us != 0 ? since_us : realtime_us(), reason);
}

void scoreboard_absence_end(struct scoreboard_absence *absence)
{
    write_absence(absence, 0, "");
}

/* A writer that died on its way leaves an odd number: what is there then is read as it is. */
void scoreboard_absence_read(const struct scoreboard_absence *absence, uint64_t *ret_since_us,
    char ret_reason[SCOREBOARD_REASON_SIZE])
{
    uint64_t words[ARRAY_LENGTH(absence->reason)];
    uint64_t since_us = 0;
    for (int attempt = 0; attempt < READ_ATTEMPTS; attempt++) {
        uint64_t before = atomic_load_explicit(&absence->sequence, memory_order_acquire);
        since_us = atomic_load_explicit(&absence->since_us, memory_order_relaxed);
        for (size_t i = 0; i < ARRAY_LENGTH(words); i++)
            words[i] = atomic_load_explicit(&absence->reason[i], memory_order_relaxed);
        atomic_thread_fence(memory_order_acquire);
        if (before % 2 == 0 &&
            before == atomic_load_explicit(&absence->sequence, memory_order_relaxed))
            break;
    }
    *ret_since_us = since_us;
    memcpy(ret_reason, words, SCOREBOARD_REASON_SIZE);
    ret_reason[SCOREBOARD_REASON_SIZE - 1] = '\0';
}
