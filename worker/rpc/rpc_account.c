#include "worker/rpc/rpc_account.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "common/address_key.h"
#include "common/file_descriptor.h"
#include "common/log.h"
#include "common/monotonic_clock.h"

/* What an address may have taken back at once, whatever it has done before: a gateway that ends
 * takes back all that its connections have under way. */
#define CANCEL_BURST_SECONDS 2
/* A connection has no small part in what its address takes back when it has at least half of what
 * each of them has on average. */
#define PART_OF_AVERAGE 2
/* While an address is banned its connections are reset for this part of the burst, together. */
#define BURST_FOR_BANNED 8
/* A budget that was not touched for so long is even again. */
#define EVEN_AFTER_US (UINT64_C(10) * MONOTONIC_CLOCK_US_PER_S)

/* ---- offences ---- */

static int on_wake(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct rpc_account_set *set = userdata;
    struct rpc_account_offence offences[RPC_ACCOUNT_OFFENCES];
    eventfd_t value = 0;
    (void)source;
    (void)revents;
    (void)eventfd_read(fd, &value);
    (void)pthread_mutex_lock(&set->lock);
    size_t count = set->offence_count;
    memcpy(offences, set->offences, count * sizeof(*offences));
    set->offence_count = 0;
    (void)pthread_mutex_unlock(&set->lock);
    for (size_t i = 0; i < count; i++)
        set->on_offence(offences[i].key, offences[i].reason, set->userdata);
    return 0;
}

/* With the lock held. One of an address is enough; when there is no room, others are reported
 * later: who offends does it again. */
static bool add_offence(struct rpc_account_set *set, uint64_t key, const char *reason)
{
    for (size_t i = 0; i < set->offence_count; i++)
        if (set->offences[i].key == key)
            return false;
    if (set->offence_count == RPC_ACCOUNT_OFFENCES)
        return false;
    set->offences[set->offence_count++] =
        (struct rpc_account_offence){.key = key, .reason = reason};
    return true;
}

/* False: by no limit on addresses. */
static bool find_key(const struct rpc_account_set *set, int fd, uint64_t *ret_key)
{
    struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
    socklen_t length = sizeof(address);
    const struct sockaddr *general = (const void *)&address;
    return getpeername(fd, (struct sockaddr *)(void *)&address, &length) == 0 &&
           address_key_make(general, ret_key) && !address_list_contains(&set->exempt, general);
}

static void report(struct rpc_account_set *set, uint64_t key, const char *reason)
{
    (void)pthread_mutex_lock(&set->lock);
    bool is_new = add_offence(set, key, reason);
    (void)pthread_mutex_unlock(&set->lock);
    if (is_new)
        (void)eventfd_write(set->wake_fd, 1);
}

void rpc_account_report(const struct rpc_account *account, const char *reason)
{
    if (account != NULL && account->is_bound)
        report(account->set, account->key, reason);
}

void rpc_account_report_descriptor(struct rpc_account_set *set, int fd, const char *reason)
{
    uint64_t key = 0;
    if (find_key(set, fd, &key))
        report(set, key, reason);
}

/* ---- the table, with the lock held ---- */

static struct rpc_account **bucket_of(struct rpc_account_set *set, uint64_t key)
{
    return &set->buckets[keyed_hash_of(&set->hash, key) % RPC_ACCOUNT_BUCKETS];
}

static struct rpc_account *find_account(struct rpc_account_set *set, uint64_t key)
{
    struct rpc_account *account = *bucket_of(set, key);
    while (account != NULL && account->key != key)
        account = account->next;
    return account;
}

static void remove_kept(struct rpc_account_set *set, struct rpc_account *account)
{
    if (account->older != NULL)
        account->older->newer = account->newer;
    else
        set->oldest_kept = account->newer;
    if (account->newer != NULL)
        account->newer->older = account->older;
    else
        set->newest_kept = account->older;
    account->older = NULL;
    account->newer = NULL;
    set->kept--;
}

static void free_account(struct rpc_account_set *set, struct rpc_account *account)
{
    struct rpc_account **place = bucket_of(set, account->key);
    while (*place != account)
        place = &(*place)->next;
    *place = account->next;
    free(account);
}

static void keep(struct rpc_account_set *set, struct rpc_account *account)
{
    account->older = set->newest_kept;
    if (set->newest_kept != NULL)
        set->newest_kept->newer = account;
    else
        set->oldest_kept = account;
    set->newest_kept = account;
    set->kept++;
    if (set->kept <= RPC_ACCOUNT_KEPT_MAX)
        return;
    struct rpc_account *oldest = set->oldest_kept;
    remove_kept(set, oldest);
    free_account(set, oldest);
}

/* Nothing would be different without it. */
static bool is_even(const struct rpc_account *account, uint64_t now_us)
{
    uint64_t used_at_us = atomic_load_explicit(&account->used_at_us, memory_order_relaxed);
    uint64_t banned_until_us =
        atomic_load_explicit(&account->banned_until_us, memory_order_relaxed);
    return banned_until_us <= now_us && (used_at_us == 0 || now_us - used_at_us > EVEN_AFTER_US);
}

