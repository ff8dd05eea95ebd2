/* What each client address does to this worker, all its connections together, and the word to the
 * master when one of them had to be reset for it.
 *
 * An IPv6 /64 counts as one address (common/address_key.h). Connections of Unix sockets, and of
 * addresses that the operator exempts (limits.exempt_addresses), have an account each to
 * themselves, which is bound by nothing here and is never reported. An account lives as long as
 * somebody refers to it, and for a while longer while its budget is not even again, so that nobody
 * gets a new one by connecting anew; of such ones so many are kept at most.
 *
 * rpc_account_add_cancels(), which judges, is the watch thread's; what counts is said beside each.
 */
#ifndef USERD_WORKER_RPC_RPC_ACCOUNT_H
#define USERD_WORKER_RPC_RPC_ACCOUNT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/address_list.h"
#include "common/attributes.h"
#include "common/keyed_hash.h"
#include "common/settings.h"
#include "worker/rpc/rpc_allowance.h"
#include "worker/rpc/rpc_open_limit.h"

#define RPC_ACCOUNT_BUCKETS  4096
#define RPC_ACCOUNT_KEPT_MAX 4096 /* that nobody refers to */
#define RPC_ACCOUNT_OFFENCES 64   /* that the loop thread has not seen yet; more are dropped */

struct rpc_account_set;

struct rpc_account {
    struct rpc_account_set *set;
    uint64_t key;
    bool is_bound;               /* false: not by any limit on addresses */
    struct rpc_account *next;    /* guarded by the set's lock: in its bucket */
    struct rpc_account *newer;   /* likewise: of those that are kept, in order of their release */
    struct rpc_account *older;   /* likewise */
    unsigned int references;     /* likewise */
    atomic_uint connections;     /* living ones */
    _Atomic uint64_t used_at_us; /* when cancels were added last; watch thread */
    _Atomic uint64_t banned_until_us; /* CLOCK_MONOTONIC; loop thread */
    struct rpc_allowance cancels;     /* watch thread */
    struct rpc_recent recent;         /* likewise: cancels lately */
    struct rpc_open_totals open;      /* guarded by the watch's lock: of its connections */
};

struct rpc_account_offence {
    uint64_t key;
    const char *reason; /* static */
};

/* One for each worker. */
struct rpc_account_set {
    struct address_list exempt;
    struct rpc_allowance_rules rules;
    struct keyed_hash hash;
    void (*on_offence)(uint64_t key, const char *reason, void *userdata);
    void *userdata;
    int wake_fd;             /* owned: eventfd, written when there is an offence to report */
    sd_event_source *source; /* owned */
    pthread_mutex_t lock;    /* guards what follows */
    struct rpc_account *buckets[RPC_ACCOUNT_BUCKETS];
    struct rpc_account *oldest_kept; /* owned, as all between */
    struct rpc_account *newest_kept;
    size_t kept;
    struct rpc_account_offence offences[RPC_ACCOUNT_OFFENCES];
    size_t offence_count;
};

/* `on_offence` runs on the loop thread: a connection of this address was reset, `reason` is a
 * static word. 0 or negative errno; cleanup also after a failure. */
MUST_CHECK int rpc_account_set_init(struct rpc_account_set *set, sd_event *event,
    const struct settings *settings,
    void (*on_offence)(uint64_t key, const char *reason, void *userdata), void *userdata);
/* Nobody refers to an account any more. Zeroed is fine. */
void rpc_account_set_cleanup(struct rpc_account_set *set);

/* A connection begins: its account, with a reference. NULL without memory (logged): it is bound by
 * nothing here. */
struct rpc_account *rpc_account_open(struct rpc_account_set *set, int fd);
/* The connection has ended. NULL is fine. */
void rpc_account_close(struct rpc_account *account);

/* Watch thread: a connection of this address has taken back so many more calls, and so many more of
 * its calls were answered. True: together they take back too much, and this one, of which *recent
 * is, has no small part in it. */
MUST_CHECK bool rpc_account_add_cancels(struct rpc_account *account, struct rpc_recent *recent,
    uint64_t now_us, uint64_t cancelled, uint64_t useful);

/* Any thread: a connection of this address was reset. `reason` is static. NULL is fine. */
void rpc_account_report(const struct rpc_account *account, const char *reason);
/* The same, by the connection's descriptor, before it is reset. */
void rpc_account_report_descriptor(struct rpc_account_set *set, int fd, const char *reason);
/* Loop thread: the address is banned until then (CLOCK_MONOTONIC). */
void rpc_account_ban(struct rpc_account_set *set, uint64_t key, uint64_t until_us);

#endif
