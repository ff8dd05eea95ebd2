#include "worker/rpc/rpc_watch.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "common/crash_report.h"
#include "common/file_descriptor.h"
#include "common/log.h"
#include "common/monotonic_clock.h"
#include "worker/rpc/rpc_account.h"
#include "worker/rpc/rpc_guard.h"
#include "worker/rpc/rpc_idle.h"
#include "worker/rpc/rpc_memory.h"
#include "worker/rpc/rpc_open_limit.h"

#define LOOK_INTERVAL_US  ((uint64_t)10 * MONOTONIC_CLOCK_US_PER_MS)
#define LOOK_US_FOR_EACH  50 /* with many: a fortieth of a core at most */
#define SWEEP_INTERVAL_US ((uint64_t)1000 * MONOTONIC_CLOCK_US_PER_MS)
#define EVENTS            64
#define LINES_PER_SECOND  5
/* The master says that connections are short whenever it accepts one: silence for so long means
 * that they are not, or that nobody wants one. */
#define SHORTAGE_US     ((uint64_t)3000 * MONOTONIC_CLOCK_US_PER_MS)
#define TOLD_OF_A_SWEEP 1000 /* idle connections */

enum entry_state {
    ENTRY_IDLE,  /* the next byte makes it busy */
    ENTRY_BUSY,  /* is looked at */
    ENTRY_RESET, /* was cut off, and waits to be removed */
    ENTRY_GONE,  /* removed: the thread frees it, since it may have it in hand */
    ENTRY_STATES,
};

struct rpc_watch_entry {
    struct rpc_watch *watch;
    struct rpc_watch_entry *previous;
    struct rpc_watch_entry *next;
    enum entry_state state; /* which list it is in */
    int fd;                 /* the caller's */
    struct rpc_peer *peer;  /* the caller's */
    struct rpc_guard guard;
    struct rpc_recent cancels;
    struct rpc_settled wasted; /* calls that had no answer */
    struct rpc_idle idle;
    uint32_t open_units; /* as they count in the totals */
    bool is_told;        /* to go, for a request that does not come */
};

struct rpc_watch {
    struct rpc_guard_rules rules;
    struct rpc_idle_rules idle_rules;
    struct rpc_open_limits open_limits;
    struct rpc_memory memory;            /* the thread's */
    const _Atomic uint64_t *short_at_us; /* the master's; NULL: not known */
    struct scoreboard_slot *slot;
    int epoll_fd; /* owned, as the next */
    int wake_fd;  /* written when the thread is to end */
    pthread_t thread;
    bool has_thread;
    struct log_limit log_limit; /* the thread's, as the next */
    struct log_limit idle_log_limit;
    uint64_t next_look_us; /* likewise */
    uint64_t next_sweep_us;
    pthread_mutex_t lock;                          /* guards what follows and all entries */
    struct rpc_watch_entry *entries[ENTRY_STATES]; /* owned: lists */
    struct rpc_open_totals open;                   /* requests of all */
    bool is_ending;
};

/* ---- lists, with the lock held ---- */

static void insert_entry(struct rpc_watch_entry *entry, enum entry_state state)
{
    struct rpc_watch_entry **first = &entry->watch->entries[state];
    entry->state = state;
    entry->previous = NULL;
    entry->next = *first;
    if (*first != NULL)
        (*first)->previous = entry;
    *first = entry;
}

static void move_entry(struct rpc_watch_entry *entry, enum entry_state state)
{
    if (entry->previous != NULL)
        entry->previous->next = entry->next;
    else
        entry->watch->entries[entry->state] = entry->next;
    if (entry->next != NULL)
        entry->next->previous = entry->previous;
    insert_entry(entry, state);
}

/* Its next byte, or one that is there already, is an event: once. */
static void await_byte(struct rpc_watch_entry *entry)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET | EPOLLONESHOT, .data.ptr = entry};
    if (epoll_ctl(entry->watch->epoll_fd, EPOLL_CTL_MOD, entry->fd, &event) == 0)
        move_entry(entry, ENTRY_IDLE);
}

