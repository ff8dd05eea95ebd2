/* run_dir/admin.sock: where `userd status`, `reload` and `stop` reach the master.
 *
 * SOCK_SEQPACKET, mode 0660, and the peer's credentials are looked at as well: root and our own
 * user may all, our group may ask for the status, nobody else is heard. At most
 * ADMIN_SOCKET_CLIENTS at a time, each with a deadline; one more is closed at once. A client that
 * sends anything but one request at a time is cut off. It decides nothing: requests go to the
 * handlers.
 */
#ifndef USERD_MASTER_ADMIN_SOCKET_H
#define USERD_MASTER_ADMIN_SOCKET_H

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "common/attributes.h"

#include "handover.pb-c.h"
#include "ipc.pb-c.h"

#define ADMIN_SOCKET_FILE    "admin.sock"
#define ADMIN_SOCKET_CLIENTS 16

struct admin_socket;
struct admin_socket_client;

struct admin_socket_handlers {
    /* Each must come to one answer: admin_socket_answer() now, or later admin_socket_conclude(). */
    void (*on_status)(struct admin_socket_client *client, void *userdata);
    void (*on_reload)(struct admin_socket_client *client, void *userdata);
    void (*on_stop)(struct admin_socket_client *client, void *userdata);
    void (*on_upgrade)(struct admin_socket_client *client, void *userdata);
};

/* `directory_fd` is run_dir's, whose lock must be held: a socket file that is there is a dead
 * master's, and replaced. It must outlive the socket. Failures are the caller's to log. */
MUST_CHECK int admin_socket_new(sd_event *event, int directory_fd,
    const struct admin_socket_handlers *handlers, void *userdata, struct admin_socket **ret_socket);
struct handover;
/* Puts the socket and the clients that wait for an answer into the hand-over. */
void admin_socket_save(const struct admin_socket *socket, struct handover *handover);
/* As admin_socket_new(), on the socket and the clients of the program before, whose descriptors it
 * takes. Those who wait get `timeout_ms` more. */
MUST_CHECK int admin_socket_take_over(sd_event *event, const Userd__Handover__State *state,
    const struct admin_socket_handlers *handlers, void *userdata, unsigned int timeout_ms,
    struct admin_socket **ret_socket);
/* Closes all and removes the file. NULL is fine. Always returns NULL. */
struct admin_socket *admin_socket_free(struct admin_socket *socket);

/* Answers the request of this client; the id is filled in. `fd` (or -1) stays the caller's. */
void admin_socket_answer(
    struct admin_socket_client *client, Userd__Ipc__AdminResult *result, int fd);
/* It will take up to `timeout_ms` more to answer: moves the client's deadline. */
void admin_socket_wait(struct admin_socket_client *client, unsigned int timeout_ms);
/* Answers everyone whose request of this kind is still open. `reason` NULL: it is done.
 * `warning` (or NULL): what a person should know all the same. */
void admin_socket_conclude(struct admin_socket *socket, Userd__Ipc__AdminRequest__Kind kind,
    const char *reason, const char *warning);

#endif
