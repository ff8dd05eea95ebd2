/* What the connections of an address do together. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/address_key.h"
#include "common/file_descriptor.h"
#include "common/monotonic_clock.h"
#include "worker/rpc/rpc_account.h"

#define SECOND UINT64_C(1000000)
#define RATE   1000
#define CROWD  (RPC_ACCOUNT_KEPT_MAX + 100)

static struct rpc_account_set set;
static sd_event *event;
static unsigned int offences;
static uint64_t offender;
static const char *offence_reason;

static void on_offence(uint64_t key, const char *reason, void *userdata)
{
    cr_assert_eq(userdata, &set);
    offences++;
    offender = key;
    offence_reason = reason;
}

static void init_with(char *exempt)
{
    struct settings settings = {0};
    settings.limits.cancel_rate_per_address = RATE;
    settings.limits.exempt_addresses = exempt;
    cr_assert_geq(sd_event_new(&event), 0);
    cr_assert_geq(rpc_account_set_init(&set, event, &settings, on_offence, &set), 0);
}

static void init(void)
{
    char nobody[] = "";
    init_with(nobody);
}

static void fini(void)
{
    rpc_account_set_cleanup(&set);
    event = sd_event_unref(event);
}

TestSuite(rpc_account, .init = init, .fini = fini);

/* The serving end of a connection from this address of the loopback network. */
static int connect_from(uint32_t host)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    int listener CLEANUP(fd_close) = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(bind(listener, (struct sockaddr *)&address, length), 0);
    cr_assert_eq(listen(listener, 1), 0);
    cr_assert_eq(getsockname(listener, (struct sockaddr *)&address, &length), 0);
    int client CLEANUP(fd_close) = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in source = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK + host)};
    cr_assert_eq(bind(client, (struct sockaddr *)&source, sizeof(source)), 0);
    cr_assert_eq(connect(client, (struct sockaddr *)&address, length), 0);
    int served = accept(listener, NULL, NULL);
    cr_assert_geq(served, 0);
    return served; /* the client's end may go: the kernel still knows the peer's address */
}

static struct rpc_account *open_from(uint32_t host)
{
    int fd CLEANUP(fd_close) = connect_from(host);
    struct rpc_account *account = rpc_account_open(&set, fd);
    cr_assert_neq(account, NULL);
    return account;
}

Test(rpc_account, is_one_for_all_connections_of_an_address)
{
    struct rpc_account *first = open_from(1);
    struct rpc_account *second = open_from(1);
    struct rpc_account *other = open_from(2);
    cr_assert_eq(first, second);
    cr_assert_neq(first, other);
    cr_assert_eq(first->connections, 2);
    rpc_account_close(second);
    cr_assert_eq(first->connections, 1);
    rpc_account_close(first);
    rpc_account_close(other);
}

/* Eight connections, each far below what one may do. Returns how many were found at fault. */
static unsigned int run_eight(struct rpc_account *account, struct rpc_recent recents[8],
    uint64_t now_us, unsigned int seconds, uint64_t cancelled, uint64_t useful)
{
    unsigned int faults = 0;
    for (unsigned int tick = 0; tick < seconds * 100; tick++)
        for (unsigned int i = 0; i < 8; i++)
            faults += rpc_account_add_cancels(
                          account, &recents[i], now_us + tick * (SECOND / 100), cancelled, useful)
                          ? 1
                          : 0;
    return faults;
}

Test(rpc_account, bounds_what_eight_connections_do_together)
{
    struct rpc_account *accounts[8];
    for (unsigned int i = 0; i < 8; i++)
        accounts[i] = open_from(1);
    struct rpc_recent recents[8] = {0};
    uint64_t now_us = monotonic_clock_us();
    cr_assert_eq(run_eight(accounts[0], recents, now_us, 5, 1, 0), 0); /* 800 a second in all */
    cr_assert_gt(run_eight(accounts[0], recents, now_us + 5 * SECOND, 5, 5, 0), 0);
    for (unsigned int i = 0; i < 8; i++)
        rpc_account_close(accounts[i]);
}

Test(rpc_account, lets_pass_what_is_little_beside_the_answered_calls)
{
    struct rpc_account *account = open_from(1);
    struct rpc_recent recents[8] = {0};
    cr_assert_eq(run_eight(account, recents, monotonic_clock_us(), 20, 10, 90), 0);
    rpc_account_close(account);
}

Test(rpc_account, finds_only_those_at_fault_that_have_a_part_in_it)
{
    struct rpc_account *bad = open_from(1);
    struct rpc_account *good = open_from(1);
    struct rpc_recent of_bad = {0};
    struct rpc_recent of_good = {0};
    uint64_t now_us = monotonic_clock_us();
    cr_assert(rpc_account_add_cancels(bad, &of_bad, now_us, 100 * RATE, 0));
    cr_assert_not(rpc_account_add_cancels(good, &of_good, now_us, 1, 0));
    cr_assert_not(rpc_account_add_cancels(bad, &of_bad, now_us, 0, 0));
    cr_assert(rpc_account_add_cancels(bad, &of_bad, now_us, 1, 0));
    rpc_account_close(bad);
    rpc_account_close(good);
}

