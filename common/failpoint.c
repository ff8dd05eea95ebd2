#include "common/failpoint.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/attributes.h"
#include "common/file_descriptor.h"
#include "common/log.h"

_Static_assert(sizeof(struct failpoint_slot) == 64, "tests/fault/failpoints.py writes such slots");

static struct failpoint_slot *map_slots(void)
{
    const char *path = getenv(FAILPOINT_VARIABLE);
    if (path == NULL)
        return NULL;
    size_t size = FAILPOINT_SLOTS * sizeof(struct failpoint_slot);
    int fd CLEANUP(fd_close) = open(path, O_RDWR | O_CLOEXEC);
    void *map = fd < 0 ? MAP_FAILED : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        log_error("failpoints cannot be mapped file=%s", path);
        return NULL;
    }
    return map;
}

static struct failpoint_slot *find_slot(struct failpoint_slot *slots, const char *name)
{
    for (size_t i = 0; i < FAILPOINT_SLOTS && slots[i].name[0] != '\0'; i++)
        if (strncmp(slots[i].name, name, FAILPOINT_NAME_SIZE) == 0)
            return &slots[i];
    return NULL;
}

/* True for the one passage, of all processes, that brings the countdown to zero. */
static bool is_due(struct failpoint_slot *slot)
{
    int32_t left = atomic_load(&slot->countdown);
    while (left > 0) {
        if (atomic_compare_exchange_weak(&slot->countdown, &left, left - 1))
            return left == 1;
    }
    return false;
}

void failpoint_pass(const char *name)
{
    /* The only state of a test build; every other build has none of this. */
    static struct failpoint_slot *slots;
    static bool is_mapped;
    if (!is_mapped) {
        slots = map_slots();
        is_mapped = true;
    }
    struct failpoint_slot *slot = slots == NULL ? NULL : find_slot(slots, name);
    if (slot == NULL)
        return;
    atomic_fetch_add(&slot->passages, 1);
    if (!is_due(slot))
        return;
    atomic_store(&slot->pid, (uint32_t)getpid());
    (void)raise((int)atomic_load(&slot->signal));
}