static void free_gone(struct rpc_watch *watch)
{
    while (watch->entries[ENTRY_GONE] != NULL) {
        struct rpc_watch_entry *next = watch->entries[ENTRY_GONE]->next;
        free(watch->entries[ENTRY_GONE]);
        watch->entries[ENTRY_GONE] = next;
    }
}

/* ---- the thread ---- */

static uint64_t growth(uint64_t now, uint64_t before)
{
    return now > before ? now - before : 0;
}

#define ADDRESS_CANCELS "cancels_of_address"

static struct rpc_open_totals *open_of_address(const struct rpc_watch_entry *entry)
{
    struct rpc_account *account = entry->peer->account;
    return account != NULL && account->is_bound ? &account->open : NULL;
}

static void change_open(struct rpc_watch_entry *entry, uint32_t units)
{
    struct rpc_open_totals *address = open_of_address(entry);
    if (entry->open_units == units)
        return;
    rpc_open_totals_change(&entry->watch->open, entry->open_units, units);
    if (address != NULL)
        rpc_open_totals_change(address, entry->open_units, units);
    entry->open_units = units;
}

/* By our own recvmsg() (rpc_reader.c), and nobody has come round to its end yet. */
static bool is_reset_already(const struct rpc_watch_entry *entry)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof(address);
    return getpeername(entry->fd, (struct sockaddr *)(void *)&address, &length) != 0;
}

static void cut_off(struct rpc_watch_entry *entry, const char *reason)
{
    struct rpc_watch *watch = entry->watch;
    unsigned int suppressed = 0;
    change_open(entry, 0); /* or others would have to go for what is going already */
    if (is_reset_already(entry)) {
        move_entry(entry, ENTRY_RESET);
        return;
    }
    if (log_limit_allows(&watch->log_limit, LINES_PER_SECOND, &suppressed))
        log_warn("connection reset reason=%s listener=%u peer=\"%s\" suppressed=%u", reason,
            entry->peer->listener, entry->peer->name, suppressed);
    atomic_fetch_add_explicit(&watch->slot->connections_reset, 1, memory_order_relaxed);
    rpc_guard_reset_connection(entry->fd);
    move_entry(entry, ENTRY_RESET);
}

/* Calls that have ended without an answer, as far as it can be seen: some of those that the reader
 * has seen are still on their way to the rpc thread. */
static uint64_t take_wasted(struct rpc_watch_entry *entry, const struct rpc_guard_sample *sample)
{
    const struct rpc_peer *peer = entry->peer;
    uint64_t begun = atomic_load_explicit(&peer->headers, memory_order_relaxed);
    uint64_t known = atomic_load_explicit(&peer->use.served, memory_order_relaxed) +
                     sample->waiting + sample->unsent + rpc_peer_says_open(peer).units +
                     atomic_load_explicit(&peer->streams, memory_order_relaxed);
    /* Those taken back are known for certain, also where the reader sees nothing. */
    uint64_t most = begun > known ? begun - known : 0;
    return rpc_settled_grow(&entry->wasted, sample->cancelled, most);
}

/* With the other connections of its address. */
static bool cancels_too_much(struct rpc_watch_entry *entry, const struct rpc_guard_sample *sample)
{
    uint64_t cancelled = growth(sample->cancelled, entry->guard.last.cancelled);
    uint64_t finished = growth(sample->finished, entry->guard.last.finished);
    return rpc_account_add_cancels(entry->peer->account, &entry->cancels, sample->now_us,
        take_wasted(entry, sample), growth(finished, cancelled));
}

