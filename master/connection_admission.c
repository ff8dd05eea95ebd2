#include "master/connection_admission.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/address_key.h"
#include "common/address_list.h"
#include "common/log.h"
#include "master/address_ban.h"
#include "master/address_limit.h"
#include "master/address_rate.h"
#include "master/refused_connections.h"

#define LOG_LINES_A_SECOND 2
#define HUNDRED            100
#define SHORT_AGAIN_US     UINT64_C(10000000) /* later it is another shortage */

struct connection_admission {
    struct scoreboard_admission *counters;
    size_t connections_max;
    unsigned int connections_per_address_max;
    unsigned int reserved_percent;
    struct address_list exempt;
    struct address_limit *limit; /* owned, as the next two */
    struct address_rate *rate;
    struct address_ban *ban;
    struct refused_connections *refused; /* owned */
    struct log_limit refusal_log;
    struct log_limit ban_log;
};

static const char *const refusal_reasons[SCOREBOARD_REFUSALS] = {
    [SCOREBOARD_REFUSAL_BANNED] = "the address is banned",
    [SCOREBOARD_REFUSAL_RATE] = "limits.connection_rate_per_address reached",
    [SCOREBOARD_REFUSAL_TOTAL] = "limits.connections reached",
    [SCOREBOARD_REFUSAL_RESERVED] = "limits.reserved_percent is for addresses that have few",
    [SCOREBOARD_REFUSAL_ADDRESS] = "limits.connections_per_address reached",
    [SCOREBOARD_REFUSAL_NO_WORKER] = "no worker has room for it",
};

int connection_admission_set(
    struct connection_admission *admission, const struct settings *settings)
{
    char reason[ADDRESS_LIST_REASON_BYTES];
    admission->connections_max = (size_t)settings->limits.connections;
    admission->connections_per_address_max = (unsigned int)settings->limits.connections_per_address;
    admission->reserved_percent = (unsigned int)settings->limits.reserved_percent;
    address_rate_set(admission->rate, (unsigned int)settings->limits.connection_rate_per_address);
    address_ban_set(admission->ban, (unsigned int)settings->limits.ban_seconds,
        (unsigned int)settings->limits.ban_max_seconds);
    /* Judged when the file was read. */
    if (!address_list_parse(settings->limits.exempt_addresses, &admission->exempt, reason))
        log_error("limits.exempt_addresses is not used reason=\"%s\"", reason);
    return address_limit_reserve(admission->limit, admission->connections_max);
}

int connection_admission_new(sd_event *event, const struct settings *settings,
    struct scoreboard_admission *counters, struct connection_admission **ret_admission)
{
    struct connection_admission *admission = calloc(1, sizeof(*admission));
    if (admission == NULL)
        return -ENOMEM;
    admission->counters = counters;
    int result = address_limit_new((size_t)settings->limits.connections, &admission->limit);
    if (result == 0)
        result = address_rate_new(&admission->rate);
    if (result == 0)
        result = address_ban_new(&admission->ban);
    if (result == 0)
        result = refused_connections_new(event, &admission->refused);
    if (result == 0)
        result = connection_admission_set(admission, settings);
    if (result < 0) {
        (void)connection_admission_free(admission);
        return result;
    }
    *ret_admission = admission;
    return 0;
}

struct connection_admission *connection_admission_free(struct connection_admission *admission)
{
    if (admission == NULL)
        return NULL;
    (void)refused_connections_free(admission->refused);
    (void)address_ban_free(admission->ban);
    (void)address_rate_free(admission->rate);
    (void)address_limit_free(admission->limit);
    free(admission);
    return NULL;
}

static void count(_Atomic uint64_t *counter)
{
    scoreboard_add(counter, 1);
}

static void write_address(const struct sockaddr *address, char ret_text[ADDRESS_KEY_TEXT_BYTES])
{
    uint64_t key = 0;
    ret_text[0] = '\0';
    if (address != NULL && address_key_make(address, &key))
        address_key_write(key, ret_text);
}

