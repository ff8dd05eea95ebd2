/* Who may connect: the limits on connections, in all and of each client address, and bans.
 *
 * Decides, counts and logs; accepts and passes nothing. Those that it refuses for what their
 * address has done end a second later (refused_connections.h). Addresses that the operator exempts
 * (limits.exempt_addresses) and Unix sockets are bound by the total alone.
 */
#ifndef USERD_MASTER_CONNECTION_ADMISSION_H
#define USERD_MASTER_CONNECTION_ADMISSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <systemd/sd-event.h>

#include "common/attributes.h"
#include "common/scoreboard.h"
#include "common/settings.h"

/* Addresses with fewer connections may use the reserve (limits.reserved_percent). */
#define CONNECTION_ADMISSION_FEW 16

struct connection_admission;

struct arrived_connection {
    int *fd; /* the caller's, unless it is taken */
    const struct sockaddr *address;
    const char *listener; /* its name, for the log */
};

/* Counts in `admission`, which must outlive it. 0, -ENOMEM, -EIO. */
MUST_CHECK int connection_admission_new(sd_event *event, const struct settings *settings,
    struct scoreboard_admission *admission, struct connection_admission **ret_admission);
/* NULL is fine. Always returns NULL. */
struct connection_admission *connection_admission_free(struct connection_admission *admission);
/* Takes the limits over. -ENOMEM: they hold, but connections over the former limit are not counted
 * by address. */
MUST_CHECK int connection_admission_set(
    struct connection_admission *admission, const struct settings *settings);

/* Whether a new connection may be passed to a worker, while there are `living` and the workers have
 * room for `room` in all. False: it was counted and logged; where its descriptor is -1 afterwards
 * it ends later, else the caller closes it. `now_us`: CLOCK_MONOTONIC. */
bool connection_admission_allows(struct connection_admission *admission,
    const struct arrived_connection *connection, size_t living, size_t room, uint64_t now_us);
/* There are no descriptors left: ends those that were to end later. */
void connection_admission_free_descriptors(struct connection_admission *admission);
/* Counts and logs a refusal that was decided elsewhere. */
void connection_admission_refuse(struct connection_admission *admission,
    enum scoreboard_refusal refusal, const char *listener, const struct sockaddr *address);

/* A worker has reset a connection from this address (common/address_key.h). Returns for how many
 * seconds it is banned from now on (logged); 0: no new ban begins. */
unsigned int connection_admission_ban(
    struct connection_admission *admission, uint64_t key, const char *reason, uint64_t now_us);

/* What is to be noted of a connection that was passed, as address_limit.h says. */
void connection_admission_note(struct connection_admission *admission, int fd,
    const struct sockaddr *address, uint32_t slot, uint64_t now_us);
void connection_admission_forget(
    struct connection_admission *admission, int fd, const struct sockaddr *address);
void connection_admission_forget_slot(struct connection_admission *admission, uint32_t slot);

#endif