/* The client may leave with what it has under way, and is back at once on another connection. */
static void tell_late(struct rpc_watch_entry *entry)
{
    struct rpc_watch *watch = entry->watch;
    unsigned int suppressed = 0;
    /* Of an answer that is on its way a part may have left, and been acknowledged. */
    bool is_answered = rpc_peer_use_unsent(&entry->peer->use) > 0;
    if (entry->is_told || is_answered || !rpc_idle_send_goaway(entry->fd))
        return; /* the next look tries again */
    entry->is_told = true;
    atomic_fetch_add_explicit(&watch->slot->connections_open, 1, memory_order_relaxed);
    if (log_limit_allows(&watch->log_limit, LINES_PER_SECOND, &suppressed))
        log_warn("connection told to go reason=%s listener=%u peer=\"%s\" requests=%u "
                 "suppressed=%u",
            rpc_open_verdict_name(RPC_OPEN_LATE), entry->peer->listener, entry->peer->name,
            entry->open_units, suppressed);
}

/* Returns for what the connection is to be reset; NULL: nothing. */
static const char *judge_open(struct rpc_watch_entry *entry, uint64_t now_us)
{
    struct rpc_watch *watch = entry->watch;
    struct rpc_peer_open open = rpc_peer_says_open(entry->peer);
    uint32_t age_ms = (uint32_t)(now_us / MONOTONIC_CLOCK_US_PER_MS) - open.since_ms;
    change_open(entry, open.units);
    enum rpc_open_verdict verdict = rpc_open_judge(
        &watch->open_limits, open.units, age_ms, open_of_address(entry), &watch->open);
    switch (verdict) {
    case RPC_OPEN_FINE:
        return NULL;
    case RPC_OPEN_LATE:
        tell_late(entry);
        return NULL;
    case RPC_OPEN_OF_ADDRESS:
    case RPC_OPEN_OF_WORKER:
    case RPC_OPEN_TOO_LATE:
        atomic_fetch_add_explicit(&watch->slot->connections_open, 1, memory_order_relaxed);
        return rpc_open_verdict_name(verdict);
    }
    return NULL;
}

static void note_use(struct rpc_watch_entry *entry, const struct rpc_guard_sample *sample)
{
    if (sample->arrived != entry->guard.last.arrived || sample->waiting > 0 || sample->unsent > 0)
        entry->idle.used_us = sample->now_us;
}

static void look_at(struct rpc_watch_entry *entry, uint64_t memory_bytes)
{
    struct rpc_guard_sample sample = rpc_guard_look(entry->fd, entry->peer, memory_bytes);
    bool is_quiet = rpc_guard_is_quiet(&entry->guard, &sample);
    bool is_too_much = cancels_too_much(entry, &sample);
    note_use(entry, &sample);
    enum rpc_guard_verdict verdict = rpc_guard_judge(&entry->guard, &entry->watch->rules, &sample);
    const char *reason = judge_open(entry, sample.now_us);
    if (is_too_much)
        reason = ADDRESS_CANCELS;
    if (verdict != RPC_GUARD_FINE)
        reason = rpc_guard_verdict_name(verdict);
    /* Who does not read may be in trouble himself: that is no offence. */
    if (reason != NULL && verdict != RPC_GUARD_UNREAD)
        rpc_account_report(entry->peer->account, reason);
    if (reason != NULL)
        cut_off(entry, reason);
    else if (is_quiet)
        await_byte(entry);
}

/* Returns after what time to look again. */
static uint64_t look_at_busy(struct rpc_watch *watch)
{
    struct rpc_watch_entry *next = NULL;
    uint64_t interval_us = 0;
    uint64_t memory_bytes = watch->entries[ENTRY_BUSY] != NULL ? rpc_guard_memory_bytes() : 0;
    for (struct rpc_watch_entry *entry = watch->entries[ENTRY_BUSY]; entry != NULL; entry = next) {
        next = entry->next;
        look_at(entry, memory_bytes);
        interval_us += LOOK_US_FOR_EACH;
    }
    return interval_us > LOOK_INTERVAL_US ? interval_us : LOOK_INTERVAL_US;
}

static bool is_short(const struct rpc_watch *watch, uint64_t now_us)
{
    if (watch->short_at_us == NULL)
        return false;
    uint64_t short_at_us = atomic_load_explicit(watch->short_at_us, memory_order_relaxed);
    return short_at_us != 0 && now_us < short_at_us + SHORTAGE_US;
}

