/* What a master leaves to the program that takes its place, in the same process: all that it owns
 * that has to live on, by descriptor number, and all that it knows and could not learn again.
 *
 * It travels in a sealed memfd whose number stands in the environment. A head with a format number
 * comes first and is read first: a program of another format touches nothing and says so.
 */
#ifndef USERD_MASTER_HANDOVER_H
#define USERD_MASTER_HANDOVER_H

#include <stdbool.h>

#include "common/attributes.h"
#include "common/scoreboard.h"
#include "master/admin_socket.h"
#include "master/child_table.h"

#include "handover.pb-c.h"

#define HANDOVER_FORMAT   1U
#define HANDOVER_VARIABLE "USERD_HANDOVER" /* the memfd's number */
#define HANDOVER_AGREEMENT \
    "takes over format 1\n" /* what `userd handover-check` prints when it would */

/* Connections on their way to workers: they are few but in a flood, and a State is bounded. */
#define HANDOVER_PASSED_MAX 16384

/* A State with room for all that it may point to. Strings are borrowed. */
struct handover {
    Userd__Handover__State state;
    Userd__Handover__Listener listeners[SETTINGS_MAX_LISTENERS];
    Userd__Handover__Listener *listener_pointers[SETTINGS_MAX_LISTENERS];
    Userd__Handover__Child children[SCOREBOARD_SLOTS];
    Userd__Handover__Child *child_pointers[SCOREBOARD_SLOTS];
    Userd__Handover__Program programs[SCOREBOARD_SLOTS];
    Userd__Handover__Post posts[SCOREBOARD_SLOTS];
    Userd__Handover__Post *post_pointers[SCOREBOARD_SLOTS];
    Userd__Handover__Role roles[CHILD_ROLE_COUNT];
    Userd__Handover__Role *role_pointers[CHILD_ROLE_COUNT];
    Userd__Handover__Client clients[ADMIN_SOCKET_CLIENTS];
    Userd__Handover__Client *client_pointers[ADMIN_SOCKET_CLIENTS];
    Userd__Handover__Passed *passed[HANDOVER_PASSED_MAX]; /* owned */
};

/* Everything empty, lists without members, descriptors -1. NULL without memory. */
struct handover *handover_new(void);
void handover_free(struct handover *handover);
/* Room for one more of state.passed. NULL without memory, or when there are HANDOVER_PASSED_MAX. */
Userd__Handover__Passed *handover_add_passed(struct handover *handover);

/* *ret_fd is the caller's, close-on-exec. */
MUST_CHECK int handover_write(const Userd__Handover__State *state, int *ret_fd);
/* *ret_state: userd__handover__state__free_unpacked(). -EPROTONOSUPPORT: of another format, which
 * is in *ret_format; -EPROTO: not a hand-over at all. */
MUST_CHECK int handover_read(int fd, Userd__Handover__State **ret_state, uint32_t *ret_format);
/* The number in the environment, which is taken out of it; -1: nothing is handed over. */
int handover_take_fd(void);
/* Whether the descriptors of `state` outlive an exec. 0 or negative errno. */
MUST_CHECK int handover_set_inherited(const Userd__Handover__State *state, bool is_inherited);

#endif
