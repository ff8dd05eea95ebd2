#include "master/address_limit.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "common/address_key.h"
#include "common/file_descriptor.h"
#include "common/keyed_hash.h"
#include "common/log.h"
#include "master/socket_probe.h"

#define NONE UINT32_MAX

/* One client address with at least one note, in the chain of its bucket. */
struct address_entry {
    uint64_t key;
    uint32_t count;
    uint32_t next;  /* in the bucket, or in the free list */
    uint32_t first; /* of its notes */
    int64_t checked_at_us;
};

/* One connection that was living when it was looked at last. */
struct note {
    uint32_t entry; /* NONE: free */
    uint32_t slot;
    uint32_t previous; /* of the same address */
    uint32_t next;     /* of the same address, or in the free list */
    struct socket_identity identity;
};

struct address_limit {
    int probe_fd; /* owned; -1: the kernel does not answer */
    struct keyed_hash hash;
    uint32_t capacity;
    uint32_t bucket_mask;
    uint32_t *buckets;             /* owned */
    struct address_entry *entries; /* owned */
    struct note *notes;            /* owned */
    uint32_t free_entry;
    uint32_t free_note;
    int64_t all_checked_at_us;
};

static uint32_t *bucket_of(const struct address_limit *limit, uint64_t key)
{
    return &limit->buckets[(uint32_t)keyed_hash_of(&limit->hash, key) & limit->bucket_mask];
}

static uint32_t find_entry(const struct address_limit *limit, uint64_t key)
{
    uint32_t index = *bucket_of(limit, key);
    while (index != NONE && limit->entries[index].key != key)
        index = limit->entries[index].next;
    return index;
}

/* There are as many entries as notes, so a free note means that there is a free entry. */
static uint32_t find_or_add_entry(struct address_limit *limit, uint64_t key)
{
    uint32_t index = find_entry(limit, key);
    if (index != NONE)
        return index;
    uint32_t *bucket = bucket_of(limit, key);
    index = limit->free_entry;
    limit->free_entry = limit->entries[index].next;
    limit->entries[index] = (struct address_entry){.key = key,
        .next = *bucket,
        .first = NONE,
        .checked_at_us = -ADDRESS_LIMIT_CHECK_INTERVAL_US};
    *bucket = index;
    return index;
}

static void remove_entry(struct address_limit *limit, uint32_t index)
{
    uint32_t *link = bucket_of(limit, limit->entries[index].key);
    while (*link != index)
        link = &limit->entries[*link].next;
    *link = limit->entries[index].next;
    limit->entries[index].next = limit->free_entry;
    limit->free_entry = index;
}

static void link_note(struct address_limit *limit, uint32_t index, uint32_t entry_index)
{
    struct address_entry *entry = &limit->entries[entry_index];
    struct note *note = &limit->notes[index];
    note->entry = entry_index;
    note->previous = NONE;
    note->next = entry->first;
    if (entry->first != NONE)
        limit->notes[entry->first].previous = index;
    entry->first = index;
    entry->count++;
}

static void strike_out(struct address_limit *limit, uint32_t index)
{
    struct note *note = &limit->notes[index];
    struct address_entry *entry = &limit->entries[note->entry];
    if (note->previous != NONE)
        limit->notes[note->previous].next = note->next;
    else
        entry->first = note->next;
    if (note->next != NONE)
        limit->notes[note->next].previous = note->previous;
    if (--entry->count == 0)
        remove_entry(limit, note->entry);
    note->entry = NONE;
    note->next = limit->free_note;
    limit->free_note = index;
}

static bool is_same(const struct socket_identity *left, const struct socket_identity *right)
{
    return memcmp(left->id.idiag_cookie, right->id.idiag_cookie, sizeof(left->id.idiag_cookie)) ==
           0;
}

/* What the kernel does not know any more has ended; when it cannot say, the note stays. */
static void check_note(struct address_limit *limit, uint32_t index)
{
    if (socket_probe_is_held(limit->probe_fd, &limit->notes[index].identity) == 0)
        strike_out(limit, index);
}

static void check_entry(struct address_limit *limit, uint32_t entry_index, int64_t now_us)
{
    limit->entries[entry_index].checked_at_us = now_us;
    uint32_t index = limit->entries[entry_index].first;
    while (index != NONE) {
        uint32_t next = limit->notes[index].next;
        check_note(limit, index);
        index = next;
    }
}

static void check_all(struct address_limit *limit, int64_t now_us)
{
    if (now_us - limit->all_checked_at_us < ADDRESS_LIMIT_CHECK_INTERVAL_US)
        return;
    limit->all_checked_at_us = now_us;
    for (uint32_t i = 0; i < limit->capacity; i++)
        if (limit->notes[i].entry != NONE)
            check_note(limit, i);
}

static int make_buckets(struct address_limit *limit, size_t capacity)
{
    uint32_t count = 1;
    while (count < capacity)
        count *= 2;
    limit->buckets = malloc(count * sizeof(*limit->buckets));
    if (limit->buckets == NULL)
        return -ENOMEM;
    limit->bucket_mask = count - 1;
    for (uint32_t i = 0; i < count; i++)
        limit->buckets[i] = NONE;
    return 0;
}

