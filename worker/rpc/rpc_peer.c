#include "worker/rpc/rpc_peer.h"

#include <arpa/inet.h>
#include <assert.h>
#include <grpc/support/alloc.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/log.h"
#include "worker/rpc/rpc_account.h"

/* Smaller messages count with their calls: not worth two writes that both threads make. */
#define COUNTED_BYTES_MIN 1024

#define MEGABYTE ((size_t)1024 * 1024)

/* ---- names ---- */

/* As grpc_sockaddr_to_uri() does: an IPv4 address in IPv6's clothes is an IPv4 address, and
 * brackets are escaped as in a URI. */
static bool write_address(const struct sockaddr_storage *address, char *ret_name)
{
    char text[INET6_ADDRSTRLEN];
    if (address->ss_family == AF_INET) {
        const struct sockaddr_in *ipv4 = (const void *)address;
        if (inet_ntop(AF_INET, &ipv4->sin_addr, text, sizeof(text)) == NULL)
            return false;
        (void)snprintf(ret_name, RPC_PEER_NAME_BYTES, "ipv4:%s:%u", text, ntohs(ipv4->sin_port));
        return true;
    }
    if (address->ss_family != AF_INET6)
        return false;
    const struct sockaddr_in6 *ipv6 = (const void *)address;
    bool is_mapped = IN6_IS_ADDR_V4MAPPED(&ipv6->sin6_addr) != 0;
    const unsigned char *bytes = ipv6->sin6_addr.s6_addr;
    if (inet_ntop(is_mapped ? AF_INET : AF_INET6, is_mapped ? bytes + 12 : bytes, text,
            sizeof(text)) == NULL ||
        ipv6->sin6_scope_id != 0)
        return false;
    (void)snprintf(ret_name, RPC_PEER_NAME_BYTES, is_mapped ? "ipv4:%s:%u" : "ipv6:%%5B%s%%5D:%u",
        text, ntohs(ipv6->sin6_port));
    return true;
}

bool rpc_peer_write_name(int fd, bool is_by_number, char ret_name[static RPC_PEER_NAME_BYTES])
{
    if (is_by_number) {
        (void)snprintf(ret_name, RPC_PEER_NAME_BYTES, "fd:%d", fd);
        return true;
    }
    struct sockaddr_storage address = {0};
    socklen_t length = sizeof(address);
    if (getpeername(fd, (struct sockaddr *)(void *)&address, &length) != 0)
        return false;
    return write_address(&address, ret_name);
}

/* ---- the set ---- */

/* Whoever connects chooses his port, and may choose among many addresses. */
static size_t bucket_of(const struct rpc_peer_set *set, uint32_t listener, const char *name)
{
    uint64_t hash = listener;
    for (size_t left = strlen(name); left > 0;) {
        uint64_t part = 0;
        size_t size = left < sizeof(part) ? left : sizeof(part);
        memcpy(&part, name, size);
        hash = keyed_hash_of(&set->hash, hash ^ part);
        name += size;
        left -= size;
    }
    return hash % RPC_PEER_BUCKETS;
}

void rpc_peer_set_init(struct rpc_peer_set *set, const struct settings *settings)
{
    memset((void *)set, 0, sizeof(*set));
    if (!keyed_hash_init(&set->hash))
        log_warn("connections are looked up by a hash without a key: no random bytes");
    set->calls_limit = (uint64_t)settings->limits.queued_calls;
    set->bytes_limit = (size_t)settings->limits.held_megabytes * MEGABYTE;
    set->unknown.set = set;
    atomic_init(&set->unknown.references, 1); /* the set's own */
    (void)pthread_mutex_init(&set->lock, NULL);
}

void rpc_peer_set_cleanup(struct rpc_peer_set *set)
{
    while (set->free_peers != NULL) {
        struct rpc_peer *next = set->free_peers->next;
        free(set->free_peers);
        set->free_peers = next;
    }
    (void)pthread_mutex_destroy(&set->lock);
}

static struct rpc_peer *hold(struct rpc_peer *peer)
{
    atomic_fetch_add_explicit(&peer->references, 1, memory_order_relaxed);
    return peer;
}

/* With the lock held: one that has no reference; NULL without memory. */
static struct rpc_peer *take_free(struct rpc_peer_set *set)
{
    struct rpc_peer *peer = set->free_peers;
    if (peer != NULL) {
        set->free_peers = peer->next;
        return peer;
    }
    peer = aligned_alloc(_Alignof(struct rpc_peer), sizeof(*peer));
    if (peer == NULL)
        return NULL;
    memset((void *)peer, 0, sizeof(*peer));
    peer->number = ++set->last_number;
    return peer;
}

