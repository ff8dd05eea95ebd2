/* The commands' side of run_dir/admin.sock: one question at a time, each with a deadline. */
#ifndef USERD_MASTER_ADMIN_CLIENT_H
#define USERD_MASTER_ADMIN_CLIENT_H

#include "common/attributes.h"

#include "ipc.pb-c.h"

struct admin_client;

/* -ENOENT or -ECONNREFUSED: nobody serves this run_dir. -EACCES: not for this user. */
MUST_CHECK int admin_client_open(const char *run_dir, struct admin_client **ret_client);
/* NULL is fine. Always returns NULL. */
struct admin_client *admin_client_close(struct admin_client *client);
void admin_client_closep(struct admin_client **client);

/* The answer is the client's and lives until the next question or the end. *ret_fd (the caller's)
 * is what came with it, or -1. -ETIMEDOUT; -ECONNRESET: the master hung up. */
MUST_CHECK int admin_client_ask(struct admin_client *client, Userd__Ipc__AdminRequest__Kind kind,
    unsigned int timeout_ms, const Userd__Ipc__AdminResult **ret_result, int *ret_fd);
/* Until the process that serves the socket is gone. -ETIMEDOUT. */
MUST_CHECK int admin_client_await_end(struct admin_client *client, unsigned int timeout_ms);

#endif
