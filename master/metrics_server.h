/* The service's numbers over HTTP, for Prometheus: GET /metrics, and nothing else.
 *
 * The master is asked anew for each answer, so that the server outlives it and finds the next one;
 * while there is none the answer is 503 and says userd_up 0. At most METRICS_SERVER_CONNECTIONS at
 * a time, each with a time limit; one more waits in the kernel's queue or is closed.
 */
#ifndef USERD_MASTER_METRICS_SERVER_H
#define USERD_MASTER_METRICS_SERVER_H

#include "common/attributes.h"

#define METRICS_SERVER_CONNECTIONS 32

struct metrics_server;

/* `fd` listens, and is taken. `run_dir` must outlive the server. */
MUST_CHECK int metrics_server_start(
    int fd, const char *run_dir, struct metrics_server **ret_server);
/* NULL is fine. Always returns NULL. */
struct metrics_server *metrics_server_stop(struct metrics_server *server);

#endif