struct rpc_peer *rpc_peer_open(struct rpc_peer_set *set, uint32_t listener, const char *name)
{
    size_t bucket = bucket_of(set, listener, name);
    (void)pthread_mutex_lock(&set->lock);
    struct rpc_peer *peer = take_free(set);
    if (peer != NULL) {
        uint32_t number = peer->number;
        memset((void *)peer, 0, offsetof(struct rpc_peer, serial));
        peer->number = number;
        atomic_fetch_add_explicit(&peer->serial, 1, memory_order_relaxed);
        atomic_store_explicit(&peer->open_requests, 0, memory_order_relaxed);
        atomic_store_explicit(&peer->headers, 0, memory_order_relaxed);
        peer->set = set;
        peer->listener = listener;
        (void)snprintf(peer->name, sizeof(peer->name), "%s", name);
        atomic_init(&peer->references, 1);
        /* In front of one that has ended and is not closed yet: names come again. */
        peer->next = set->buckets[bucket];
        set->buckets[bucket] = peer;
    }
    (void)pthread_mutex_unlock(&set->lock);
    if (peer == NULL)
        log_warn("connection has no share of its own reason=memory listener=%u", listener);
    return peer != NULL ? peer : hold(&set->unknown);
}

void rpc_peer_close(struct rpc_peer *peer)
{
    struct rpc_peer_set *set = peer->set;
    if (peer != &set->unknown) {
        (void)pthread_mutex_lock(&set->lock);
        struct rpc_peer **place = &set->buckets[bucket_of(set, peer->listener, peer->name)];
        while (*place != peer)
            place = &(*place)->next;
        *place = peer->next;
        (void)pthread_mutex_unlock(&set->lock);
        rpc_account_close(peer->account);
        peer->account = NULL;
    }
    rpc_peer_release(peer);
}

struct rpc_peer *rpc_peer_find(struct rpc_peer_set *set, uint32_t listener, const char *name)
{
    size_t bucket = bucket_of(set, listener, name);
    (void)pthread_mutex_lock(&set->lock);
    struct rpc_peer *peer = set->buckets[bucket];
    while (peer != NULL && (peer->listener != listener || strcmp(peer->name, name) != 0))
        peer = peer->next;
    if (peer == NULL)
        peer = &set->unknown;
    (void)hold(peer); /* while the lock keeps it listed, and so alive */
    (void)pthread_mutex_unlock(&set->lock);
    return peer;
}

struct rpc_peer *rpc_peer_of_call(struct rpc_peer_set *set, uint32_t listener, grpc_call *call)
{
    char *name = grpc_call_get_peer(call);
    struct rpc_peer *peer = rpc_peer_find(set, listener, name);
    gpr_free(name);
    return peer;
}

void rpc_peer_release(struct rpc_peer *peer)
{
    if (atomic_fetch_sub_explicit(&peer->references, 1, memory_order_acq_rel) > 1)
        return;
    struct rpc_peer_set *set = peer->set;
    assert(peer != &set->unknown);
    (void)pthread_mutex_lock(&set->lock);
    peer->next = set->free_peers;
    set->free_peers = peer;
    (void)pthread_mutex_unlock(&set->lock);
}

/* ---- what is to come ---- */

/* 16 bits of the serial, 16 of the units, 32 of the time. */
#define SERIAL_SHIFT 48
#define UNITS_SHIFT  32
#define UNITS_MAX    UINT16_MAX

void rpc_peer_say_open(
    struct rpc_peer *peer, uint16_t serial, struct rpc_peer_open open, uint64_t headers)
{
    uint64_t units = open.units < UNITS_MAX ? open.units : UNITS_MAX;
    if (serial != atomic_load_explicit(&peer->serial, memory_order_relaxed))
        return;
    atomic_store_explicit(&peer->open_requests,
        (uint64_t)serial << SERIAL_SHIFT | units << UNITS_SHIFT | open.since_ms,
        memory_order_relaxed);
    atomic_store_explicit(&peer->headers, headers, memory_order_relaxed);
}

struct rpc_peer_open rpc_peer_says_open(const struct rpc_peer *peer)
{
    uint64_t packed = atomic_load_explicit(&peer->open_requests, memory_order_relaxed);
    if (packed >> SERIAL_SHIFT != atomic_load_explicit(&peer->serial, memory_order_relaxed))
        return (struct rpc_peer_open){0};
    return (struct rpc_peer_open){
        .units = (uint32_t)(packed >> UNITS_SHIFT) & UNITS_MAX,
        .since_ms = (uint32_t)packed,
    };
}

