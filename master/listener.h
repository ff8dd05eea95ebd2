/* One listening socket: bound by us, or taken over from systemd by its FileDescriptorName.
 *
 * The master keeps it open for as long as the configuration names it, so that no waiting connection
 * is lost when workers come and go.
 */
#ifndef USERD_MASTER_LISTENER_H
#define USERD_MASTER_LISTENER_H

#include <stdbool.h>

#include "common/attributes.h"
#include "common/listener_address.h"
#include "common/settings.h"
#include "common/settings_complaints.h"

struct listener {
    int fd;                             /* owned; -1: none */
    char *name;                         /* owned */
    char *address;                      /* owned; as the configuration has it */
    char bound_text[LISTENER_TEXT_MAX]; /* where it really listens */
    bool is_inherited;                  /* from systemd */
    bool is_unix;
};

/* Sockets that systemd handed over (LISTEN_FDS), until listeners claim them. */
struct listener_inheritance {
    int first_fd;
    int count;
    char **names; /* owned */
};

/* Reads and clears LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES. 0 or negative errno. */
MUST_CHECK int listener_inheritance_take(struct listener_inheritance *ret_inheritance);
/* Closes what nobody claimed, with a warning. */
void listener_inheritance_cleanup(struct listener_inheritance *inheritance);

/* Binds and listens. What stands against it is added to *complaints, by `file` and the setting's
 * line, with the process that holds the address where it can be found; negative errno: -EINVAL when
 * the address cannot be read. `inheritance` NULL: nothing is inherited any more. */
MUST_CHECK int listener_open(const struct settings_listener *setting, const char *file,
    struct listener_inheritance *inheritance, struct settings_complaints *complaints,
    struct listener *ret_listener);
/* A listener of the program before; `fd` is taken. */
MUST_CHECK int listener_adopt(int fd, const char *name, const char *address, bool is_inherited,
    struct listener *ret_listener);
/* Closes; the socket file of a listener that we bound is removed. */
void listener_close(struct listener *listener);

#endif
