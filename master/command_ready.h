/* `userd ready`: whether calls are served now, for scripts and health checks. Asks the running
 * service, as `userd status` does. */
#ifndef USERD_MASTER_COMMAND_READY_H
#define USERD_MASTER_COMMAND_READY_H

#define COMMAND_READY_USAGE "ready [-c FILE | --run-dir DIR] [--wait SECONDS]"

/* 0: a worker is ready and reaches the database. 1: none, with the reason on standard error. */
int command_ready(int argc, char **argv);

#endif