/* ---- what is held ---- */

static uint64_t read_counter(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static uint64_t answered(const struct rpc_peer_use *use)
{
    return read_counter(&use->answered) + read_counter(&use->answered_at_once);
}

/* The counters are read one after the other: what was counted in between is not there yet. */
static uint64_t difference(uint64_t larger, uint64_t smaller)
{
    return larger > smaller ? larger - smaller : 0;
}

uint64_t rpc_peer_use_waiting(const struct rpc_peer_use *use)
{
    return difference(read_counter(&use->arrived), answered(use));
}

uint64_t rpc_peer_use_unsent(const struct rpc_peer_use *use)
{
    return difference(answered(use), read_counter(&use->finished));
}

static void add_bytes(struct rpc_peer *peer, size_t bytes)
{
    if (bytes < COUNTED_BYTES_MIN)
        return;
    atomic_fetch_add_explicit(&peer->use.bytes, bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&peer->set->use.bytes, bytes, memory_order_relaxed);
}

static void remove_bytes(struct rpc_peer *peer, size_t bytes)
{
    if (bytes < COUNTED_BYTES_MIN)
        return;
    atomic_fetch_sub_explicit(&peer->use.bytes, bytes, memory_order_relaxed);
    atomic_fetch_sub_explicit(&peer->set->use.bytes, bytes, memory_order_relaxed);
}

void rpc_peer_add_arrived(struct rpc_peer *peer)
{
    scoreboard_add(&peer->use.arrived, 1);
    scoreboard_add(&peer->set->use.arrived, 1);
}

void rpc_peer_add_request(struct rpc_peer *peer, size_t bytes)
{
    add_bytes(peer, bytes);
}

void rpc_peer_add_held(struct rpc_peer *peer, size_t bytes)
{
    add_bytes(peer, bytes);
}

void rpc_peer_remove_held(struct rpc_peer *peer, size_t bytes)
{
    remove_bytes(peer, bytes);
}

bool rpc_peer_has_room(const struct rpc_peer *peer, size_t bytes)
{
    size_t own = atomic_load_explicit(&peer->use.bytes, memory_order_relaxed);
    size_t all = atomic_load_explicit(&peer->set->use.bytes, memory_order_relaxed);
    return own + all + bytes <= peer->set->bytes_limit || bytes < COUNTED_BYTES_MIN;
}

const char *rpc_peer_refusal(const struct rpc_peer *peer)
{
    const struct rpc_peer_set *set = peer->set;
    uint64_t waiting = rpc_peer_use_waiting(&set->use);
    uint64_t own_waiting = rpc_peer_use_waiting(&peer->use);
    if (waiting > set->calls_limit)
        return "too many calls in progress";
    /* Without this call: own < limit - all. */
    if (own_waiting + waiting > set->calls_limit + 1)
        return "too many calls of this connection in progress";
    uint64_t own_unsent = rpc_peer_use_unsent(&peer->use);
    if (own_unsent > 0 && own_unsent + rpc_peer_use_unsent(&set->use) > set->calls_limit)
        return "too many answers of this connection are not read";
    size_t own_bytes = atomic_load_explicit(&peer->use.bytes, memory_order_relaxed);
    size_t bytes = atomic_load_explicit(&set->use.bytes, memory_order_relaxed);
    if (own_bytes + bytes > set->bytes_limit && own_bytes > 0)
        return "too many bytes of this connection in progress";
    return NULL;
}

void rpc_peer_add_answered(
    struct rpc_peer *peer, bool is_loop_thread, size_t request_bytes, size_t reply_bytes)
{
    struct rpc_peer_use *all = &peer->set->use;
    scoreboard_add(is_loop_thread ? &peer->use.answered : &peer->use.answered_at_once, 1);
    scoreboard_add(is_loop_thread ? &all->answered : &all->answered_at_once, 1);
    remove_bytes(peer, request_bytes);
    add_bytes(peer, reply_bytes);
}

void rpc_peer_add_finished(struct rpc_peer *peer, size_t reply_bytes)
{
    scoreboard_add(&peer->use.finished, 1);
    scoreboard_add(&peer->set->use.finished, 1);
    remove_bytes(peer, reply_bytes);
}

void rpc_peer_add_cancelled(struct rpc_peer *peer)
{
    scoreboard_add(&peer->use.cancelled, 1);
}

void rpc_peer_add_served(struct rpc_peer *peer)
{
    scoreboard_add(&peer->use.served, 1);
}