/* A connection that has neither calls nor anything unread. Returns whether it was told to go. */
static bool look_at_idle(struct rpc_watch_entry *entry, bool is_short_now, uint64_t now_us)
{
    struct rpc_watch *watch = entry->watch;
    unsigned int suppressed = 0;
    if (atomic_load_explicit(&entry->peer->streams, memory_order_relaxed) > 0)
        entry->idle.used_us = now_us;
    switch (rpc_idle_judge(&entry->idle, &watch->idle_rules, is_short_now, now_us)) {
    case RPC_IDLE_STAY:
        return false;
    case RPC_IDLE_TELL:
        if (!rpc_idle_send_goaway(entry->fd))
            return false; /* the next sweep tries again */
        entry->idle.told_us = now_us;
        scoreboard_add(&watch->slot->connections_idle, 1);
        if (log_limit_allows(&watch->idle_log_limit, LINES_PER_SECOND, &suppressed))
            log_info("idle connection told to go reason=%s listener=%u peer=\"%s\" idle_s=%llu "
                     "suppressed=%u",
                is_short_now ? "shortage" : "idle_timeout", entry->peer->listener,
                entry->peer->name,
                (unsigned long long)((now_us - entry->idle.used_us) / MONOTONIC_CLOCK_US_PER_S),
                suppressed);
        return true;
    case RPC_IDLE_CLOSE:
        rpc_guard_reset_connection(entry->fd);
        move_entry(entry, ENTRY_RESET);
        return false;
    }
    return false;
}

/* What has come may become calls only after the connection was found quiet: the rpc thread has its
 * own pace. */
static void sweep_idle(struct rpc_watch *watch, uint64_t now_us)
{
    struct rpc_watch_entry *next = NULL;
    bool is_short_now = is_short(watch, now_us);
    unsigned int told = 0;
    for (struct rpc_watch_entry *entry = watch->entries[ENTRY_IDLE]; entry != NULL; entry = next) {
        next = entry->next;
        const struct rpc_peer_use *use = &entry->peer->use;
        uint32_t open_units = rpc_peer_says_open(entry->peer).units;
        if (rpc_peer_use_waiting(use) + rpc_peer_use_unsent(use) > 0 || open_units > 0 ||
            entry->open_units > 0)
            move_entry(entry, ENTRY_BUSY);
        else if (told < TOLD_OF_A_SWEEP && entry->peer->number != 0)
            told += look_at_idle(entry, is_short_now, now_us) ? 1 : 0;
    }
}

static void run_round(struct rpc_watch *watch, const struct epoll_event *events, int count)
{
    uint64_t now_us = monotonic_clock_us();
    for (int i = 0; i < count; i++) {
        struct rpc_watch_entry *entry = events[i].data.ptr;
        if (entry != NULL && entry->state == ENTRY_IDLE)
            move_entry(entry, ENTRY_BUSY);
    }
    free_gone(watch);
    if (now_us >= watch->next_sweep_us) {
        watch->next_sweep_us = now_us + SWEEP_INTERVAL_US;
        sweep_idle(watch, now_us);
        rpc_memory_look(&watch->memory, rpc_guard_memory_bytes(), now_us);
    }
    if (now_us >= watch->next_look_us)
        watch->next_look_us = now_us + look_at_busy(watch);
    atomic_store_explicit(&watch->slot->open_requests, watch->open.units, memory_order_relaxed);
}

static void *run_watch(void *watch_pointer)
{
    struct rpc_watch *watch = watch_pointer;
    (void)pthread_setname_np(pthread_self(), "watch");
    bool is_ending = false;
    bool is_busy = false;
    while (!is_ending) {
        struct epoll_event events[EVENTS];
        uint64_t wait_us = is_busy ? LOOK_INTERVAL_US : SWEEP_INTERVAL_US;
        int count =
            epoll_wait(watch->epoll_fd, events, EVENTS, (int)(wait_us / MONOTONIC_CLOCK_US_PER_MS));
        (void)pthread_mutex_lock(&watch->lock);
        run_round(watch, events, count);
        is_busy = watch->entries[ENTRY_BUSY] != NULL;
        is_ending = watch->is_ending;
        (void)pthread_mutex_unlock(&watch->lock);
    }
    return NULL;
}