Test(rpc_account, is_stricter_while_the_address_is_banned)
{
    struct rpc_account *account = open_from(1);
    struct rpc_recent recent = {0};
    uint64_t now_us = monotonic_clock_us();
    cr_assert_not(rpc_account_add_cancels(account, &recent, now_us, RATE, 0));
    rpc_account_ban(&set, account->key, now_us + SECOND);
    cr_assert(rpc_account_add_cancels(account, &recent, now_us, 1, 0));
    cr_assert_not(rpc_account_add_cancels(account, &recent, now_us + SECOND, 1, 0));
    rpc_account_close(account);
}

Test(rpc_account, outlives_its_connections_while_its_budget_is_used)
{
    struct rpc_account *account = open_from(1);
    struct rpc_recent recent = {0};
    uint64_t now_us = monotonic_clock_us();
    cr_assert(rpc_account_add_cancels(account, &recent, now_us, 100 * RATE, 0));
    rpc_account_close(account);
    cr_assert_eq(set.kept, 1);
    account = open_from(1);
    struct rpc_recent anew = {0};
    cr_assert_eq(set.kept, 0);
    cr_assert(rpc_account_add_cancels(account, &anew, now_us, 100 * RATE, 0));
    rpc_account_close(account);
    struct rpc_account *other = open_from(2);
    rpc_account_close(other);
    cr_assert_eq(set.kept, 1); /* this one had nothing to remember */
}

Test(rpc_account, keeps_so_many_at_most)
{
    struct rpc_recent recent = {0};
    for (uint32_t host = 0; host < CROWD; host++) {
        struct rpc_account *account = open_from(1 + host);
        cr_assert_not(rpc_account_add_cancels(account, &recent, monotonic_clock_us(), 1, 0));
        rpc_account_close(account);
    }
    cr_assert_eq(set.kept, RPC_ACCOUNT_KEPT_MAX);
}

Test(rpc_account, reports_an_address_once_until_that_is_heard)
{
    struct rpc_account *account = open_from(7);
    rpc_account_report(account, "one");
    rpc_account_report(account, "two");
    cr_assert_eq(offences, 0); /* the loop's thread has it first */
    cr_assert_gt(sd_event_run(event, 0), 0);
    cr_assert_eq(offences, 1);
    cr_assert_eq(offender, account->key);
    cr_assert_str_eq(offence_reason, "one");
    rpc_account_report(account, "three");
    cr_assert_gt(sd_event_run(event, 0), 0);
    cr_assert_eq(offences, 2);
    rpc_account_close(account);
}

Test(rpc_account, drops_offences_that_are_too_many)
{
    for (uint32_t host = 0; host < 2 * RPC_ACCOUNT_OFFENCES; host++) {
        struct rpc_account *account = open_from(1 + host);
        rpc_account_report(account, "crowd");
        rpc_account_close(account);
    }
    cr_assert_gt(sd_event_run(event, 0), 0);
    cr_assert_eq(offences, RPC_ACCOUNT_OFFENCES);
}

Test(rpc_account, binds_no_unix_socket)
{
    int pair[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    struct rpc_account *first = rpc_account_open(&set, pair[0]);
    struct rpc_account *second = rpc_account_open(&set, pair[1]);
    struct rpc_recent recent = {0};
    cr_assert_neq(first, second);
    cr_assert_not(rpc_account_add_cancels(first, &recent, monotonic_clock_us(), 100 * RATE, 0));
    rpc_account_report(first, "none");
    cr_assert_eq(set.offence_count, 0);
    rpc_account_close(first);
    rpc_account_close(second);
    (void)close(pair[0]);
    (void)close(pair[1]);
}

Test(rpc_account, binds_no_exempt_address)
{
    char exempt[] = "127.0.0.9, 10.0.0.0/8";
    fini();
    init_with(exempt);
    struct rpc_account *free_one = open_from(8);
    struct rpc_account *bound_one = open_from(7);
    struct rpc_recent recent = {0};
    uint64_t now_us = monotonic_clock_us();
    cr_assert_not(rpc_account_add_cancels(free_one, &recent, now_us, 100 * RATE, 0));
    rpc_account_report(free_one, "none");
    cr_assert_eq(set.offence_count, 0);
    struct rpc_recent of_bound = {0};
    cr_assert(rpc_account_add_cancels(bound_one, &of_bound, now_us, 100 * RATE, 0));
    rpc_account_close(free_one);
    rpc_account_close(bound_one);
}