static struct rpc_account *take_account(struct rpc_account_set *set, uint64_t key)
{
    struct rpc_account *account = find_account(set, key);
    if (account != NULL) {
        if (account->references == 0)
            remove_kept(set, account);
        account->references++;
        return account;
    }
    account = calloc(1, sizeof(*account));
    if (account == NULL)
        return NULL;
    struct rpc_account **bucket = bucket_of(set, key);
    account->set = set;
    account->key = key;
    account->is_bound = true;
    account->references = 1;
    account->next = *bucket;
    *bucket = account;
    return account;
}

/* ---- connections ---- */

static struct rpc_account *make_unbound(struct rpc_account_set *set)
{
    struct rpc_account *account = calloc(1, sizeof(*account));
    if (account != NULL)
        *account = (struct rpc_account){.set = set, .references = 1};
    return account;
}

struct rpc_account *rpc_account_open(struct rpc_account_set *set, int fd)
{
    uint64_t key = 0;
    struct rpc_account *account = NULL;
    if (find_key(set, fd, &key)) {
        (void)pthread_mutex_lock(&set->lock);
        account = take_account(set, key);
        (void)pthread_mutex_unlock(&set->lock);
    } else {
        account = make_unbound(set);
    }
    if (account == NULL)
        log_warn("connection is not counted for its address reason=memory");
    else
        atomic_fetch_add_explicit(&account->connections, 1, memory_order_relaxed);
    return account;
}

void rpc_account_close(struct rpc_account *account)
{
    if (account == NULL)
        return;
    struct rpc_account_set *set = account->set;
    atomic_fetch_sub_explicit(&account->connections, 1, memory_order_relaxed);
    if (!account->is_bound) {
        free(account);
        return;
    }
    (void)pthread_mutex_lock(&set->lock);
    assert(account->references > 0);
    if (--account->references == 0) {
        if (is_even(account, monotonic_clock_us()))
            free_account(set, account);
        else
            keep(set, account);
    }
    (void)pthread_mutex_unlock(&set->lock);
}

/* ---- judgement ---- */

static bool is_banned(const struct rpc_account *account, uint64_t now_us)
{
    return now_us < atomic_load_explicit(&account->banned_until_us, memory_order_relaxed);
}

bool rpc_account_add_cancels(struct rpc_account *account, struct rpc_recent *recent,
    uint64_t now_us, uint64_t cancelled, uint64_t useful)
{
    if (account == NULL || !account->is_bound)
        return false;
    const struct rpc_allowance_rules *rules = &account->set->rules;
    if (cancelled > 0)
        atomic_store_explicit(&account->used_at_us, now_us, memory_order_relaxed);
    bool is_exceeded =
        rpc_allowance_is_exceeded(&account->cancels, rules, now_us, cancelled, useful);
    uint64_t own = rpc_recent_add(recent, now_us, cancelled);
    uint64_t all = rpc_recent_add(&account->recent, now_us, cancelled);
    if (rules->per_second == 0 || cancelled == 0)
        return false;
    is_exceeded = is_exceeded || (is_banned(account, now_us) &&
                                     account->cancels.level > rules->burst / BURST_FOR_BANNED);
    uint64_t connections = atomic_load_explicit(&account->connections, memory_order_relaxed);
    return is_exceeded && own * connections * PART_OF_AVERAGE >= all;
}

void rpc_account_ban(struct rpc_account_set *set, uint64_t key, uint64_t until_us)
{
    (void)pthread_mutex_lock(&set->lock);
    struct rpc_account *account = find_account(set, key);
    if (account != NULL)
        atomic_store_explicit(&account->banned_until_us, until_us, memory_order_relaxed);
    (void)pthread_mutex_unlock(&set->lock);
}

/* ---- life ---- */

int rpc_account_set_init(struct rpc_account_set *set, sd_event *event,
    const struct settings *settings,
    void (*on_offence)(uint64_t key, const char *reason, void *userdata), void *userdata)
{
    char reason[ADDRESS_LIST_REASON_BYTES];
    memset((void *)set, 0, sizeof(*set));
    uint64_t per_second = (uint64_t)settings->limits.cancel_rate_per_address;
    set->rules = (struct rpc_allowance_rules){
        .per_second = per_second, .burst = per_second * CANCEL_BURST_SECONDS};
    set->on_offence = on_offence;
    set->userdata = userdata;
    set->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    (void)pthread_mutex_init(&set->lock, NULL);
    if (set->wake_fd < 0)
        return -errno;
    if (!keyed_hash_init(&set->hash))
        return -EIO;
    if (!address_list_parse(settings->limits.exempt_addresses, &set->exempt, reason)) {
        log_error("limits.exempt_addresses is wrong reason=\"%s\"", reason);
        return -EINVAL;
    }
    return sd_event_add_io(event, &set->source, set->wake_fd, EPOLLIN, on_wake, set);
}

void rpc_account_set_cleanup(struct rpc_account_set *set)
{
    if (set->on_offence == NULL)
        return;
    while (set->oldest_kept != NULL) {
        struct rpc_account *oldest = set->oldest_kept;
        remove_kept(set, oldest);
        free_account(set, oldest);
    }
    set->source = sd_event_source_disable_unref(set->source);
    fd_close(&set->wake_fd);
    (void)pthread_mutex_destroy(&set->lock);
    set->on_offence = NULL;
}