/* ---- for the callers ---- */

struct rpc_watch_entry *rpc_watch_add(struct rpc_watch *watch, int fd, struct rpc_peer *peer)
{
    struct rpc_watch_entry *entry = calloc(1, sizeof(*entry));
    int error = ENOMEM;
    if (entry != NULL) {
        *entry = (struct rpc_watch_entry){
            .watch = watch,
            .fd = fd,
            .peer = peer,
            .idle = {.used_us = monotonic_clock_us()},
        };
        struct epoll_event event = {.events = EPOLLIN | EPOLLET | EPOLLONESHOT, .data.ptr = entry};
        (void)pthread_mutex_lock(&watch->lock);
        error = epoll_ctl(watch->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : errno;
        if (error == 0)
            insert_entry(entry, ENTRY_IDLE);
        (void)pthread_mutex_unlock(&watch->lock);
    }
    if (error == 0)
        return entry;
    log_warn("connection is not watched listener=%u error=%d", peer->listener, error);
    free(entry);
    return NULL;
}

void rpc_watch_remove(struct rpc_watch_entry *entry)
{
    if (entry == NULL)
        return;
    struct rpc_watch *watch = entry->watch;
    (void)pthread_mutex_lock(&watch->lock);
    (void)epoll_ctl(watch->epoll_fd, EPOLL_CTL_DEL, entry->fd, NULL);
    change_open(entry, 0);
    entry->peer = NULL;
    move_entry(entry, ENTRY_GONE);
    (void)pthread_mutex_unlock(&watch->lock);
}

void rpc_watch_set_shortage(struct rpc_watch *watch, const _Atomic uint64_t *short_at_us)
{
    (void)pthread_mutex_lock(&watch->lock);
    watch->short_at_us = short_at_us;
    (void)pthread_mutex_unlock(&watch->lock);
}

struct rpc_watch *rpc_watch_free(struct rpc_watch *watch)
{
    if (watch == NULL)
        return NULL;
    if (watch->has_thread) {
        (void)pthread_mutex_lock(&watch->lock);
        watch->is_ending = true;
        (void)pthread_mutex_unlock(&watch->lock);
        (void)eventfd_write(watch->wake_fd, 1);
        (void)pthread_join(watch->thread, NULL);
    }
    free_gone(watch);
    fd_close(&watch->epoll_fd);
    fd_close(&watch->wake_fd);
    (void)pthread_mutex_destroy(&watch->lock);
    free(watch);
    return NULL;
}

static int start_watch(struct rpc_watch *watch)
{
    watch->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    watch->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN}; /* data.ptr NULL: no entry */
    if (watch->epoll_fd < 0 || watch->wake_fd < 0 ||
        epoll_ctl(watch->epoll_fd, EPOLL_CTL_ADD, watch->wake_fd, &event) != 0)
        return -errno;
    sigset_t all;
    sigset_t before;
    crash_report_fill_mask(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&watch->thread, NULL, run_watch, watch);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    watch->has_thread = error == 0;
    return -error;
}

int rpc_watch_new(
    const struct settings *settings, struct scoreboard_slot *slot, struct rpc_watch **ret_watch)
{
    struct rpc_watch *watch = calloc(1, sizeof(*watch));
    if (watch == NULL)
        return -ENOMEM;
    watch->rules = rpc_guard_rules_of(settings);
    watch->idle_rules = rpc_idle_rules_of(settings);
    watch->open_limits = rpc_open_limits_of(settings);
    watch->slot = slot;
    watch->epoll_fd = -1;
    watch->wake_fd = -1;
    (void)pthread_mutex_init(&watch->lock, NULL);
    int error = start_watch(watch);
    if (error < 0) {
        (void)rpc_watch_free(watch);
        return error;
    }
    *ret_watch = watch;
    return 0;
}