void connection_admission_refuse(struct connection_admission *admission,
    enum scoreboard_refusal refusal, const char *listener, const struct sockaddr *address)
{
    unsigned int suppressed = 0;
    char text[ADDRESS_KEY_TEXT_BYTES];
    count(&admission->counters->refused[refusal]);
    if (!log_limit_allows(&admission->refusal_log, LOG_LINES_A_SECOND, &suppressed))
        return;
    write_address(address, text);
    log_warn("connection refused listener=%s address=%s reason=\"%s\" suppressed=%u", listener,
        text, refusal_reasons[refusal], suppressed);
}

/* Workers close idle connections while this is said again and again: as long as somebody comes
 * while the reserve is being used. */
static void say_short(struct connection_admission *admission, size_t living, size_t most,
    size_t reserve, uint64_t now_us)
{
    _Atomic uint64_t *short_at_us = &admission->counters->short_at_us;
    uint64_t before_us = atomic_load_explicit(short_at_us, memory_order_relaxed);
    atomic_store_explicit(short_at_us, now_us, memory_order_relaxed);
    if (before_us == 0 || now_us - before_us > SHORT_AGAIN_US)
        log_warn("connections are short living=%zu most=%zu reserved=%zu effect=\"idle ones are "
                 "closed\"",
            living, most, reserve);
}

bool connection_admission_allows(struct connection_admission *admission,
    const struct arrived_connection *connection, size_t living, size_t room, uint64_t now_us)
{
    uint64_t key = 0;
    const struct sockaddr *address = connection->address;
    size_t most = room < admission->connections_max ? room : admission->connections_max;
    size_t reserve = most * admission->reserved_percent / HUNDRED;
    bool is_bound =
        address_key_make(address, &key) && !address_list_contains(&admission->exempt, address);
    enum scoreboard_refusal refusal = SCOREBOARD_REFUSALS;
    bool is_short = living + reserve >= most;
    if (is_short)
        say_short(admission, living, most, reserve, now_us);
    if (is_bound && address_ban_holds(admission->ban, key, now_us))
        refusal = SCOREBOARD_REFUSAL_BANNED;
    else if (is_bound && !address_rate_allows(admission->rate, address, now_us))
        refusal = SCOREBOARD_REFUSAL_RATE;
    else if (living >= admission->connections_max)
        refusal = SCOREBOARD_REFUSAL_TOTAL;
    else if (is_bound && is_short &&
             !address_limit_allows(
                 admission->limit, address, CONNECTION_ADMISSION_FEW, (int64_t)now_us))
        refusal = SCOREBOARD_REFUSAL_RESERVED;
    else if (is_bound && !address_limit_allows(admission->limit, address,
                             admission->connections_per_address_max, (int64_t)now_us))
        refusal = SCOREBOARD_REFUSAL_ADDRESS;
    if (refusal == SCOREBOARD_REFUSALS)
        return true;
    connection_admission_refuse(admission, refusal, connection->listener, address);
    if (is_bound && refusal != SCOREBOARD_REFUSAL_TOTAL)
        refused_connections_hold(admission->refused, connection->fd);
    return false;
}

void connection_admission_free_descriptors(struct connection_admission *admission)
{
    refused_connections_end_all(admission->refused);
}

unsigned int connection_admission_ban(
    struct connection_admission *admission, uint64_t key, const char *reason, uint64_t now_us)
{
    unsigned int suppressed = 0;
    unsigned int seconds = address_ban_add(admission->ban, key, now_us);
    if (seconds == 0)
        return 0;
    count(&admission->counters->bans);
    if (log_limit_allows(&admission->ban_log, LOG_LINES_A_SECOND, &suppressed)) {
        char text[ADDRESS_KEY_TEXT_BYTES];
        address_key_write(key, text);
        log_warn("address banned address=%s seconds=%u reason=%s suppressed=%u", text, seconds,
            reason, suppressed);
    }
    return seconds;
}

void connection_admission_note(struct connection_admission *admission, int fd,
    const struct sockaddr *address, uint32_t slot, uint64_t now_us)
{
    int result = address_limit_add(admission->limit, fd, address, slot, (int64_t)now_us);
    if (result < 0)
        log_debug("connection not counted by address error=\"%s\"", strerror(-result));
}

void connection_admission_forget(
    struct connection_admission *admission, int fd, const struct sockaddr *address)
{
    address_limit_remove(admission->limit, fd, address);
}

void connection_admission_forget_slot(struct connection_admission *admission, uint32_t slot)
{
    address_limit_forget_slot(admission->limit, slot);
}