int address_limit_reserve(struct address_limit *limit, size_t capacity)
{
    if (capacity <= limit->capacity)
        return 0;
    if (capacity >= NONE)
        return -EINVAL;
    struct address_entry *entries = reallocarray(limit->entries, capacity, sizeof(*limit->entries));
    if (entries == NULL)
        return -ENOMEM;
    limit->entries = entries;
    struct note *notes = reallocarray(limit->notes, capacity, sizeof(*limit->notes));
    if (notes == NULL)
        return -ENOMEM;
    limit->notes = notes;
    for (uint32_t i = limit->capacity; i < (uint32_t)capacity; i++) {
        entries[i] = (struct address_entry){.next = limit->free_entry};
        limit->free_entry = i;
        notes[i] = (struct note){.entry = NONE, .next = limit->free_note};
        limit->free_note = i;
    }
    limit->capacity = (uint32_t)capacity;
    return 0;
}

/* A kernel without sock_diag is no reason not to serve. */
static int open_probe(struct address_limit *limit)
{
    if (!keyed_hash_init(&limit->hash))
        return -EIO;
    int result = socket_probe_open(&limit->probe_fd);
    if (result < 0)
        log_warn("limits.connections_per_address is not kept reason=\"sock_diag: %s\"",
            strerror(-result));
    return 0;
}

int address_limit_new(size_t capacity, struct address_limit **ret_limit)
{
    struct address_limit *limit = calloc(1, sizeof(*limit));
    if (limit == NULL)
        return -ENOMEM;
    limit->probe_fd = -1;
    limit->free_entry = NONE;
    limit->free_note = NONE;
    limit->all_checked_at_us = -ADDRESS_LIMIT_CHECK_INTERVAL_US;
    int result = make_buckets(limit, capacity);
    if (result == 0)
        result = address_limit_reserve(limit, capacity);
    if (result == 0)
        result = open_probe(limit);
    if (result < 0) {
        (void)address_limit_free(limit);
        return result;
    }
    *ret_limit = limit;
    return 0;
}

struct address_limit *address_limit_free(struct address_limit *limit)
{
    if (limit == NULL)
        return NULL;
    fd_close(&limit->probe_fd);
    free(limit->buckets);
    free(limit->entries);
    free(limit->notes);
    free(limit);
    return NULL;
}

unsigned int address_limit_count(const struct address_limit *limit, const struct sockaddr *address)
{
    uint64_t key = 0;
    if (!address_key_make(address, &key))
        return 0;
    uint32_t index = find_entry(limit, key);
    return index == NONE ? 0 : limit->entries[index].count;
}

bool address_limit_allows(struct address_limit *limit, const struct sockaddr *address,
    unsigned int maximum, int64_t now_us)
{
    if (address_limit_count(limit, address) < maximum)
        return true;
    uint64_t key = 0;
    if (!address_key_make(address, &key))
        return true;
    uint32_t index = find_entry(limit, key);
    if (index == NONE)
        return false;
    if (now_us - limit->entries[index].checked_at_us < ADDRESS_LIMIT_CHECK_INTERVAL_US)
        return false;
    check_entry(limit, index, now_us);
    return address_limit_count(limit, address) < maximum;
}

int address_limit_add(struct address_limit *limit, int fd, const struct sockaddr *address,
    uint32_t slot, int64_t now_us)
{
    uint64_t key = 0;
    if (limit->probe_fd < 0 || !address_key_make(address, &key))
        return 0;
    struct socket_identity identity;
    int result = socket_probe_identify(fd, &identity);
    if (result < 0)
        return result == -ENOTCONN ? 0 : result; /* it has ended already */
    if (limit->free_note == NONE)
        check_all(limit, now_us);
    uint32_t index = limit->free_note;
    if (index == NONE)
        return -ENOSPC;
    limit->free_note = limit->notes[index].next;
    limit->notes[index] = (struct note){.slot = slot, .identity = identity};
    link_note(limit, index, find_or_add_entry(limit, key));
    return 0;
}

void address_limit_remove(struct address_limit *limit, int fd, const struct sockaddr *address)
{
    uint64_t key = 0;
    struct socket_identity identity;
    if (!address_key_make(address, &key) || socket_probe_identify(fd, &identity) < 0)
        return; /* when it has ended, the next look at the kernel's books strikes it out */
    uint32_t entry = find_entry(limit, key);
    uint32_t index = entry == NONE ? NONE : limit->entries[entry].first; /* the newest */
    while (index != NONE && !is_same(&limit->notes[index].identity, &identity))
        index = limit->notes[index].next;
    if (index != NONE)
        strike_out(limit, index);
}

void address_limit_forget_slot(struct address_limit *limit, uint32_t slot)
{
    for (uint32_t i = 0; i < limit->capacity; i++)
        if (limit->notes[i].entry != NONE && limit->notes[i].slot == slot)
            strike_out(limit, i);
}
